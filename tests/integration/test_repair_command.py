"""`tandem repair`: exit codes, what is printed and what never is, and how it ends when it is asked to."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import signal
import sys
from dataclasses import dataclass

import asyncpg
import pytest
from prometheus_client import CollectorRegistry

from backend.auth_service.app.core.dual_write_manager import AuthDualWriteManager
from backend.legacy_shop.schema import create_schema
from backend.shared import DualWriteSettings, Phase
from backend.shared.observability.metrics import Metrics
from backend.shared.testing.clusters import Cluster, Databases
from tests.conftest import MakeTemplate
from tests.support.commands import Ended, migrate_auth
from tests.support.fixtures import Sql

USERS = (
    "INSERT INTO users (usr_id, login_email, pwd_hash, first_nm, reg_date) "
    "SELECT 'u' || n, n || '@x', 'hash-of-' || n, 'N' || n, '2024-07-01 12:00:00' FROM generate_series(1, 600) AS n"
)
KEPT = (
    "INSERT INTO tandem_auth.mismatch (entity, key, kind, first_run, last_run) "
    "SELECT 'user', jsonb_build_array(id)::text, 'different', 1, 1 FROM users WHERE {} ORDER BY id"
)


@pytest.fixture(scope="session")
def legacy_template(make_template: MakeTemplate, legacy_cluster: Cluster) -> str:
    return make_template(legacy_cluster, "repair_legacy_template", create_schema)


@pytest.fixture(scope="session")
def new_template(make_template: MakeTemplate, services_cluster: Cluster) -> str:
    return make_template(services_cluster, "repair_new_template", migrate_auth)


@dataclass(frozen=True)
class Auth:
    """Both databases of the auth service, with 600 users on either side."""

    legacy: Sql
    new: Sql

    @property
    def environment(self) -> dict[str, str]:
        return {"AUTH_LEGACY_DATABASE_URL": self.legacy.url, "AUTH_DATABASE_URL": self.new.url}

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        return await started("auth", *arguments, **self.environment)

    async def repair(self, *arguments: str) -> Ended:
        return await ended(await self.start(*arguments))


async def started(*arguments: str, command: str = "repair", **environment: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "backend.shared.cli.main",
        command,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "USER": getpass.getuser(), **environment},
        cwd="/",
    )


async def ended(process: asyncio.subprocess.Process) -> Ended:
    out, err = await process.communicate()
    return Ended(process.returncode or 0, out.decode(), err.decode())


@pytest.fixture
async def auth(databases: Databases) -> Auth:
    manager = AuthDualWriteManager(
        databases.new_url,
        databases.legacy_url,
        DualWriteSettings(service="auth", phase=Phase.DUALWRITE, batch_size=1000),
        metrics=Metrics(CollectorRegistry()),
    )
    await manager.install()
    await manager.start()
    made = Auth(legacy=Sql(databases.legacy_url), new=Sql(databases.new_url))
    await made.legacy(USERS)
    assert await manager.relay().drain(timeout_seconds=20)
    await manager.close()
    return made


async def test_dry_run_then_repair_then_nothing_left(auth: Auth) -> None:
    await auth.new("UPDATE users SET email = 'wrong', password_hash = 'stolen' WHERE id = 'u7'")
    await auth.new(KEPT.format("id IN ('u7', 'u8')"))
    planned = await auth.repair("--dry-run")
    assert (planned.code, planned.err) == (0, "")
    assert planned.out.splitlines() == [
        '-- user ["u7"]: planned',
        "--   users.email: 'wrong' -> '7@x'",
        "--   users.password_hash: '***' -> '***'",
        "UPDATE users SET email = '7@x', password_hash = '***' WHERE id = 'u7';",
        '-- user ["u8"]: equal already (nothing was written)',
        "-- auth, legacy to new: 1 equal already, 1 planned; a dry run, nothing was changed",
    ]
    done = await auth.repair("--reason", "ticket 12", "--by", "ann")
    assert done.code == 0
    assert done.out.splitlines() == [
        'user ["u7"]: repaired users.email users.password_hash',
        'user ["u8"]: equal already (nothing was written)',
        "auth, legacy to new: 1 repaired, 1 equal already",
    ]
    events = [json.loads(line) for line in done.err.splitlines()]
    (event,) = [event for event in events if event["event"] == "key_repaired"]
    assert (event["by"], event["reason"], event["key"]) == ("ann", "ticket 12", '["u7"]')
    for run in (planned, done):
        assert "stolen" not in run.out + run.err
        assert "hash-of" not in run.out + run.err
    (row,) = await auth.new("SELECT email, password_hash FROM users WHERE id = 'u7'")
    assert tuple(row) == ("7@x", "hash-of-7")
    again = await auth.repair()
    assert (again.code, again.out) == (2, "")
    assert "run `tandem validate auth` first" in again.err, (
        "the mismatches were put there without a validation"
    )


async def test_validate_repair_validate(auth: Auth) -> None:
    async def validate() -> int:
        return (await ended(await started("auth", command="validate", **auth.environment))).code

    await auth.new("UPDATE users SET email = email || ' ' WHERE id = 'u7'")
    await auth.new("DELETE FROM users WHERE id = 'u8'")
    assert await validate() == 1
    done = await auth.repair()
    assert (done.code, done.out.splitlines()[-1]) == (0, "auth, legacy to new: 2 repaired")
    assert await validate() == 0
    again = await auth.repair()
    assert (again.code, again.out) == (
        0,
        "auth, legacy to new: nothing to repair: the last validation left no mismatch open\n",
    )


async def test_json_and_values(auth: Auth) -> None:
    await auth.new("UPDATE users SET email = 'wrong', password_hash = 'stolen' WHERE id = 'u7'")
    done = await auth.repair("--entity", "user", "--key", "u7", "--key", '["u8"]', "--json", "--show-values")
    assert done.code == 0
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert lines[0] == {
        "entity": "user",
        "key": '["u7"]',
        "outcome": "repaired",
        "fields": {
            "users.email": {"before": "'wrong'", "after": "'7@x'"},
            "users.password_hash": {"before": "'***'", "after": "'***'"},
        },
    }
    assert lines[1]["outcome"] == "equal already"
    assert lines[2]["summary"]["counts"]["repaired"] == 1
    assert lines[2]["summary"]["complete"] is True
    assert "stolen" not in done.out + done.err
    (row,) = await auth.new("SELECT repaired_by, reason FROM tandem_auth.repair")
    assert tuple(row) == (getpass.getuser(), "repair")


async def test_something_left(auth: Auth) -> None:
    await auth.legacy("UPDATE users SET city = 'on its way' WHERE usr_id = 'u9'")
    await auth.new("UPDATE users SET email = 'wrong' WHERE id = 'u7'")
    done = await auth.repair("--entity", "user", "--key", "u9", "--key", "u7")
    assert done.code == 1
    assert 'user ["u9"]: moving (a change of it is on its way; left alone)' in done.out
    assert 'user ["u7"]: repaired users.email' in done.out


async def until_it_waits_for_a_lock(auth: Auth) -> None:
    for _ in range(1000):
        if await auth.new("SELECT 1 FROM pg_locks WHERE NOT granted"):
            return
        await asyncio.sleep(0.02)


async def test_ended_by_sigint_after_the_batch_in_hand(auth: Auth) -> None:
    await auth.new("UPDATE users SET email = email || ' '")
    await auth.new(KEPT.format("true"))
    holder = await asyncpg.connect(auth.new.url)
    try:
        async with holder.transaction():
            await holder.execute("SELECT 1 FROM users FOR UPDATE")
            process = await auth.start()
            await until_it_waits_for_a_lock(auth)
            process.send_signal(signal.SIGINT)
        done = await ended(process)
    finally:
        await holder.close()
    assert done.code == 1
    assert done.out.splitlines()[-1] == "auth, legacy to new: 500 repaired; ended before the last key"
    rows = await auth.new("SELECT state, count(*) AS n FROM tandem_auth.mismatch GROUP BY 1 ORDER BY 1")
    assert [tuple(row) for row in rows] == [("open", 100), ("repaired", 500)]
    assert (await auth.repair()).code == 0


NOWHERE = dict.fromkeys(("LEGACY_DATABASE_URL", "DATABASE_URL"), "postgresql://me:geheim@127.0.0.1:1/x")


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        ("nope", NOWHERE, "there is no service 'nope'"),
        ("cart", {}, "LEGACY_DATABASE_URL: is not set"),
        ("auth", NOWHERE, "legacy side: LEGACY_DATABASE_URL: not reachable"),
    ],
)
async def test_could_not_run(arguments: str, environment: dict[str, str], told: str) -> None:
    done = await ended(await started(*arguments.split(), **environment))
    assert (done.code, done.out) == (2, "")
    (line,) = done.err.splitlines()
    assert told in line
    assert "geheim" not in line


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("", "run `tandem validate auth` first, or name keys with --key"),
        ("--entity nope --key x", "unknown entity 'nope'"),
        ("--entity user --key []", "a key of user has 1 part"),
        ("--limit 0", "--limit"),
        ("--from here", "--from"),
    ],
)
async def test_bad_input(auth: Auth, arguments: str, told: str) -> None:
    done = await auth.repair(*arguments.split())
    assert (done.code, done.out) == (2, "")
    assert told in done.err
    assert "Traceback" not in done.err
