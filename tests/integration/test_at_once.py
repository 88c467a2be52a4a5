"""Both sides written at once, a MongoDB and a PostgreSQL: what becomes of it when all goes well."""

from __future__ import annotations

from typing import Any

import pytest

from backend.shared import DualWriteSettings, Phase, SecondWrite, Side, ValidationError
from backend.shared.document_unit_of_work import DocumentUnitOfWork
from backend.shared.domain.errors import ConfigurationError
from backend.shared.domain.mapping import EntityCatalog
from backend.shared.dual_write_config import Availability, ReadFallback
from tests.support.note_service import (
    EITHER_FIRST,
    MakeNotes,
    NoteDatabases,
    Servers,
    gone,
    put,
    read_note,
)
from tests.support.notes import CATALOG, NOTES, digits
from tests.support.people import PERSON
from tests.support.steps import Watch


@EITHER_FIRST
async def test_a_write_is_on_both_sides_when_the_call_returns(
    make_notes: MakeNotes, note_databases: NoteDatabases, *, phase: Phase
) -> None:
    watch = Watch()
    manager = await make_notes(phase, hook=watch)
    for n in (1, 2):
        result = await manager.write("put", put(7, n))
        assert result.success, result.error
        assert result.second_write is SecondWrite.APPLIED
        assert await note_databases.both() == ({7: n}, {7: n})
    assert "second_ran_ahead" in watch.steps
    deleted = await manager.write("delete", gone(7))
    assert deleted.second_write is SecondWrite.APPLIED
    assert await note_databases.both() == ({}, {})
    for side in Side:
        assert await note_databases.own(side, "journal") == []


async def list_notes(work: Any) -> list[int]:
    """What a side holds, by rising key."""
    if isinstance(work, DocumentUnitOfWork):
        found = work.collection("note").find({}, session=work.session).sort("_id", 1)
        return [item["n"] async for item in found]
    return [row["n"] for row in await work.rows(work.shape(NOTES).select().order_by(NOTES.c.id))]


@EITHER_FIRST
async def test_reads_and_lists_fall_back_on_an_error(
    make_notes: MakeNotes, servers: Servers, *, phase: Phase
) -> None:
    manager = await make_notes(phase, dual_read_fallback=ReadFallback.ERROR)
    for number in (1, 2):
        await manager.write("put", put(number, number))
    await servers.kill(phase.policy.authoritative)
    key = (digits(2),)
    assert await manager.read(lambda work: read_note(work, 2), entity="note", key=key) == 2
    assert await manager.read(list_notes, entity="note") == [1, 2]


@EITHER_FIRST
async def test_reads_and_lists_fall_back_on_nothing_found(
    make_notes: MakeNotes, note_databases: NoteDatabases, *, phase: Phase
) -> None:
    manager = await make_notes(phase, dual_read_fallback=ReadFallback.MISSING)
    await note_databases.plant(phase.policy.authoritative.other, 2, 7)
    key = (digits(2),)
    assert await manager.read(lambda work: read_note(work, 2), entity="note", key=key) == 7
    assert await manager.read(list_notes, entity="note") == [7]


@EITHER_FIRST
async def test_bad_input_keeps_nothing(
    make_notes: MakeNotes, note_databases: NoteDatabases, *, phase: Phase
) -> None:
    async def unit(work: Any) -> None:
        await put(1, 1)(work)
        raise ValidationError("no")

    manager = await make_notes(phase)
    with pytest.raises(ValidationError):
        await manager.write("put", unit)
    assert await note_databases.both() == ({}, {})


@EITHER_FIRST
async def test_a_second_side_that_is_behind_is_made_what_the_first_one_is(
    make_notes: MakeNotes, note_databases: NoteDatabases, *, phase: Phase
) -> None:
    """The unit reads there what is no longer so; what it makes of that is not kept."""
    manager = await make_notes(phase)
    await manager.write("put", put(1, 10))
    await note_databases.plant(phase.policy.authoritative.other, 1, 3)

    async def add_one(work: Any) -> None:
        found = await read_note(work, 1)
        assert found is not None
        await put(1, found + 1)(work)

    assert (await manager.write("add", add_one)).second_write is SecondWrite.APPLIED
    assert await note_databases.both() == ({1: 11}, {1: 11})


def test_any_is_for_documents() -> None:
    settings = DualWriteSettings(availability=Availability.ANY)
    with pytest.raises(ConfigurationError, match="AVAILABILITY"):
        settings.check_entities(EntityCatalog([PERSON]))
    settings.check_entities(CATALOG)
