"""`scripts/validate_data_sync.py`: exit codes, JSON, what is printed and what never is."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from prometheus_client import CollectorRegistry

import backend.auth_service
from backend.auth_service.app.core.dual_write_manager import AuthDualWriteManager
from backend.legacy_shop.schema import create_schema
from backend.shared import DualWriteSettings, Phase
from backend.shared.observability.metrics import Metrics
from backend.shared.testing.clusters import Cluster, Databases
from tests.conftest import MakeTemplate

SCRIPT = Path(__file__).parents[2] / "scripts" / "validate_data_sync.py"
USERS = (
    "INSERT INTO users (usr_id, login_email, pwd_hash, first_nm, reg_date) "
    "SELECT 'u' || n, n || '@x', 'hash-of-' || n, 'N' || n, '2024-07-01 12:00:00' FROM generate_series(1, 20) AS n"
)


async def migrate(url: str) -> None:
    config = Config(str(Path(backend.auth_service.__path__[0]) / "alembic.ini"))
    config.attributes["database_url"] = url
    await asyncio.to_thread(command.upgrade, config, "head")


@pytest.fixture(scope="session")
def legacy_template(make_template: MakeTemplate, legacy_cluster: Cluster) -> str:
    return make_template(legacy_cluster, "script_legacy_template", create_schema)


@pytest.fixture(scope="session")
def new_template(make_template: MakeTemplate, services_cluster: Cluster) -> str:
    return make_template(services_cluster, "script_new_template", migrate)


@dataclass(frozen=True)
class Ended:
    """How a run of the script ended."""

    code: int
    out: str
    err: str


@dataclass(frozen=True)
class Auth:
    """Both databases of the auth service, with 20 users on either side."""

    databases: Databases

    async def sql(self, url: str, statement: str) -> None:
        connection = await asyncpg.connect(url)
        await connection.execute(statement)
        await connection.close()

    async def script(self, *arguments: str) -> Ended:
        """Run the script for the auth service."""
        return await run_script(
            *arguments,
            AUTH_LEGACY_DATABASE_URL=self.databases.legacy_url,
            AUTH_DATABASE_URL=self.databases.new_url,
        )


async def run_script(*arguments: str, **environment: str) -> Ended:
    """Run the script in a folder in which no stack is up."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SCRIPT),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], **environment},
        cwd="/",
    )
    out, err = await process.communicate()
    return Ended(process.returncode or 0, out.decode(), err.decode())


@pytest.fixture
async def auth(databases: Databases) -> Auth:
    manager = AuthDualWriteManager(
        databases.new_url,
        databases.legacy_url,
        DualWriteSettings(service="auth", phase=Phase.DUALWRITE),
        metrics=Metrics(CollectorRegistry()),
    )
    await manager.install()
    await manager.start()
    made = Auth(databases)
    await made.sql(databases.legacy_url, USERS)
    assert await manager.relay().drain(timeout_seconds=10)
    await manager.close()
    return made


async def test_equal(auth: Auth) -> None:
    ended = await auth.script("--service", "auth")
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.splitlines()[-1] == "verdict: equal"
    ended = await auth.script("--entity", "user", "--json")
    assert (ended.code, ended.err) == (0, "")
    answer = json.loads(ended.out)
    assert answer["summary"] == {
        "entities": 1,
        "equal": 1,
        "different": 0,
        "incomplete": 0,
        "rows_compared": 20,
        "mismatches": 0,
    }
    (entity,) = answer["entities"]
    assert entity.pop("duration_seconds") >= 0
    run = answer["run"]
    assert (run["kind"], run["share"], run["resumed"], run["notes"]) == ("full", 1.0, False, [])
    assert entity.pop("run") == run["id"] == 2
    assert entity == {
        "service": "auth",
        "entity": "user",
        "rows_legacy": 20,
        "rows_new": 20,
        "missing_in_new": 0,
        "missing_in_legacy": 0,
        "different": 0,
        "moving": 0,
        "verdict": "equal",
        "verdict_text": "equal",
        "scope": "full",
        "share": 1.0,
        "since_run": None,
        "mismatches_new": 0,
        "mismatches_still": 0,
        "mismatches_gone": 0,
        "mismatches": [],
    }


async def test_different(auth: Auth) -> None:
    await auth.sql(
        auth.databases.new_url,
        "UPDATE users SET password_hash = 'stolen', email = '[red]other' WHERE id = 'u7'; DELETE FROM users WHERE id = 'u8'; "
        "INSERT INTO users (id, email, role, is_active, created_at) VALUES ('[bold]x', 'e', 'user', true, now())",
    )
    ended = await auth.script("--service", "auth")
    assert (ended.code, ended.err) == (1, "")
    lines = [line.strip() for line in ended.out.splitlines()]
    assert 'auth user ["u7"]' not in lines
    for expected in (
        "--- legacy",
        "+++ new",
        '~ auth user ["u7"] different',
        "users.email",
        "users.password_hash",
        '- auth user ["u8"]',
        '+ auth user ["[bold]x"]',
    ):
        assert expected in lines, ended.out
    shown = await auth.script("--service", "auth", "--show-values")
    assert "-   users.email: '7@x'" in shown.out
    assert "+   users.email: '[red]other'" in shown.out
    for run in (ended, shown, await auth.script("--service", "auth", "--show-values", "--json")):
        assert run.code == 1
        assert "hash-of" not in run.out
        assert "stolen" not in run.out
    assert "7@x" not in ended.out


async def test_incomplete(auth: Auth) -> None:
    await auth.sql(auth.databases.legacy_url, "UPDATE users SET city = 'Ulm' WHERE usr_id = 'u7'")
    ended = await auth.script("--service", "auth", "--json")
    assert (ended.code, json.loads(ended.out)["summary"]["incomplete"]) == (2, 1)


NOWHERE = dict.fromkeys(("LEGACY_DATABASE_URL", "DATABASE_URL"), "postgresql://me:geheim@127.0.0.1:1/x")


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        ("--service nope", NOWHERE, "there is no service 'nope'"),
        ("--entity nope", NOWHERE, "there is no entity 'nope'"),
        ("--service auth --entity cart", NOWHERE, "there is no entity 'cart'"),
        ("--service cart", {}, "LEGACY_DATABASE_URL: is not set"),
        ("", NOWHERE, "legacy side: LEGACY_DATABASE_URL: not reachable"),
        ("", NOWHERE | {"AUTH_DATABASE_URL": "postgresql:geheim"}, "DATABASE_URL: is no database URL"),
        ("", NOWHERE | {"AUTH_DUAL_WRITE_SYNC_INTERVAL": "-1"}, "AUTH_DUAL_WRITE_SYNC_INTERVAL: must be"),
    ],
)
async def test_could_not_run(arguments: str, environment: dict[str, str], told: str) -> None:
    ended = await run_script(*arguments.split(), **environment)
    assert (ended.code, ended.out) == (2, "")
    (line,) = ended.err.splitlines()
    assert told in line
    assert "geheim" not in line


async def test_trouble_in_the_middle_is_no_difference(auth: Auth) -> None:
    await auth.sql(auth.databases.new_url, "ALTER TABLE user_profiles RENAME COLUMN city TO town")
    ended = await auth.script("--service", "auth")
    assert (ended.code, ended.out) == (2, "")
    assert len(ended.err.splitlines()) == 1
    assert "new side" in ended.err
