"""Starting as a process: what is wrong is one line and exit code 2, and nothing is half started."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from backend.auth_service.app import admin
from backend.auth_service.app.core.dual_write_manager import AuthDualWriteManager
from backend.auth_service.app.core.settings import AuthSettings
from backend.shared import ConfigurationError, DualWriteSettings, Phase
from backend.shared.api.tokens import TokenIssuer
from backend.shared.testing.clusters import Databases
from backend.shared.testing.ports import free_port
from tests.integration.auth_service.conftest import MakeAuth
from tests.integration.auth_service.support import NO_STACK, PASSWORD, run_sql

FACTORY = "backend.auth_service.app.main:create_app"
ADMIN = "backend.auth_service.app.admin"


def environment(databases: Databases, signing_key: Path, **other: str) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if "DUAL_WRITE" not in name},
        "LEGACY_DATABASE_URL": databases.legacy_url,
        "AUTH_DATABASE_URL": databases.new_url,
        "AUTH_SIGNING_KEY_FILE": str(signing_key),
        "AUTH_DUAL_WRITE_PHASE": "dualwrite",
        "AUTH_HASH_MEMORY_KIB": "64",
        "AUTH_HASH_PASSES": "1",
        **other,
    }


async def run(env: dict[str, str], *argv: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a Python program."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *argv),
        cwd=NO_STACK,
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        output, errors = await asyncio.wait_for(child.communicate(), 50)
    except TimeoutError:
        child.kill()
        await child.wait()
        raise
    return child.returncode or 0, output.decode(), errors.decode()


async def serve(env: dict[str, str]) -> tuple[int, str, str]:
    return await run(env, "uvicorn", "--factory", FACTORY, "--port", str(free_port()))


@asynccontextmanager
async def serving(env: dict[str, str]) -> AsyncIterator[httpx.AsyncClient]:
    """A service process, once it is ready; ended by SIGTERM."""
    port = free_port()
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "uvicorn", "--factory", FACTORY, "--port", str(port)),
        cwd=NO_STACK,
        env=env,
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
            async with asyncio.timeout(60):
                while not await _is_ready(client):
                    assert child.returncode is None
                    await asyncio.sleep(0.05)
            yield client
    finally:
        if child.returncode is None:
            child.terminate()
        # The server ends in good order, and then lets the signal have its way.
        assert await asyncio.wait_for(child.wait(), 20) in {0, -signal.SIGTERM}


async def _is_ready(client: httpx.AsyncClient) -> bool:
    try:
        return (await client.get("/readyz")).status_code == 200
    except httpx.TransportError:
        return False


async def install(databases: Databases) -> None:
    settings = DualWriteSettings(
        service="auth",
        legacy_database_url=databases.legacy_url,
        database_url=databases.new_url,
        phase=Phase.DUALWRITE,
    )
    manager = AuthDualWriteManager(settings=settings)
    await manager.install()
    await manager.close()


DOWN = "postgresql://tandem:hunter2@127.0.0.1:1/shop"


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"AUTH_SIGNING_KEY_FILE": ""}, "AUTH_SIGNING_KEY_FILE: is not set"),
        ({"LEGACY_DATABASE_URL": DOWN}, "legacy side"),
        ({"AUTH_DATABASE_URL": "mysql://root:hunter2@h/x"}, "DATABASE_URL: 'mysql'"),
        ({}, "the journal is not installed"),
    ],
)
async def test_what_is_wrong_at_start_is_one_line(
    databases: Databases, signing_key: Path, variables: dict[str, str], said: str
) -> None:
    code, output, errors = await serve(environment(databases, signing_key, **variables))
    assert (code, len(errors.splitlines())) == (2, 1), errors
    assert errors.startswith("auth: ")
    assert said in errors
    assert "hunter2" not in output + errors
    assert "Traceback" not in output


async def test_a_missing_migration_is_one_line(databases: Databases, signing_key: Path) -> None:
    await install(databases)
    await run_sql(databases.new_url, "DELETE FROM alembic_version")
    code, _, errors = await serve(environment(databases, signing_key))
    assert (code, len(errors.splitlines())) == (2, 1), errors
    assert "at migration none" in errors


@pytest.mark.timeout(180)  # four programs start one after the other
async def test_a_served_process_takes_its_first_admin_and_ends_cleanly(
    databases: Databases, signing_key: Path
) -> None:
    await install(databases)
    env = environment(databases, signing_key, TANDEM_ADMIN_PASSWORD=PASSWORD)
    command = (ADMIN, "create-admin", "--email", "root@example.com")
    assert (await run(env, *command))[0] == 0
    code, output, _ = await run(env, *command)
    assert (code, output.splitlines()[-1]) == (0, "admin root@example.com: unchanged")
    async with serving(env) as client:
        body = {"email": "root@example.com", "password": PASSWORD}
        tokens = (await client.post("/auth/login", json=body)).json()
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        assert (await client.get("/users", headers=headers)).status_code == 200
        metrics = (await client.get("/metrics")).text
        assert 'service="auth"' in metrics
        async with asyncio.timeout(30):  # the service carries its own changes
            while not await run_sql(databases.new_url, "SELECT 1 FROM users"):  # noqa: ASYNC110 - another process's work
                await asyncio.sleep(0.05)


async def test_a_first_admin_without_password_is_one_line(databases: Databases, signing_key: Path) -> None:
    env = environment(databases, signing_key, TANDEM_ADMIN_PASSWORD="")
    code, _, errors = await run(env, ADMIN, "create-admin", "--email", "root@example.com")
    assert (code, len(errors.splitlines())) == (2, 1), errors
    assert "TANDEM_ADMIN_PASSWORD: is not set" in errors


@pytest.mark.parametrize(
    ("password", "email", "said"),
    [
        ("short", "root@example.com", "TANDEM_ADMIN_PASSWORD: String should have at least 10"),
        ("x" * 201, "root@example.com", "TANDEM_ADMIN_PASSWORD: String should have at most 200"),
        (
            "\udc80 is no character",
            "root@example.com",
            "TANDEM_ADMIN_PASSWORD: Input should be a valid string",
        ),
        ("long enough, really", "root", "--email: String should"),
        ("long enough, really", "root@example", "--email: String should match"),
    ],
)
def test_a_first_admin_that_cannot_be_is_refused(
    monkeypatch: pytest.MonkeyPatch, password: str, email: str, said: str
) -> None:
    monkeypatch.setenv("TANDEM_ADMIN_PASSWORD", password)
    with pytest.raises(ConfigurationError) as caught:
        admin.create_admin(email)
    assert said in str(caught.value)
    assert password not in str(caught.value)


def test_a_signing_key_is_made_once(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    admin.create_signing_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert TokenIssuer.from_file(path).jwks()["keys"][0]["crv"] == "Ed25519"
    made = path.read_bytes()
    with pytest.raises(ConfigurationError, match="cannot make"):
        admin.create_signing_key(path)
    assert path.read_bytes() == made


@pytest.mark.parametrize("path", ["/nowhere/key.pem", __file__, "/"])
async def test_an_application_that_cannot_start_raises_to_whoever_made_it(
    make_auth: MakeAuth, path: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"^AUTH_SIGNING_KEY_FILE: "):
        await make_auth(Phase.OFF, auth_settings=AuthSettings(signing_key_file=Path(path)))


def test_settings_from_the_environment() -> None:
    settings = AuthSettings.from_env(
        {"AUTH_SIGNING_KEY_FILE": "/key", "AUTH_ACCESS_TOKEN_SECONDS": "60", "AUTH_RUN_RELAY": "FALSE"}
    )
    assert settings.access_token_lifetime.total_seconds() == 60
    assert settings.refresh_token_lifetime.days == 14
    assert settings.run_relay is False
    wrong = {"AUTH_SIGNING_KEY_FILE": " ", "AUTH_RUN_RELAY": "perhaps", "AUTH_HASH_THREADS": "many"}
    for variable, text in wrong.items():
        with pytest.raises(ConfigurationError, match=f"^{variable}: "):
            AuthSettings.from_env({"AUTH_SIGNING_KEY_FILE": "/key", variable: text})
    for variable in ("AUTH_ACCESS_TOKEN_SECONDS", "AUTH_HASH_PASSES"):
        for number in ("0", "-1", "1e3", "9" * 30, "٣٠"):
            with pytest.raises(ConfigurationError, match=variable):
                AuthSettings.from_env({"AUTH_SIGNING_KEY_FILE": "/key", variable: number})
