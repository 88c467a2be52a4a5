"""Whatever a caller sends: no 5xx, and answers that keep to the published schema, on each store."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from backend.shared.api.tokens import Role, TokenIssuer, generate_signing_key
from backend.shared.testing.ports import free_port
from backend.shared.testing.processes import ServiceProcess
from backend.shared.testing.programs import REPOSITORY
from tests.contract.task_service.support import ORMS
from tests.support.schemathesis_run import run_schemathesis

pytestmark = ORMS
_KEY = generate_signing_key()


@pytest.fixture
async def url(environment: dict[str, str], tmp_path: Path) -> AsyncIterator[str]:
    """Where the service runs, as a program."""
    public = load_pem_private_key(_KEY, password=None).public_key()
    key_file = tmp_path / "key.pem"
    key_file.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    url = f"http://127.0.0.1:{(port := free_port())}"
    serve = ("uvicorn", "--factory", "backend.task_service.app.main:create_app", "--port", str(port))
    program = ServiceProcess(
        (sys.executable, "-m", *serve),
        name="the task service",
        env={**environment, "AUTH_PUBLIC_KEY_FILE": str(key_file), "PATH": os.environ["PATH"]},
        log=tmp_path / "task.log",
        ready_url=f"{url}/readyz",
        cwd=REPOSITORY,
    )
    await program.start()
    yield url
    await program.terminate()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_schemathesis_finds_no_5xx_and_no_schema_violation(url: str, tmp_path: Path) -> None:
    token = TokenIssuer(_KEY).issue("boss", role=Role.ADMIN)
    run_schemathesis(url, token=token, folder=tmp_path, max_examples=5)
