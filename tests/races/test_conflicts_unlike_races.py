"""Settling between a MongoDB and a PostgreSQL, beside writers, cutovers, crashes and other operators."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from backend.shared import ConflictError, FencedError, Side
from backend.shared.observability.admin_views import SettlementView
from tests.support.boards import (
    CLOSING,
    KEEPING_EITHER,
    OF_EITHER,
    REFUSED,
    Boards,
    closed_with_failure,
    drained,
    go,
    made,
    remove,
    save,
    settled,
    the_conflict,
)
from tests.support.note_service import MakeNotes, NotesManager
from tests.support.steps import Crash, CrashAt, PauseAt

Act = Callable[[NotesManager], Awaitable[Any]]


async def held_at(
    step: str, make_notes: MakeNotes, boards: Boards, act: Act, *, of: Side, keep: Side
) -> tuple[SettlementView, NotesManager]:
    """A FAILED key of side `of` is settled; another process acts while that stands at `step`."""
    other = await closed_with_failure(make_notes, boards, of)
    await boards.refuse(of.other, refuses=False)
    return await paused_at(step, make_notes, other, act, keep=keep), other


async def paused_at(
    step: str, make_notes: MakeNotes, other: NotesManager, act: Act, *, keep: Side
) -> SettlementView:
    pause = PauseAt(step)
    manager = await made(make_notes, other.phase, hook=pause, install=False)
    settling = asyncio.ensure_future(settled(manager, keep))
    await asyncio.wait_for(pause.reached.wait(), timeout=10)
    try:
        await act(other)
    finally:
        pause.resume.set()
    return await settling


@OF_EITHER
@pytest.mark.parametrize("step", ["conflict_tried", "conflict_compared"])
async def test_write_of_another_field_between_trial_and_write(
    make_notes: MakeNotes, boards: Boards, *, of: Side, step: str
) -> None:
    """It is tried again with what is there then: neither write is lost."""

    async def write(other: NotesManager) -> None:
        (await save(other, 1, "good", "newer")).unwrap()

    done, manager = await held_at(step, make_notes, boards, write, of=of, keep=of)
    assert done.settled, done
    await drained(manager)
    assert (await boards.both())[1] == (REFUSED, ["newer"])


@OF_EITHER
async def test_write_before_every_try(make_notes: MakeNotes, boards: Boards, *, of: Side) -> None:
    """Patience ends, and the last write stands."""
    other = await closed_with_failure(make_notes, boards, of)
    await boards.refuse(of.other, refuses=False)
    writes = 0

    async def write(step: str) -> None:
        nonlocal writes
        if step == "conflict_tried":
            writes += 1
            (await save(other, 1, "good", str(writes))).unwrap()

    manager = await made(make_notes, other.phase, hook=write, install=False)
    done = await settled(manager, of)
    assert (done.outcome, writes) == ("refused", 10)
    assert "written too often" in done.detail
    await drained(manager)
    assert (await boards.both())[1] == ("good", ["10"])


@OF_EITHER
async def test_write_between_trial_and_write_of_the_secondary_state(
    make_notes: MakeNotes, boards: Boards, *, of: Side
) -> None:
    """What is on its way to the side whose state is to be kept stands."""
    other = await closed_with_failure(make_notes, boards, of)
    await go(other, CLOSING[of][0])

    async def write(manager: NotesManager) -> None:
        (await save(manager, 1, "newer")).unwrap()

    done = await paused_at("conflict_tried", make_notes, other, write, keep=of.other)
    assert done.outcome == "refused"
    await drained(other)
    assert (await boards.both())[1] == ("newer", [])
    assert (await settled(other, of.other)).settled
    assert (await boards.both())[1] == ("newer", [])


@pytest.mark.invariant("I4")
@OF_EITHER
@KEEPING_EITHER
@pytest.mark.parametrize("and_back", [False, True], ids=["there", "there_and_back"])
async def test_i4_cutover_between_decision_and_write(
    make_notes: MakeNotes, boards: Boards, *, of: Side, keep: Side, and_back: bool
) -> None:
    """Nothing is written on a side that is, or was, closed since."""
    step = "conflict_tried" if keep is of else "conflict_settling"
    seen: list[NotesManager] = []

    async def cut_over(other: NotesManager) -> None:
        seen.append(other)
        await go(other, CLOSING[of][0])
        if and_back:
            await go(other, CLOSING[of][1])

    with pytest.raises(FencedError):
        await held_at(step, make_notes, boards, cut_over, of=of, keep=keep)
    (other,) = seen
    assert await boards.databases.own(of.other, "settlement") == []
    assert await boards.databases.own(of.other, "journal") == []
    assert [(await boards.on(side))[1][0] for side in (of, of.other)] == [REFUSED, "good"]
    done = await settled(other, keep)
    assert done.settled, done
    await drained(other)
    assert (await boards.both())[1] == (REFUSED if keep is of else "good", ["a", "b"])


@pytest.mark.invariant("I7")
@OF_EITHER
@pytest.mark.parametrize(
    ("step", "keeps_its_own"),
    [
        ("conflict_held", True),
        ("conflict_settling", True),
        ("conflict_tried", True),
        ("conflict_compared", True),
        ("conflict_written", True),
        ("conflict_done", True),
        ("conflict_journalled", False),
        ("conflict_done", False),
    ],
)
async def test_i7_crash_while_settling(
    make_notes: MakeNotes, boards: Boards, *, of: Side, step: str, keeps_its_own: bool
) -> None:
    """The conflict is open as before; settled again it leads to the same, and over nothing that was written since."""
    keep = of if keeps_its_own else of.other
    other = await closed_with_failure(make_notes, boards, of)
    await boards.refuse(of.other, refuses=False)
    crash = CrashAt(step)
    manager = await made(make_notes, other.phase, hook=crash, install=False)
    with pytest.raises(Crash):
        await settled(manager, keep)
    assert crash.reached
    assert (await the_conflict(other)).settled_by is None
    was_written = step in ("conflict_written", "conflict_done") and keeps_its_own
    assert (await boards.on(of.other))[1][0] == (REFUSED if was_written else "good")
    if was_written:
        (await save(other, 1, "newer", "a", "b")).unwrap()
    done = await settled(other, keep)
    assert done.settled, done
    await drained(other)
    expected = "newer" if was_written else REFUSED if keeps_its_own else "good"
    assert (await boards.both())[1] == (expected, ["a", "b"])
    assert len(await boards.databases.own(of.other, "settlement")) == int(keeps_its_own)
    assert await other.list_conflicts(limit=10) == []


@OF_EITHER
async def test_delete_between_trial_and_write(make_notes: MakeNotes, boards: Boards, *, of: Side) -> None:
    """Somebody has decided that it is there: it is there as it was kept."""

    async def delete(other: NotesManager) -> None:
        (await remove(other, 1)).unwrap()

    done, manager = await held_at("conflict_tried", make_notes, boards, delete, of=of, keep=of)
    assert done.settled, done
    await drained(manager)
    assert (await boards.both())[1][0] == REFUSED


@OF_EITHER
async def test_two_operators_at_once(make_notes: MakeNotes, boards: Boards, *, of: Side) -> None:
    """One wins; the other one is told so at once."""

    async def settle_too(other: NotesManager) -> None:
        with pytest.raises(ConflictError, match="somebody else settles"):
            await settled(other, of.other)

    done, manager = await held_at("conflict_compared", make_notes, boards, settle_too, of=of, keep=of)
    assert done.settled, done
    await drained(manager)
    assert (await boards.both())[1][0] == REFUSED
