"""Whatever a caller sends: no 5xx, and answers that keep to the published schema."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from backend.demo.stack import Stack
from backend.shared.testing.programs import REPOSITORY

pytestmark = pytest.mark.xdist_group("stack")  # one worker: a stack is dear


@pytest.fixture(params=["auth", "product", "cart"])
async def service(stack: Stack, request: pytest.FixtureRequest) -> AsyncIterator[str]:
    """A service whose run-time settings are put back afterwards: they are changed like everything else."""
    yield request.param
    connection = await asyncpg.connect(stack.env[f"{request.param.upper()}_DATABASE_URL"])
    try:
        await connection.execute(
            f"UPDATE tandem_{request.param}.control SET settings = '{{}}', phase = 'dualwrite'"
        )
    finally:
        await connection.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_schemathesis_finds_no_5xx_and_no_schema_violation(
    stack: Stack, admin_token: str, service: str, tmp_path: Path
) -> None:
    url = stack.env[f"{service.upper()}_URL"]
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")),
            "--config-file",
            str(REPOSITORY / "schemathesis.toml"),
            "run",
            f"{url}/openapi.json",
            "--header",
            f"Authorization: Bearer {admin_token}",
            "--phases",
            "examples,coverage,fuzzing",
            "--max-examples",
            "15",
            "--seed",
            "1",
            "--continue-on-failure",
            "--warnings",
            "off",
            "--suppress-health-check",
            "all",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
