"""What the rows of the ten tables say of themselves: `sync_status`, `sync_error` and `last_synced_at` are true."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest
from bson import ObjectId

from backend.shared import Phase, Side, UnitOfWork
from backend.shared.documents import Documents
from backend.shared.dual_write_config import Availability
from backend.shared.journal.sync_triggers import FOREIGN_WRITE
from backend.shared.stores.postgres.sync_columns import ALONE
from backend.shared.stranded import StrandedKeys
from backend.shared.testing.document_servers import DocumentServer
from backend.shared.unit_runner import Unit
from backend.task_service.app.core.dual_write_manager import TaskDualWriteManager
from tests.integration.task_service.conftest import MakePair
from tests.support.steps import Crash, CrashAt, PauseAt
from tests.support.task_pair import ANN, TaskPair, user

ROLE = ObjectId("65f0000000000000000000aa")


def replacing(manager: TaskDualWriteManager, entity: str, document: dict[str, Any]) -> Unit[None]:
    """A unit that writes a document, whichever side it runs on."""

    async def unit(work: UnitOfWork) -> None:
        documents = Documents(work, catalog=manager.runtime.catalog, names=manager.runtime.names)
        key = (str(document["_id"]),)
        if await documents.get(entity, key) is None:
            await documents.insert(entity, document)
        else:
            await documents.replace(entity, key, document)

    return unit


async def put(pair: TaskPair, entity: str, document: dict[str, Any]) -> None:
    (await pair.manager.write("put", replacing(pair.manager, entity, document))).unwrap()


async def put_unseen(pair: TaskPair, document: dict[str, Any]) -> None:
    """A user as another program leaves it, journalled as a unit of its own would have."""
    await pair.documents.users.replace_one({"_id": document["_id"]}, document, upsert=True)
    store = pair.manager.runtime.stores[pair.manager.phase.policy.authoritative]
    async with store.begin() as connection:
        await store.journal.add(connection, "users", [f'["{document["_id"]}"]'])


async def test_a_carried_row_is_synced(make_pair: MakePair) -> None:
    pair = await make_pair()
    await put(pair, "users", user())
    await pair.carry()
    row = await pair.row("users", ANN)
    assert row is not None
    assert (row["sync_status"], row["sync_error"]) == ("SYNCED", None)
    (now,) = await pair.sql("SELECT clock_timestamp() - $1 AS age", row["last_synced_at"])
    assert 0 <= now["age"].total_seconds() < 60


async def test_a_row_that_is_written_here_is_pending_until_it_has_gone_over(make_pair: MakePair) -> None:
    pair = await make_pair(Phase.LIVE)
    await put(pair, "users", user())
    first = await pair.row("users", ANN)
    assert first is not None
    assert (first["sync_status"], first["last_synced_at"]) == ("PENDING", None)

    await pair.carry()
    synced = await pair.row("users", ANN)
    assert synced is not None
    assert synced["sync_status"] == "SYNCED"

    await put(pair, "users", user(name="Anna"))
    changed = await pair.row("users", ANN)
    assert changed is not None
    assert changed["sync_status"] == "PENDING"
    assert changed["last_synced_at"] == synced["last_synced_at"], "that is when it was synced last"

    await pair.carry()
    assert await pair.standing("users", ANN) == ("SYNCED", None)
    assert await pair.sql("SELECT FROM tandem_task.journal") == [], "to say so is no change"
    assert (await pair.documents.users.find_one({"_id": ANN}) or {})["name"] == "Anna"


async def test_another_programs_write_makes_a_row_pending(make_pair: MakePair) -> None:
    pair = await make_pair(Phase.LIVE)
    await put(pair, "roles", {"_id": ROLE, "name": "boss", "permissions": ["read"]})
    await pair.carry()
    for change in (
        "UPDATE roles SET name = 'chief'",
        "UPDATE role_permissions SET permission = 'write'",
        "INSERT INTO role_permissions (role_id, position, permission) SELECT mongo_id, 1, 'grant' FROM roles",
        "DELETE FROM role_permissions WHERE position = 1",
        "TRUNCATE role_permissions",
        "UPDATE roles SET sync_status = 'SYNCED', last_synced_at = clock_timestamp()",
    ):
        before = await pair.row("roles", ROLE)
        await pair.sql(change)
        after = await pair.row("roles", ROLE)
        assert before is not None
        assert after is not None
        assert after["sync_status"] == "PENDING", change
        assert after["last_synced_at"] == before["last_synced_at"], change
        await pair.carry()
        assert await pair.standing("roles", ROLE) == ("SYNCED", None), change


async def test_what_a_row_owns_is_journalled_once(make_pair: MakePair) -> None:
    """The mark on the root is no change of the root."""
    pair = await make_pair(Phase.LIVE)
    await put(pair, "roles", {"_id": ROLE, "name": "boss", "permissions": ["read"]})
    await pair.carry()
    await pair.sql("UPDATE role_permissions SET permission = 'write'")
    (journalled,) = await pair.sql("SELECT entity, key FROM tandem_task.journal")
    assert journalled["key"] == f'["{ROLE}"]'


async def test_a_key_that_fails_to_get_here_fails_in_its_row(make_pair: MakePair) -> None:
    pair = await make_pair()
    await put(pair, "users", user())
    await pair.carry()
    before = await pair.row("users", ANN)
    await put_unseen(pair, user(email_id=5))
    await pair.carry()
    row = await pair.row("users", ANN)
    assert before is not None
    assert row is not None
    assert row["sync_status"] == "FAILED"
    assert "email_id" in row["sync_error"]
    assert row["last_synced_at"] == before["last_synced_at"]

    await put_unseen(pair, user())
    await pair.carry()
    assert await pair.standing("users", ANN) == ("SYNCED", None), "what it holds was equal, and not written"


async def test_a_key_that_is_tried_again_is_pending_and_says_why(make_pair: MakePair) -> None:
    pair = await make_pair(retry_attempts=2, retry_delay_seconds=3600.0)
    await put(pair, "users", user())
    await pair.carry()
    await put_unseen(pair, user(email_id=5))
    await pair.carry()
    status, error = await pair.standing("users", ANN)
    assert status == "PENDING"
    assert "email_id" in (error or "")


async def test_a_key_that_fails_to_leave_fails_in_its_row(make_pair: MakePair) -> None:
    pair = await make_pair(Phase.LIVE)
    await put(pair, "users", user())
    await pair.carry()
    await pair.sql("""UPDATE users SET extra = '{"unknown": {"a": {"$oid": 5}}}'""")
    await pair.carry()
    status, error = await pair.standing("users", ANN)
    assert status == "FAILED"
    assert error

    await pair.sql("UPDATE users SET extra = '{}', name = 'Bea'")
    assert await pair.standing("users", ANN) == ("PENDING", None)
    await pair.carry()
    assert await pair.standing("users", ANN) == ("SYNCED", None)


async def test_another_programs_write_to_a_closed_side_is_no_longer_synced(make_pair: MakePair) -> None:
    pair = await make_pair()
    await put(pair, "users", user())
    await put(pair, "roles", {"_id": ROLE, "name": "boss", "permissions": ["read"]})
    await pair.carry()
    await pair.sql("UPDATE users SET name = 'Eve'")
    await pair.sql("UPDATE role_permissions SET permission = 'write'")
    assert await pair.standing("users", ANN) == ("PENDING", FOREIGN_WRITE)
    assert await pair.standing("roles", ROLE) == ("PENDING", FOREIGN_WRITE)
    (conflict, _) = await pair.sql("SELECT before, after FROM tandem_task.conflict ORDER BY id")
    assert '"sync_status":"SYNCED"' in conflict["after"], "its images are what that program wrote"
    assert await pair.sql("SELECT FROM tandem_task.journal") == []


async def test_a_write_between_read_and_end_leaves_the_row_pending(make_pair: MakePair) -> None:
    pair = await make_pair(Phase.LIVE)
    pause = PauseAt("before_target_commit")
    other = await pair.make_manager(hook=pause)
    await put(pair, "users", user())
    passing = asyncio.ensure_future(other.relay().run_once())
    await asyncio.wait_for(pause.reached.wait(), 10)
    await put(pair, "users", user(name="Anna"))
    pause.resume.set()
    await passing
    assert await pair.standing("users", ANN) == ("PENDING", None)
    await pair.carry()
    assert await pair.standing("users", ANN) == ("SYNCED", None)


@pytest.mark.parametrize("ends", ["COMMIT", "ROLLBACK"])
async def test_a_relay_does_not_wait_for_whoever_writes_the_row(make_pair: MakePair, ends: str) -> None:
    """What that one does is not known before it ends: until then nothing is said, and the key stays in the journal."""
    pair = await make_pair(Phase.LIVE)
    await put(pair, "users", user())
    connection = await asyncpg.connect(pair.sql.url)
    try:
        await connection.execute("BEGIN; UPDATE users SET name = 'Bea'")
        await asyncio.wait_for(pair.manager.relay().run_once(), 5)
        assert await pair.standing("users", ANN) == ("PENDING", None)
        (waiting,) = await pair.sql("SELECT wait_until, last_error FROM tandem_task.journal")
        assert waiting["last_error"]
        await connection.execute(ends)
    finally:
        await connection.close()
    await pair.sql("UPDATE tandem_task.journal SET wait_until = clock_timestamp()")
    await pair.carry()
    assert await pair.standing("users", ANN) == ("SYNCED", None)


@pytest.mark.parametrize("step", ["before_source_commit", "after_source_commit"])
async def test_a_relay_that_dies_says_nothing_untrue(make_pair: MakePair, step: str) -> None:
    pair = await make_pair(Phase.LIVE)
    other = await pair.make_manager(hook=CrashAt(step))
    await put(pair, "users", user())
    with pytest.raises(Crash):
        await other.relay().run_once()
    open_rows = await pair.sql("SELECT FROM tandem_task.journal")
    status, _ = await pair.standing("users", ANN)
    assert status == ("PENDING" if open_rows else "SYNCED")
    await pair.carry()
    assert await pair.standing("users", ANN) == ("SYNCED", None)


async def test_a_synchronous_write_is_synced_at_once(make_pair: MakePair) -> None:
    pair = await make_pair(Phase.LIVE, async_legacy=False)
    await put(pair, "users", user())
    assert await pair.sql("SELECT FROM tandem_task.journal") == []
    assert await pair.standing("users", ANN) == ("SYNCED", None)


async def test_what_was_written_on_this_side_alone_is_pending(
    make_pair: MakePair, document_server: DocumentServer
) -> None:
    pair = await make_pair(availability=Availability.ANY)
    await put(pair, "users", user())
    await pair.carry()
    await asyncio.to_thread(document_server.stop)
    try:
        await put(pair, "users", user(name="Anna"))
        assert await pair.standing("users", ANN) == ("PENDING", ALONE)
    finally:
        await asyncio.to_thread(document_server.start)
    assert await pair.manager.runtime.breakers[Side.LEGACY].wait_closed(20)
    assert await StrandedKeys(pair.manager.runtime).settle() == 1
    await pair.carry()
    assert await pair.standing("users", ANN) == ("SYNCED", None)
    assert (await pair.documents.users.find_one({"_id": ANN}) or {})["name"] == "Anna"


async def test_a_failure_that_comes_late_does_not_overrule_a_newer_carry(make_pair: MakePair) -> None:
    pair = await make_pair()
    pause = PauseAt("before_telling")
    other = await pair.make_manager(hook=pause)
    await put(pair, "users", user())
    await pair.carry()
    await put_unseen(pair, user(email_id=5))
    late = asyncio.ensure_future(other.relay().run_once())
    await asyncio.wait_for(pause.reached.wait(), 10)
    await put_unseen(pair, user(name="Anna"))
    await pair.carry()
    assert await pair.standing("users", ANN) == ("SYNCED", None)
    pause.resume.set()
    await late
    assert await pair.standing("users", ANN) == ("SYNCED", None)
