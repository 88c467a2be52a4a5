"""Whatever a caller sends: no 5xx, and answers that keep to the published schema."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from backend.demo.stack import Stack
from tests.support.schemathesis_run import run_schemathesis

pytestmark = [
    pytest.mark.xdist_group("stack"),  # one worker: a stack is dear
    pytest.mark.timeout(180),  # whichever comes first starts it
]


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
    run_schemathesis(stack.env[f"{service.upper()}_URL"], token=admin_token, folder=tmp_path)
