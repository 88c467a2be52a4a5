"""The seven cells of the dispatch, with real servers: which sides are there, and which of them refuse.

Under `authoritative` and `any`, with either kind of side as the authoritative one.
"""

from __future__ import annotations

import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from backend.shared import Phase, SecondWrite, Side, ValidationError
from backend.shared.dual_write_config import Availability, Ping
from backend.shared.stranded import StrandedKeys
from tests.support.note_service import (
    EITHER_FIRST,
    IMPATIENT,
    MakeNotes,
    NoteDatabases,
    NotesManager,
    Servers,
    put,
)
from tests.support.steps import Watch

AVAILABILITY = pytest.mark.parametrize("availability", list(Availability))
ANY: dict[str, Any] = {"availability": Availability.ANY}


def sides(phase: Phase) -> tuple[Side, Side]:
    """The authoritative side, and the secondary one."""
    first = phase.policy.authoritative
    return first, first.other


async def settled(manager: NotesManager) -> int:
    """Settle what is stranded, and carry what is left."""
    for side in Side:
        assert await manager.runtime.breakers[side].wait_closed(10)
    count = await StrandedKeys(manager.runtime).settle()
    assert await manager.relay().drain(timeout_seconds=10)
    return count


@EITHER_FIRST
@AVAILABILITY
async def test_cell_1_both_up(
    make_notes: MakeNotes, note_databases: NoteDatabases, *, phase: Phase, availability: Availability
) -> None:
    manager = await make_notes(phase, availability=availability, log_all=True)
    with capture_logs() as logs:
        result = await manager.write("put", put(1, 5))
    assert result.second_write is SecondWrite.APPLIED
    assert await note_databases.both() == ({1: 5}, {1: 5})
    by_event = {entry["event"]: entry["log_level"] for entry in logs}
    assert by_event["dual_write_started"] == by_event["operation_written"] == "info"
    assert [entry["log_level"] for entry in logs if entry["event"] == "side_written"] == ["debug", "debug"]
    assert not {"warning", "error"} & set(by_event.values())


@EITHER_FIRST
@AVAILABILITY
async def test_cell_2_only_the_authoritative_side_up(
    make_notes: MakeNotes,
    note_databases: NoteDatabases,
    servers: Servers,
    *,
    phase: Phase,
    availability: Availability,
) -> None:
    first, second = sides(phase)
    manager = await make_notes(
        phase, availability=availability, fail_on_new_error=False, fail_on_legacy_error=False
    )
    await servers.kill(second)
    with capture_logs() as logs:
        result = await manager.write("put", put(1, 5))
    assert result.success
    assert result.second_write is SecondWrite.PENDING
    assert [entry["side"] for entry in logs if entry["event"] == "side_left_out"] == [second.value]
    assert {entry["log_level"] for entry in logs if entry["event"] == "side_left_out"} == {"warning"}
    assert await note_databases.notes(first) == {1: 5}

    await servers.bring_back()
    assert await settled(manager) == 0
    assert await note_databases.both() == ({1: 5}, {1: 5})


@EITHER_FIRST
async def test_cell_2_with_an_error_that_fails_the_call(
    make_notes: MakeNotes, note_databases: NoteDatabases, servers: Servers, *, phase: Phase
) -> None:
    first, second = sides(phase)
    manager = await make_notes(phase, fail_on_new_error=True, fail_on_legacy_error=True)
    await servers.kill(second)
    result = await manager.write("put", put(1, 5))
    assert not result.success
    assert result.error is not None
    assert await note_databases.notes(first) == {}


@EITHER_FIRST
async def test_cell_3_only_the_secondary_side_up_is_an_error_for_authoritative(
    make_notes: MakeNotes, note_databases: NoteDatabases, servers: Servers, *, phase: Phase
) -> None:
    first, second = sides(phase)
    manager = await make_notes(phase)
    await servers.kill(first)
    result = await manager.write("put", put(1, 5))
    assert not result.success
    assert await note_databases.notes(second) == {}


@EITHER_FIRST
@pytest.mark.parametrize("ping", list(Ping))
@pytest.mark.parametrize("async_legacy", [True, False], ids=["relay", "at_once"])
async def test_cell_3_only_the_secondary_side_up_takes_it_alone_for_any(
    make_notes: MakeNotes,
    note_databases: NoteDatabases,
    servers: Servers,
    *,
    phase: Phase,
    ping: Ping,
    async_legacy: bool,
) -> None:
    first, second = sides(phase)
    manager = await make_notes(phase, ping=ping, async_legacy=async_legacy, **ANY)
    await manager.write("put", put(1, 4))
    assert await settled(manager) == 0
    await servers.kill(first)
    with capture_logs() as logs:
        changed, added = [await manager.write("put", put(number, 5)) for number in (1, 2)]
    for result in (changed, added):
        assert result.success, result.error
        assert result.second_write is SecondWrite.STRANDED
        assert result.to_dict()[f"{second.value}_db_success"] is True
        assert result.to_dict()[f"{first.value}_db_success"] is False
        assert result.to_dict()[f"{first.value}_db_error"]
    assert {entry["log_level"] for entry in logs if entry["event"] == "operation_stranded"} == {"warning"}
    assert await note_databases.notes(second) == {1: 5, 2: 5}

    await servers.bring_back()
    assert await settled(manager) == 2
    assert await note_databases.both() == ({1: 5, 2: 5}, {1: 5, 2: 5})
    for side in Side:
        assert await note_databases.own(side, "stranded") == []
        assert await note_databases.own(side, "conflict") == []
    again = await manager.write("put", put(1, 6))
    assert again.success
    await settled(manager)
    assert await note_databases.both() == ({1: 6, 2: 5}, {1: 6, 2: 5})


@EITHER_FIRST
@AVAILABILITY
@pytest.mark.parametrize("ping", list(Ping))
async def test_cell_4_none_up_is_an_error_at_once(
    make_notes: MakeNotes,
    note_databases: NoteDatabases,
    servers: Servers,
    *,
    phase: Phase,
    availability: Availability,
    ping: Ping,
) -> None:
    manager = await make_notes(phase, availability=availability, ping=ping)
    await servers.kill(*Side)
    started = time.monotonic()
    with capture_logs() as logs:
        result = await manager.write("put", put(1, 5))
    assert time.monotonic() - started < 8
    assert not result.success
    if availability is Availability.ANY:
        assert result.legacy_db_error is not None
        assert result.new_db_error is not None
    if availability is Availability.ANY or ping is Ping.ALWAYS:  # else nobody has asked the second one
        assert "error" in {entry["log_level"] for entry in logs if entry["event"] == "both_sides_failed"}
    await servers.bring_back()
    assert await note_databases.both() == ({}, {})


@EITHER_FIRST
@AVAILABILITY
async def test_cell_5_the_authoritative_side_refuses(
    make_notes: MakeNotes, note_databases: NoteDatabases, *, phase: Phase, availability: Availability
) -> None:
    """Whatever the other one would say."""
    first, _ = sides(phase)
    manager = await make_notes(phase, availability=availability)
    await note_databases.refuse(first, 13)
    result = await manager.write("put", put(1, 13))
    assert not result.success
    assert result.error is not None
    assert not getattr(result.error, "unavailable", True)
    assert await note_databases.both() == ({}, {})


@EITHER_FIRST
@AVAILABILITY
@pytest.mark.parametrize("fails", [True, False])
async def test_cell_6_the_secondary_side_refuses(
    make_notes: MakeNotes,
    note_databases: NoteDatabases,
    *,
    phase: Phase,
    availability: Availability,
    fails: bool,
) -> None:
    first, second = sides(phase)
    manager = await make_notes(
        phase, availability=availability, fail_on_new_error=fails, fail_on_legacy_error=fails
    )
    await note_databases.refuse(second, 13)
    result = await manager.write("put", put(1, 13))
    assert result.success is not fails
    assert getattr(result, f"{second.value}_db_error") is not None
    assert await note_databases.notes(first) == ({} if fails else {1: 13})
    assert await note_databases.notes(second) == {}
    assert len(await note_databases.own(first, "journal")) == (0 if fails else 1)


@EITHER_FIRST
@AVAILABILITY
async def test_cell_7_both_refuse(
    make_notes: MakeNotes, note_databases: NoteDatabases, *, phase: Phase, availability: Availability
) -> None:
    manager = await make_notes(phase, availability=availability)
    for side in Side:
        await note_databases.refuse(side, 13)
    result = await manager.write("put", put(1, 13))
    assert not result.success
    assert await note_databases.both() == ({}, {})


@EITHER_FIRST
async def test_cell_3_a_refusal_of_the_only_side_is_an_error(
    make_notes: MakeNotes, note_databases: NoteDatabases, servers: Servers, *, phase: Phase
) -> None:
    first, second = sides(phase)
    manager = await make_notes(phase, **ANY)
    await note_databases.refuse(second, 13)
    await servers.kill(first)
    with capture_logs() as logs:
        result = await manager.write("put", put(1, 13))
    assert not result.success
    assert result.legacy_db_error is not None
    assert result.new_db_error is not None
    assert [entry["log_level"] for entry in logs if entry["event"] == "both_sides_failed"] == ["error"]
    assert await note_databases.notes(second) == {}
    assert await note_databases.own(second, "stranded") == []


@EITHER_FIRST
async def test_bad_input_is_bad_input_on_whichever_side(
    make_notes: MakeNotes, note_databases: NoteDatabases, servers: Servers, *, phase: Phase
) -> None:
    first, second = sides(phase)

    async def unit(work: object) -> None:
        await put(1, 5)(work)
        raise ValidationError("no")

    manager = await make_notes(phase, **ANY)
    await servers.kill(first)
    with pytest.raises(ValidationError):
        await manager.write("put", unit)
    assert await note_databases.notes(second) == {}


@EITHER_FIRST
@pytest.mark.parametrize("frozen", ["authoritative", "secondary"])
async def test_a_server_that_hangs_through_a_write(
    make_notes: MakeNotes, note_databases: NoteDatabases, servers: Servers, *, phase: Phase, frozen: str
) -> None:
    """SIGSTOP: connections stay open and nothing answers. The write waits for its timeout, and no longer."""
    first, second = sides(phase)
    watch = Watch()
    manager = await make_notes(
        phase,
        hook=watch,
        limits=IMPATIENT,
        fail_on_new_error=False,
        fail_on_legacy_error=False,
        timeout_seconds=1.0,
        **ANY,
    )
    await manager.write("put", put(1, 4))
    await servers.freeze(first if frozen == "authoritative" else second)
    started = time.monotonic()
    result = await manager.write("put", put(1, 5))
    assert time.monotonic() - started < 10
    assert result.success, result.error
    wanted = SecondWrite.STRANDED if frozen == "authoritative" else SecondWrite.PENDING
    assert result.second_write is wanted

    await servers.bring_back()
    await settled(manager)
    assert await note_databases.both() == ({1: 5}, {1: 5})
