"""Both sides written at once, a MongoDB and a PostgreSQL: what becomes of it when all goes well."""

from __future__ import annotations

from backend.shared import Phase, SecondWrite, Side
from tests.support.note_service import EITHER_FIRST, MakeNotes, NoteDatabases, gone, put
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
