"""Crashes on the way of a stranded key, and of a write to both sides at once: starting again leads to the same end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from backend.shared import Phase, SecondWrite, Side
from backend.shared.dual_write_config import Availability
from backend.shared.stranded import StrandedKeys
from tests.support.note_service import EITHER_FIRST, MakeNotes, NoteDatabases, NotesManager, Servers, put
from tests.support.steps import Crash, CrashAt, PauseAt

ANY: dict[str, Any] = {"availability": Availability.ANY}
AT_ONCE_STEPS = {
    "second_ran_ahead": 0,
    "after_trial": 0,
    "before_first_commit": 0,
    "after_first_commit": 1,
    "after_final_read": 1,
    "before_second_commit": 1,
    "after_second_commit": 1,
}
SETTLING_STEPS = [
    "stranded_held",
    "stranded_compared",
    "stranded_written",
    "stranded_letting_go",
    "stranded_settled",
]


async def carried(manager: NotesManager) -> None:
    """Whatever is open is settled and carried."""
    for side in Side:
        assert await manager.runtime.breakers[side].wait_closed(10)
    for _ in range(50):
        await StrandedKeys(manager.runtime).settle()
        if not await StrandedKeys(manager.runtime).count():
            break
        await asyncio.sleep(0.1)  # what a process that died had open lasts until the server has noticed
    assert await manager.relay().drain(timeout_seconds=10)


async def strand(manager: NotesManager, servers: Servers, phase: Phase, *numbers: int, n: int) -> None:
    """Write notes on the secondary side alone; both servers run afterwards."""
    await servers.kill(phase.policy.authoritative)
    for number in numbers:
        result = await manager.write("put", put(number, n))
        assert result.second_write is SecondWrite.STRANDED, result.error
    await servers.bring_back()
    for side in Side:
        assert await manager.runtime.breakers[side].wait_closed(10)


@EITHER_FIRST
@pytest.mark.parametrize("step", AT_ONCE_STEPS)
async def test_crash_in_a_write_to_both_at_once(
    make_notes: MakeNotes, note_databases: NoteDatabases, *, phase: Phase, step: str
) -> None:
    crash = CrashAt(step)
    dying = await make_notes(phase, hook=crash)
    with pytest.raises(Crash):
        await dying.write("put", put(1, 5))
    assert crash.reached
    await dying.close()

    manager = await make_notes(phase)
    await carried(manager)
    wanted = {1: 5} if AT_ONCE_STEPS[step] else {}
    assert await note_databases.both() == (wanted, wanted)


@EITHER_FIRST
@pytest.mark.parametrize("step", SETTLING_STEPS)
async def test_crash_while_a_stranded_key_is_settled(
    make_notes: MakeNotes, note_databases: NoteDatabases, servers: Servers, *, phase: Phase, step: str
) -> None:
    manager = await make_notes(phase, **ANY)
    await manager.write("put", put(1, 4))
    await strand(manager, servers, phase, 1, 2, n=5)

    crash = CrashAt(step)
    dying = await make_notes(phase, hook=crash, **ANY)
    with pytest.raises(Crash):
        await StrandedKeys(dying.runtime).settle()
    assert crash.reached
    await dying.close()

    await carried(manager)
    assert await note_databases.both() == ({1: 5, 2: 5}, {1: 5, 2: 5})
    for side in Side:
        assert await note_databases.own(side, "stranded") == []
        assert await note_databases.own(side, "conflict") == []
        assert await note_databases.own(side, "journal") == []


@EITHER_FIRST
@pytest.mark.parametrize("newer", ["authoritative", "secondary"])
@pytest.mark.parametrize("step", ["stranded_written", "stranded_letting_go"])
async def test_crash_after_a_decision_drops_nothing_unseen(
    make_notes: MakeNotes,
    note_databases: NoteDatabases,
    servers: Servers,
    *,
    phase: Phase,
    newer: str,
    step: str,
) -> None:
    manager = await make_notes(phase, async_legacy=True, **ANY)
    if newer == "secondary":
        await manager.write("put", put(1, 4))  # not carried: the other side goes away before
    await strand(manager, servers, phase, 1, n=5)
    if newer == "authoritative":
        await manager.write("put", put(1, 6))

    dying = await make_notes(phase, hook=CrashAt(step), **ANY)
    with pytest.raises(Crash):
        await StrandedKeys(dying.runtime).settle()
    await dying.close()

    await carried(manager)
    wanted = 6 if newer == "authoritative" else 5
    assert await note_databases.both() == ({1: wanted}, {1: wanted})
    (conflict,) = [item for side in Side for item in await note_databases.own(side, "conflict")]
    assert (conflict["state"], conflict["settled_by"]) == ("settled", "newer")
    dropped = 5 if newer == "authoritative" else 4
    assert f'"n": {dropped}' in str(conflict["after"]).replace('\\"', '"')
    assert f'"n": {wanted}' in str(conflict["before"]).replace('\\"', '"')


@EITHER_FIRST
async def test_cancelled_request_does_not_cancel_the_second_write(
    make_notes: MakeNotes, note_databases: NoteDatabases, *, phase: Phase
) -> None:
    pause = PauseAt("after_first_commit")
    manager = await make_notes(phase, hook=pause)
    request = asyncio.ensure_future(manager.write("put", put(1, 5)))
    await pause.reached.wait()
    request.cancel()
    with pytest.raises(asyncio.CancelledError):
        await request
    pause.resume.set()
    await manager.close()
    assert await note_databases.both() == ({1: 5}, {1: 5})
