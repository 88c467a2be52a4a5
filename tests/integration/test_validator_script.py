"""`tandem validate` and `scripts/validate_data_sync.py`: exit codes, JSON, what is printed and what never is."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

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

SCRIPT = Path(__file__).parents[2] / "scripts" / "validate_data_sync.py"
MODULE = "backend.shared.cli.main"
RUNS = "SELECT state, times_resumed FROM tandem_auth.validation_run ORDER BY id"
USERS = (
    "INSERT INTO users (usr_id, login_email, pwd_hash, first_nm, reg_date) "
    "SELECT 'u' || n, n || '@x', 'hash-of-' || n, 'N' || n, '2024-07-01 12:00:00' FROM generate_series(1, 20) AS n"
)


@pytest.fixture(scope="session")
def legacy_template(make_template: MakeTemplate, legacy_cluster: Cluster) -> str:
    return make_template(legacy_cluster, "script_legacy_template", create_schema)


@pytest.fixture(scope="session")
def new_template(make_template: MakeTemplate, services_cluster: Cluster) -> str:
    return make_template(services_cluster, "script_new_template", migrate_auth)


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
        return await run_script(*arguments, **self.environment)

    async def tandem(self, *arguments: str) -> Ended:
        """Run `tandem validate auth`."""
        return await ended(
            await begun("-m", MODULE, "validate", "auth", *arguments, environment=self.environment)
        )

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AUTH_LEGACY_DATABASE_URL": self.databases.legacy_url,
            "AUTH_DATABASE_URL": self.databases.new_url,
        }

    async def rows(self, url: str, query: str) -> list[tuple[object, ...]]:
        connection = await asyncpg.connect(url)
        try:
            return [tuple(row) for row in await connection.fetch(query)]
        finally:
            await connection.close()


async def begun(
    *arguments: str, environment: Mapping[str, str], stderr: int = asyncio.subprocess.PIPE
) -> Process:
    """A Python process in a folder in which no stack is up."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(SCRIPT.parents[1]), **environment},
        cwd="/",
    )


async def ended(process: Process) -> Ended:
    out, err = await process.communicate()
    return Ended(process.returncode or 0, out.decode(), (err or b"").decode())


async def run_script(*arguments: str, **environment: str) -> Ended:
    return await ended(await begun(str(SCRIPT), *arguments, environment=environment))


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


async def test_command_and_script_say_the_same(auth: Auth) -> None:
    await auth.sql(auth.databases.new_url, "UPDATE users SET email = 'other' WHERE id = 'u7'")
    script, command = await auth.script("--service", "auth"), await auth.tandem()
    assert (script.code, command.code, command.err) == (1, 1, "")
    counts = {"1 new, 0 still there, 0 gone", "0 new, 1 still there, 0 gone"}
    lines = [
        [line for line in run.out.splitlines() if "earlier runs" not in line] for run in (script, command)
    ]
    assert lines[0] == lines[1]
    assert {run.out.partition("earlier runs: ")[2].partition("\n")[0] for run in (script, command)} == counts


async def test_changed_and_sample(auth: Auth) -> None:
    first = await auth.tandem("--changed")
    assert (first.code, "all keys are compared, since there has been no full run of it" in first.out) == (
        0,
        True,
    )
    assert first.out.splitlines()[-1] == "verdict: equal"
    again = json.loads((await auth.tandem("--changed", "--json")).out)
    assert (again["verdict_text"], again["run"]["kind"]) == (
        "equal in the 0 keys changed since the last full run",
        "changed",
    )
    script = await auth.script("--changed", "--service", "auth")
    assert script.out.splitlines()[-1] == "verdict: equal in the 0 keys changed since the last full run"
    sample = await auth.tandem("--sample", "0.5")
    assert (sample.code, "verdict: equal in a sample of 50 %: " in sample.out) == (0, True)
    assert (await auth.script("--sample", "0.5", "--entity", "user")).code == 0


async def test_list(auth: Auth) -> None:
    nothing = await auth.tandem("--list", "--json")
    assert json.loads(nothing.out) == {"runs": [], "mismatches": []}
    await auth.sql(auth.databases.new_url, "UPDATE users SET email = 'geheim' WHERE id = 'u7'")
    await auth.tandem()
    listed = await auth.tandem("--list")
    assert (listed.code, listed.err) == (0, "")
    assert 'auth user ["u7"] different users.email (run 1 to 1, since' in listed.out
    found = json.loads((await auth.tandem("--list", "--json")).out)
    assert [(item["key"], item["fields"]) for item in found["mismatches"]] == [('["u7"]', ["users.email"])]
    assert [(run["id"], run["state"], run["verdict"]) for run in found["runs"]] == [
        (1, "finished", "different")
    ]
    assert "geheim" not in listed.out + str(found)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--entity nope", "unknown entity 'nope'"),
        ("--sample 2", "the share of a sample is above 0"),
        ("--sample 0.1 --changed", "a sample of what has changed is not to be had"),
        ("--list --changed", "--list compares nothing"),
    ],
)
async def test_bad_input_of_the_command(auth: Auth, arguments: str, told: str) -> None:
    run = await auth.tandem(*arguments.split())
    (line,) = run.err.splitlines()
    assert (run.code, run.out, told in line) == (2, "", True), line
    assert await auth.rows(auth.databases.new_url, RUNS) == []


async def test_progress_is_shown_on_a_terminal_only(auth: Auth) -> None:
    ours, theirs = pty.openpty()
    process = await begun(
        *("-m", MODULE, "validate", "auth", "--entity", "user"), stderr=theirs, environment=auth.environment
    )
    out, _ = await process.communicate()
    os.close(theirs)
    assert "auth user" in os.read(ours, 100_000).decode()
    os.close(ours)
    assert (process.returncode, out.decode().splitlines()[-1]) == (0, "verdict: equal")
    assert (await auth.tandem()).err == ""


@asynccontextmanager
async def held(auth: Auth) -> AsyncIterator[Process]:
    """`tandem validate`, waiting for a lock of the first table that it reads."""
    connection = await asyncpg.connect(auth.databases.legacy_url)
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("LOCK TABLE users IN ACCESS EXCLUSIVE MODE")
    process = await begun("-m", MODULE, "validate", "auth", environment=auth.environment)
    waiting = "SELECT FROM pg_locks WHERE NOT granted AND relation = 'users'::regclass"
    try:
        async with asyncio.timeout(15):
            while not await connection.fetch(waiting):  # noqa: ASYNC110 - a lock gives no sign
                await asyncio.sleep(0.02)
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await transaction.rollback()
        await connection.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_signal_ends_it_cleanly_and_the_next_goes_on(auth: Auth, number: signal.Signals) -> None:
    async with held(auth) as process:
        process.send_signal(number)
        run = await asyncio.wait_for(ended(process), timeout=5)
        assert (run.code, run.out, len(run.err.splitlines())) == (2, "", 1)
        assert "interrupted before the end" in run.err
        assert await auth.rows(auth.databases.new_url, RUNS) == [("interrupted", 0)]
    again = await auth.tandem("--json")
    assert (again.code, json.loads(again.out)["run"]["resumed"]) == (0, True)
    assert await auth.rows(auth.databases.new_url, RUNS) == [("finished", 1)]


@pytest.mark.invariant("I7")
async def test_i7_kill_9_leaves_a_run_that_is_taken_up_when_it_has_been_silent(auth: Auth) -> None:
    async with held(auth) as process:
        process.kill()
        await process.wait()
    aside = await auth.tandem("--json")
    assert (aside.code, aside.err) == (0, "")
    run = json.loads(aside.out)["run"]
    assert (run["id"], run["resumed"]) == (2, False)
    assert [note for note in run["notes"] if "run 1 is under way" in note]
    await auth.sql(
        auth.databases.new_url,
        "UPDATE tandem_auth.validation_run SET heartbeat_at = heartbeat_at - interval '6 seconds'",
    )
    taken_up = await auth.tandem("--json")
    assert (json.loads(taken_up.out)["run"]["id"], taken_up.code) == (1, 0)
