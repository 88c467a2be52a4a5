"""Interleavings of what settles stranded keys with carries and writers."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest

from backend.shared import Phase, SecondWrite, Side
from backend.shared.dispatch import Dispatch
from backend.shared.dual_write_config import Availability
from backend.shared.migration.gates import GateName, Gates
from backend.shared.stores.repeating import in_transaction, repeated
from backend.shared.stranded import StrandedKeys
from tests.support.note_service import (
    DOCUMENTS_FIRST,
    EITHER_FIRST,
    ROWS_FIRST,
    MakeNotes,
    NoteDatabases,
    NotesManager,
    put,
)
from tests.support.notes import NOTE, key
from tests.support.phases import SLOW_GATES
from tests.support.steps import Crash, CrashAt, PauseAt

ANY: dict[str, Any] = {"availability": Availability.ANY, "async_legacy": True}


async def write_alone(manager: NotesManager, number: int, n: int) -> None:
    """A process that does not see the authoritative side writes a note on the other one."""
    direction = manager.runtime.phase.policy.direction
    assert direction is not None
    writer = Dispatch(manager.runtime)._stranded_writer(direction)
    await writer.run(put(number, n), request_id="alone", epoch=manager.runtime.control.epoch)


async def conflicts(databases: NoteDatabases) -> list[dict[str, Any]]:
    return [item for side in Side for item in await databases.own(side, "conflict")]


@EITHER_FIRST
async def test_carry_of_a_stranded_key(
    make_notes: MakeNotes, note_databases: NoteDatabases, *, phase: Phase
) -> None:
    """It writes over nothing, and its journal row stays until the key is settled."""
    first = phase.policy.authoritative
    manager = await make_notes(phase, **ANY)
    await manager.write("put", put(1, 4))
    await manager.relay().drain(timeout_seconds=10)
    await write_alone(manager, 1, 5)
    await manager.write("put", put(1, 6))
    done = await manager.relay().run_once()
    assert (done.carried, done.waiting) == (0, 1)
    assert await note_databases.notes(first.other) == {1: 5}
    assert len(await note_databases.own(first, "journal")) == 1

    assert await StrandedKeys(manager.runtime).settle() == 1
    assert await manager.relay().drain(timeout_seconds=10)
    assert await note_databases.both() == ({1: 6}, {1: 6})
    (conflict,) = await conflicts(note_databases)
    assert conflict["kept"] == first.value
    (shown,) = await manager.list_conflicts(limit=10, settled=True, show_values=True)
    assert (shown.settled_by, shown.kept, shown.operation) == ("newer", first, "stranded")
    assert await manager.list_conflicts(limit=10) == []


@EITHER_FIRST
async def test_write_on_the_authoritative_side_between_compare_and_write(
    make_notes: MakeNotes, note_databases: NoteDatabases, *, phase: Phase
) -> None:
    pause = PauseAt("stranded_compared")
    manager = await make_notes(phase, hook=pause, **ANY)
    await write_alone(manager, 1, 5)
    settling = asyncio.ensure_future(StrandedKeys(manager.runtime).settle())
    await pause.reached.wait()
    assert (await manager.write("put", put(1, 6))).success
    pause.resume.set()
    await settling
    for _ in range(3):
        await StrandedKeys(manager.runtime).settle()
    assert await manager.relay().drain(timeout_seconds=10)
    assert await note_databases.both() == ({1: 6}, {1: 6})
    (conflict,) = await conflicts(note_databases)
    assert '"n": 5' in str(conflict["after"]).replace('\\"', '"')


async def test_another_stranded_write_while_the_key_is_settled(
    make_notes: MakeNotes, note_databases: NoteDatabases
) -> None:
    """It waits for the guard, and strands the key anew."""
    pause = PauseAt("stranded_held")
    manager = await make_notes(DOCUMENTS_FIRST, hook=pause, **ANY)
    other = await make_notes(DOCUMENTS_FIRST, install=False, **ANY)
    await write_alone(manager, 1, 5)
    settling = asyncio.ensure_future(StrandedKeys(manager.runtime).settle())
    await pause.reached.wait()
    writing = asyncio.ensure_future(write_alone(other, 1, 7))
    pause.resume.set()
    await settling
    await writing
    assert await note_databases.both() == ({1: 5}, {1: 7})
    assert await StrandedKeys(manager.runtime).settle() == 1
    assert await note_databases.both() == ({1: 7}, {1: 7})
    assert await conflicts(note_databases) == []


@EITHER_FIRST
async def test_two_that_settle_the_same_key(
    make_notes: MakeNotes, note_databases: NoteDatabases, *, phase: Phase
) -> None:
    pause = PauseAt("stranded_written")
    manager = await make_notes(phase, hook=pause, **ANY)
    other = await make_notes(phase, install=False, **ANY)
    await write_alone(manager, 1, 5)
    settling = asyncio.ensure_future(StrandedKeys(manager.runtime).settle())
    await pause.reached.wait()
    second = asyncio.ensure_future(StrandedKeys(other.runtime).settle())
    pause.resume.set()
    assert await settling + await second == 1
    assert await note_databases.both() == ({1: 5}, {1: 5})
    assert await conflicts(note_databases) == []


@EITHER_FIRST
async def test_the_phase_stays_while_a_key_is_stranded(make_notes: MakeNotes, *, phase: Phase) -> None:
    manager = await make_notes(phase, **ANY)
    gates = Gates(manager.runtime, check_schema=manager.check_schema)
    following = phase.up if phase is DOCUMENTS_FIRST else phase.down
    assert following is not None

    async def is_open() -> bool:
        found = await gates.look(phase, following)
        return next(gate.is_open for gate in found if gate.name is GateName.STRANDED)

    assert await is_open()
    await write_alone(manager, 1, 5)
    assert not await is_open()
    await StrandedKeys(manager.runtime).settle()
    assert await is_open()


@EITHER_FIRST
async def test_two_writes_of_one_key_to_both_sides_at_once(
    make_notes: MakeNotes, note_databases: NoteDatabases, *, phase: Phase
) -> None:
    """Each may be first on another side: they do not wait for each other in a circle."""
    manager = await make_notes(phase)
    await manager.write("put", put(1, 99))
    async with asyncio.timeout(20):
        results = await asyncio.gather(*(manager.write("put", put(1, n)) for n in range(6)))
    assert any(result.success for result in results)
    assert all(result.success or getattr(result.error, "unavailable", False) for result in results)
    assert await manager.relay().drain(timeout_seconds=10)
    legacy, new = await note_databases.both()
    assert legacy == new


async def test_second_side_lets_go_while_the_first_waits_for_a_lock(
    make_notes: MakeNotes, note_databases: NoteDatabases
) -> None:
    """Else two writes, each of them first on another side, would wait for each other in a circle."""
    pause = PauseAt("second_ran_ahead")
    manager = await make_notes(ROWS_FIRST, hook=pause, timeout_seconds=30.0)
    pause.resume.set()
    await manager.write("put", put(1, 4))
    pause.reached.clear()
    documents = manager.runtime.stores[Side.LEGACY]

    async def hold(connection: object) -> None:
        await documents.state.lock_guards(connection, NOTE, keys=[key(1)])

    async with manager.new_engine.begin() as holder:
        await holder.exec_driver_sql("SELECT FROM notes FOR UPDATE")
        writing = asyncio.ensure_future(manager.write("put", put(1, 5)))
        await pause.reached.wait()
        await repeated(partial(in_transaction, documents, hold), runs=10)
        assert not writing.done()
    result = await writing
    assert result.second_write is SecondWrite.APPLIED
    assert await note_databases.both() == ({1: 5}, {1: 5})


@pytest.mark.invariant("I1")
@pytest.mark.parametrize(("phase", "to"), [(Phase.SHADOW, Phase.LIVE), (Phase.LIVE, Phase.SHADOW)])
async def test_i1_written_alone_between_the_closing_and_the_opening(
    make_notes: MakeNotes, note_databases: NoteDatabases, *, phase: Phase, to: Phase
) -> None:
    """The controller died there, and the side that it had closed went away: the write is carried from the side that opens."""
    manager = await make_notes(phase, **ANY)
    await manager.write("put", put(1, 4))
    assert await manager.relay().drain(timeout_seconds=10)
    dying = await make_notes(phase, install=False, hook=CrashAt("cutover_closed"), **ANY)
    forced = [*SLOW_GATES, "backfill", "capture", "validation"]
    with pytest.raises(Crash):
        await dying.change_phase(to, reason="a test", force=forced)
    await write_alone(manager, 1, 5)
    await write_alone(manager, 2, 6)
    await manager.change_phase(to, reason="a test", force=forced)
    assert manager.phase is to
    assert await manager.relay().drain(timeout_seconds=10)
    assert await note_databases.both() == ({1: 5, 2: 6}, {1: 5, 2: 6})
    for side in Side:
        assert await note_databases.own(side, "stranded") == []
    await manager.change_phase(phase, reason="and back", force=forced)
    await manager.write("put", put(1, 7))
    assert await manager.relay().drain(timeout_seconds=10)
    assert await note_databases.both() == ({1: 7, 2: 6}, {1: 7, 2: 6})


@pytest.mark.parametrize("phase", [DOCUMENTS_FIRST])
async def test_switching_back_with_keys_stranded(
    make_notes: MakeNotes, note_databases: NoteDatabases, *, phase: Phase
) -> None:
    manager = await make_notes(phase, **ANY)
    await write_alone(manager, 1, 5)
    await manager.change_config({"availability": "authoritative"})
    assert await StrandedKeys(manager.runtime).settle() == 1
    assert await note_databases.both() == ({1: 5}, {1: 5})
