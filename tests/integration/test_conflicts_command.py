"""`tandem conflicts` and `tandem settle`: what they print, what they never print, and how they end."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
from prometheus_client import CollectorRegistry

from backend.auth_service.app.core.dual_write_manager import AuthDualWriteManager
from backend.legacy_shop.schema import create_schema
from backend.shared import DualWriteSettings, Phase
from backend.shared.migration.gates import GateName
from backend.shared.observability.metrics import Metrics
from backend.shared.testing.clusters import Cluster, Databases
from tests.conftest import MakeTemplate
from tests.support.commands import Ended, migrate_auth
from tests.support.fixtures import Sql

USERS = (
    "INSERT INTO users (usr_id, login_email, pwd_hash, first_nm, reg_date) "
    "SELECT 'u' || n, n || '@x', 'hash-of-' || n, 'N' || n, '2024-07-01 12:00:00' FROM generate_series(1, 9) AS n"
)
FOREIGN = "UPDATE users SET login_email = 'old-program@x', pwd_hash = 'stolen' WHERE usr_id = 'u7'"


@pytest.fixture(scope="session")
def legacy_template(make_template: MakeTemplate, legacy_cluster: Cluster) -> str:
    return make_template(legacy_cluster, "conflicts_legacy_template", create_schema)


@pytest.fixture(scope="session")
def new_template(make_template: MakeTemplate, services_cluster: Cluster) -> str:
    return make_template(services_cluster, "conflicts_new_template", migrate_auth)


@dataclass(frozen=True)
class Auth:
    """The auth service in `live`, with nine users on either side."""

    legacy: Sql
    new: Sql
    manager: AuthDualWriteManager

    async def tandem(self, *arguments: str) -> Ended:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "backend.shared.cli.main", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
                "USER": getpass.getuser(),
                "COLUMNS": "150",
                "AUTH_LEGACY_DATABASE_URL": self.legacy.url,
                "AUTH_DATABASE_URL": self.new.url,
            },
            cwd="/",
        )
        out, err = await process.communicate()
        return Ended(process.returncode or 0, out.decode(), err.decode())


@pytest.fixture
async def auth(databases: Databases) -> AsyncIterator[Auth]:
    manager = AuthDualWriteManager(
        databases.new_url,
        databases.legacy_url,
        DualWriteSettings(service="auth", phase=Phase.DUALWRITE, batch_size=1000),
        metrics=Metrics(CollectorRegistry()),
    )
    await manager.install()
    await manager.start()
    made = Auth(legacy=Sql(databases.legacy_url), new=Sql(databases.new_url), manager=manager)
    await made.legacy(USERS)
    assert await manager.relay().drain(timeout_seconds=20)
    await manager.change_phase(Phase.LIVE, force=[name.value for name in GateName], reason="a test")
    yield made
    await manager.close()


@pytest.mark.timeout(180)  # each command is a process of its own
async def test_listed_planned_settled_and_none_left(auth: Auth) -> None:
    none = await auth.tandem("conflicts", "auth")
    assert (none.code, none.out, none.err) == (0, "auth: no conflicts\n", "")
    await auth.legacy(FOREIGN)
    listed = await auth.tandem("conflicts", "auth")
    assert (listed.code, listed.err) == (1, "")
    assert "auth-legacy-1" in listed.out
    assert "users.login_email" in listed.out
    assert "old-program" not in listed.out
    (line,) = (await auth.tandem("conflicts", "auth", "--json", "--values")).out.splitlines()
    shown = json.loads(line)
    assert (shown["id"], shown["key"], shown["operation"]) == ("auth-legacy-1", '["u7"]', "update")
    assert shown["fields"] == [
        {"field": "users.login_email", "before": "7@x", "after": "old-program@x"},
        {"field": "users.pwd_hash", "before": "***", "after": "***"},
    ]
    planned = await auth.tandem("settle", "auth-legacy-1", "--keep", "legacy", "--dry-run", "--values")
    assert (planned.code, planned.out.splitlines()) == (
        0,
        [
            'auth-legacy-1 (user ["u7"]), keep legacy: planned: written on the new side, then carried',
            "  users.email: 7@x -> old-program@x",
            "  users.password_hash: *** -> ***",
        ],
    )
    done = await auth.tandem("settle", "auth-legacy-1", "--keep", "legacy", "--by", "ann")
    assert (done.code, done.out) == (0, 'auth-legacy-1 (user ["u7"]), keep legacy: settled\n')
    again = await auth.tandem("settle", "auth-legacy-1", "--keep", "legacy")
    assert (again.code, again.out) == (
        0,
        'auth-legacy-1 (user ["u7"]), keep legacy: settled already: by ann\n',
    )
    other = await auth.tandem("settle", "auth-legacy-1", "--keep", "new")
    assert (other.code, other.out) == (2, "")
    assert other.err == "tandem: auth-legacy-1 was settled by ann: kept legacy\n"
    for run in (listed, planned, done):
        assert "stolen" not in run.out + run.err
        assert "hash-of" not in run.out + run.err
    (row,) = await auth.new("SELECT email FROM users WHERE id = 'u7'")
    assert row["email"] == "old-program@x"
    assert (await auth.tandem("conflicts", "auth")).code == 0


@pytest.mark.timeout(180)
async def test_all_of_a_service_and_what_is_left(auth: Auth) -> None:
    await auth.legacy(FOREIGN)
    await auth.legacy("DELETE FROM users WHERE usr_id = 'u1'")
    await auth.legacy("UPDATE users SET login_email = 'taken@x' WHERE usr_id = 'u2'")
    await auth.new("UPDATE users SET email = 'taken@x' WHERE id = 'u3'")
    done = await auth.tandem("settle", "--all", "auth", "--keep", "legacy")
    refused, counted = done.out.splitlines()
    assert (done.code, counted) == (1, "auth: 2 settled, 1 refused")
    assert refused.startswith('auth-legacy-3 (user ["u2"]), keep legacy: refused: ')
    assert "unique value refused by " in refused
    rest = await auth.tandem("settle", "--all", "auth", "--keep", "new")
    assert (rest.code, rest.out) == (0, "auth: 1 settled\n")
    assert (await auth.tandem("settle", "--all", "auth", "--keep", "new")).out == "auth: no conflicts\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("settle", "12", "--keep", "new"), "'12' is no conflict's id: they look like cart-legacy-12"),
        (("settle", "auth-legacy-9", "--keep", "new"), "there is no conflict auth-legacy-9"),
        (("settle", "--keep", "new"), "name one conflict, or all of a service"),
        (("settle", "auth-legacy-1", "--all", "auth", "--keep", "new"), "name one conflict, or all"),
        (("settle", "ghost-legacy-1", "--keep", "new"), "there is no service 'ghost'"),
        (("conflicts", "auth", "--entity", "ghost"), "there is no entity 'ghost'; there are: user"),
    ],
)
async def test_bad_input_is_one_clear_line(auth: Auth, arguments: tuple[str, ...], said: str) -> None:
    run = await auth.tandem(*arguments)
    assert (run.code, run.out) == (2, "")
    assert said in run.err
    assert len(run.err.splitlines()) == 1
