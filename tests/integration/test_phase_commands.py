"""`tandem advance`, `rollback`, `status`, `history`, `restored`: exit codes, and refusals that say what to do."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import sys
from dataclasses import dataclass

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
    "SELECT 'u' || n, n || '@x', 'hash-of-' || n, 'N' || n, '2024-07-01 12:00:00' FROM generate_series(1, 20) AS n"
)


@pytest.fixture(scope="session")
def legacy_template(make_template: MakeTemplate, legacy_cluster: Cluster) -> str:
    return make_template(legacy_cluster, "phases_legacy_template", create_schema)


@pytest.fixture(scope="session")
def new_template(make_template: MakeTemplate, services_cluster: Cluster) -> str:
    return make_template(services_cluster, "phases_new_template", migrate_auth)


@dataclass(frozen=True)
class Auth:
    """Both databases of the auth service."""

    legacy: Sql
    new: Sql

    async def tandem(self, *arguments: str, **settings: str) -> Ended:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "backend.shared.cli.main", *arguments),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={
                "PATH": os.environ["PATH"],
                "USER": getpass.getuser(),
                "COLUMNS": "200",
                "AUTH_LEGACY_DATABASE_URL": self.legacy.url,
                "AUTH_DATABASE_URL": self.new.url,
                "AUTH_DUAL_WRITE_LAG_WINDOW": "0",
                **settings,
            },
            cwd="/",
        )
        out, err = await asyncio.wait_for(process.communicate(), 60)
        done = Ended(process.returncode or 0, out.decode(), err.decode())
        assert "Traceback" not in done.err
        return done


@pytest.fixture
async def auth(databases: Databases) -> Auth:
    manager = AuthDualWriteManager(
        databases.new_url,
        databases.legacy_url,
        DualWriteSettings(service="auth", phase=Phase.OFF),
        metrics=Metrics(CollectorRegistry()),
    )
    await manager.install()
    await manager.close()
    legacy = Sql(databases.legacy_url)
    await legacy(USERS)
    return Auth(legacy=legacy, new=Sql(databases.new_url))


async def refused(auth: Auth, command_: str, gate: str, says: str) -> None:
    """A shut gate: exit 1, one line with the figure, one with the remedy, and nothing has changed."""
    before = await auth.new("SELECT phase, epoch, intent::text FROM tandem_auth.control")
    done = await auth.tandem(command_, "auth")
    assert done.code == 1, done
    assert "nothing was changed" in done.out
    lines = done.out.splitlines()
    (at,) = [n for n, line in enumerate(lines) if line.split()[:2] == ["SHUT", gate]]
    assert says in lines[at], lines[at]
    assert lines[at + 1].lstrip().startswith("-> ")
    assert await auth.new("SELECT phase, epoch, intent::text FROM tandem_auth.control") == before


@pytest.mark.timeout(300)
async def test_the_way_up_with_every_gate_shut_once(auth: Auth) -> None:
    done = await auth.tandem("advance", "auth", "--dry-run")
    assert done.code == 0, done
    assert "nothing is changed" in done.out
    assert "put capture on both sides" in done.out
    done = await auth.tandem("advance", "auth", "--reason", "we begin")
    assert done.code == 0, done
    assert "auth: off -> dualwrite, epoch 1" in done.out

    await refused(auth, "advance", "backfill", "not begun: user")
    assert (await auth.tandem("backfill", "auth")).code == 0
    await auth.legacy(
        "INSERT INTO tandem_auth.journal (entity, key, captured_at) VALUES ('user', '[\"u1\"]', now() - interval '1 hour')"
    )
    await refused(auth, "advance", "lag", "now 36")
    assert (await auth.tandem("relay", "auth", "--once")).code == 0
    await auth.legacy(
        "INSERT INTO tandem_auth.failure (entity, key, direction, attempts, reason, captured_at) "
        "VALUES ('user', '[\"u1\"]', 'to_new', 3, 'too long', now())"
    )
    await refused(auth, "advance", "failures", "1 keys could not be carried")
    await auth.legacy("UPDATE tandem_auth.failure SET state = 'closed'")
    await auth.new(
        "INSERT INTO tandem_auth.replica (id, host, pid, version, epoch, phase, relay, seen_at) "
        "VALUES ('old', 'pod-7', 4711, 0, 1, 'off', false, now() + interval '1 hour')"
    )
    await refused(auth, "advance", "replicas", "process 4711 on pod-7 goes by phase off")
    await auth.new("DELETE FROM tandem_auth.replica")
    head = await auth.new("DELETE FROM alembic_version RETURNING version_num")
    await refused(auth, "advance", "schema", "at migration none")
    await auth.new("INSERT INTO alembic_version VALUES ($1)", head[0]["version_num"])
    done = await auth.tandem("advance", "auth")
    assert done.code == 0, done

    await refused(auth, "advance", "validation", "user was never compared as a whole")
    assert (await auth.tandem("validate", "auth")).code == 0
    await refused(auth, "advance", "shadow-reads", "0 reads compared")
    await auth.new("UPDATE tandem_auth.mark SET epoch = 7")
    await refused(auth, "advance", "sides", "the new side is closed in epoch 7, not closed in epoch 1")
    await auth.new("UPDATE tandem_auth.mark SET epoch = 1")
    await auth.legacy(
        "INSERT INTO tandem_auth.conflict (entity, key, side, operation, source_table) "
        "VALUES ('user', '[\"u1\"]', 'legacy', 'update', 'users')"
    )
    await refused(auth, "advance", "conflicts", "1 are not settled")
    await auth.legacy("UPDATE tandem_auth.conflict SET state = 'settled'")
    done = await auth.tandem("advance", "auth", "--force", "shadow-reads")
    assert (done.code, done.out) == (2, "")
    assert "needs a reason" in done.err
    done = await auth.tandem("advance", "auth", "--force", "shadow-reads", "--reason", "nobody reads yet")
    assert done.code == 0, done
    assert "FORCED shadow-reads" in done.out
    assert "auth: shadow -> live, epoch 2, no side took writes for" in done.out

    await auth.new("ALTER TABLE users DISABLE TRIGGER tandem_auth_users_update")
    await auth.new("ALTER TABLE users ENABLE ALWAYS TRIGGER tandem_auth_users_update")
    await refused(auth, "rollback", "capture", "has had a gap")
    done = await auth.tandem("history", "auth", "--json")
    changes = [json.loads(line) for line in done.out.splitlines()]
    assert [change["to_phase"] for change in changes] == ["live", "shadow", "dualwrite"]
    assert changes[0]["forced"] == ["shadow-reads"]
    assert changes[2]["reason"] == "we begin"
    assert "nobody reads yet" in (await auth.tandem("history", "auth")).out


async def test_status_in_one_screen(auth: Auth) -> None:
    done = await auth.tandem("status", "auth")
    assert done.code == 0, done
    assert "auth: off, epoch 1, legacy answers" in done.out
    assert "gates to dualwrite:" in done.out
    view = json.loads((await auth.tandem("status", "auth", "--json")).out)
    assert (view["phase"], view["epoch"], view["next_phase"]) == ("off", 1, "dualwrite")
    assert [gate["name"] for gate in view["gates"]] == ["replicas", "sides", "schema"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("advance", "shop"), "there is no service 'shop'"),
        (("rollback", "auth"), "the service is off: there is no phase below"),
        (("rollback", "auth", "--to", "live"), "that way is `tandem advance`"),
        (("advance", "auth", "--force", "gate"), "there is no gate 'gate'"),
        (("restored", "auth", "left"), "Invalid value"),
    ],
)
async def test_what_cannot_be_asked_is_one_line_and_exit_2(
    auth: Auth, arguments: tuple[str, ...], says: str
) -> None:
    done = await auth.tandem(*arguments)
    assert done.code == 2, done
    assert says in done.err
