"""Conflicts are settled either way where one of the sides is a MongoDB: FAILED keys, and what other programs have written."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pymongo
import pytest
from bson import ObjectId

from backend.shared import ConflictError, Phase, Side
from backend.shared.domain.mapping import Document, RowsByTable
from backend.shared.journal.conflict_records import SettledConflict
from backend.shared.observability.admin_views import SettlementView
from backend.shared.stores.mongo.side import MongoSide
from backend.shared.stores.mongo.stream_events import ForeignChange
from backend.shared.stores.mongo.stream_writes import keep_conflicts
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
    save,
    settled,
    the_conflict,
    with_board,
)
from tests.support.note_service import DOCUMENTS_FIRST, MakeNotes, NotesManager, put
from tests.support.notes import BOARD, NOTE, digits, key


@pytest.mark.invariant("I8")
@OF_EITHER
@KEEPING_EITHER
async def test_i8_a_failed_key_is_kept_until_it_is_settled_either_way(
    make_notes: MakeNotes, boards: Boards, *, of: Side, keep: Side
) -> None:
    manager = await closed_with_failure(make_notes, boards, of)
    await boards.refuse(of.other, refuses=False)
    done = await settled(manager, keep)
    assert (done.settled, done.detail) == (True, ""), done
    await drained(manager)
    name = REFUSED if keep is of else "good"
    assert await boards.both() == {1: (name, ["a", "b"]), 2: ("other", [])}
    assert await manager.list_conflicts(limit=10) == []
    (kept,) = await manager.list_conflicts(limit=10, settled=True)
    assert (kept.side, kept.kept, kept.settled_by) == (of, keep, "ada")


@OF_EITHER
@KEEPING_EITHER
async def test_a_dry_run_says_what_would_be_done_and_changes_nothing(
    make_notes: MakeNotes, boards: Boards, *, of: Side, keep: Side
) -> None:
    manager = await closed_with_failure(make_notes, boards, of)
    before = await boards.everything()
    planned = await settled(manager, keep, dry_run=True, show_values=True)
    assert planned.outcome == "planned"
    values = ("good", REFUSED) if keep is of else (REFUSED, "good")
    assert [(item.field, item.before, item.after) for item in planned.fields] == [("boards.name", *values)]
    assert planned.detail == (
        f"written on the {of.other.value} side, then carried"
        if keep is of
        else f"carried to the {of.value} side once more"
    )
    hidden = await settled(manager, keep, dry_run=True)
    assert [(item.before, item.after) for item in hidden.fields] == [(None, None)]
    assert await boards.everything() == before


@OF_EITHER
async def test_what_the_side_still_refuses_is_refused_and_nothing_is_kept(
    make_notes: MakeNotes, boards: Boards, *, of: Side
) -> None:
    manager = await closed_with_failure(make_notes, boards, of)
    await drained(manager)
    before = [await boards.on(side) for side in Side]
    done = await settled(manager, of)
    assert done.outcome == "refused"
    assert done.detail.startswith(f"{of.other.value} side: ")
    assert REFUSED not in done.detail
    assert (await the_conflict(manager)).detail == done.detail
    assert [await boards.on(side) for side in Side] == before
    assert await boards.databases.own(of.other, "settlement") == []
    assert await boards.databases.own(of.other, "journal") == []


@OF_EITHER
async def test_only_what_the_failed_change_was_about_is_written(
    make_notes: MakeNotes, boards: Boards, *, of: Side
) -> None:
    """What the authority has changed since in other columns stands."""
    manager = await closed_with_failure(make_notes, boards, of)
    (await save(manager, 1, "good", "newer")).unwrap()
    await drained(manager)
    await boards.refuse(of.other, refuses=False)
    assert (await settled(manager, of)).settled
    await drained(manager)
    assert (await boards.both())[1] == (REFUSED, ["newer"])


@OF_EITHER
@KEEPING_EITHER
async def test_settled_after_its_side_has_become_authoritative_again(
    make_notes: MakeNotes, boards: Boards, *, of: Side, keep: Side
) -> None:
    manager = await closed_with_failure(make_notes, boards, of)
    await boards.refuse(of.other, refuses=False)
    if keep is of:  # a carry has overwritten it; else it is still there
        (await save(manager, 1, "good", "newer")).unwrap()
        await drained(manager)
    await go(manager, CLOSING[of][0])
    assert manager.phase.policy.authoritative is of
    done = await settled(manager, keep)
    assert done.settled, done
    await drained(manager)
    expected = (REFUSED, ["newer"]) if keep is of else ("good", ["a", "b"])
    assert (await boards.both())[1] == expected


# What other programs write to rows ----------------------------------------------------------------------------------------

ROW_WRITES = {
    "update": ("UPDATE boards SET name = 'foreign'", ("foreign", ["a", "b"])),
    "insert": (f"INSERT INTO board_tags VALUES ('{digits(1)}', 2, 'c')", ("good", ["a", "b", "c"])),
    "second_row": ("UPDATE board_tags SET tag = 'foreign' WHERE place = 1", ("good", ["a", "foreign"])),
    "delete": ("DELETE FROM boards", None),
    "lost_row": ("DELETE FROM board_tags WHERE place = 1", ("good", ["a"])),
    "lost_first_row": ("DELETE FROM board_tags WHERE place = 0", ("good", ["b"])),
}


@KEEPING_EITHER
@pytest.mark.parametrize("kind", ROW_WRITES)
async def test_a_foreign_write_to_rows_is_settled_either_way(
    make_notes: MakeNotes, boards: Boards, *, kind: str, keep: Side
) -> None:
    manager = await with_board(make_notes, DOCUMENTS_FIRST)
    statement, foreign = ROW_WRITES[kind]
    await boards.databases.sql(statement)
    done = await settled(manager, keep)
    assert done.settled, done
    await drained(manager)
    expected = ("good", ["a", "b"]) if keep is Side.LEGACY else foreign
    assert await boards.both() == ({1: expected} if expected else {})


async def test_a_number_of_a_row_is_a_number_of_the_document(make_notes: MakeNotes, boards: Boards) -> None:
    manager = await made(make_notes, DOCUMENTS_FIRST)
    (await manager.write("put", put(1, 5))).unwrap()
    await drained(manager)
    await boards.databases.sql("UPDATE notes SET n = 7")
    assert (await settled(manager, Side.NEW)).settled
    assert await boards.databases.both() == ({1: 7}, {1: 7})


@KEEPING_EITHER
async def test_a_foreign_write_to_rows_that_are_authoritative_by_now(
    make_notes: MakeNotes, boards: Boards, *, keep: Side
) -> None:
    """It stands, or is taken back; what was written beside it since stands either way."""
    manager = await with_board(make_notes, Phase.SHADOW)
    await boards.databases.sql("UPDATE boards SET name = 'foreign'")
    await go(manager, Phase.LIVE)
    (await save(manager, 1, "foreign", "newer")).unwrap()
    done = await settled(manager, keep)
    assert done.settled, done
    await drained(manager)
    assert await boards.both() == {1: ("good" if keep is Side.LEGACY else "foreign", ["newer"])}


async def test_a_foreign_write_that_was_written_over_since_is_not_taken_back(
    make_notes: MakeNotes, boards: Boards
) -> None:
    manager = await with_board(make_notes, Phase.SHADOW)
    await boards.databases.sql("UPDATE boards SET name = 'foreign'")
    await go(manager, Phase.LIVE)
    (await save(manager, 1, "newer", "a")).unwrap()
    done = await settled(manager, Side.LEGACY)
    assert (done.outcome, done.detail) == (
        "refused",
        "the row has been written again since: that write stands",
    )
    await drained(manager)
    assert await boards.both() == {1: ("newer", ["a"])}


# What other programs write to documents -----------------------------------------------------------------------------------


async def foreign_document(manager: NotesManager, entity: str, collection: str, operation: str) -> None:
    """What the change stream makes of another program's write to note or board 1."""
    store: Any = manager.runtime.stores[Side.LEGACY]
    assert isinstance(store, MongoSide)
    change = ForeignChange(entity=entity, key=key(1), collection=collection, operation=operation)
    async with store.begin() as connection:
        await keep_conflicts(store.collections, connection, [change], side=Side.LEGACY)


@KEEPING_EITHER
@pytest.mark.parametrize("operation", ["update", "delete"])
async def test_a_foreign_write_to_a_document_is_settled_either_way(
    make_notes: MakeNotes, boards: Boards, *, operation: str, keep: Side
) -> None:
    manager = await with_board(make_notes, Phase.RAMPDOWN)
    if operation == "update":
        await boards.document(1, name="foreign", tags=["c"])
    else:
        async with pymongo.AsyncMongoClient[dict[str, Any]](boards.databases.urls[Side.LEGACY]) as client:
            await client.get_default_database()["boards"].delete_many({})
    await foreign_document(manager, "board", "boards", operation)
    done = await settled(manager, keep)
    assert done.settled, done
    await drained(manager)
    foreign = {1: ("foreign", ["c"])} if operation == "update" else {}
    assert await boards.both() == (foreign if keep is Side.LEGACY else {1: ("good", ["a", "b"])})


@KEEPING_EITHER
async def test_a_foreign_write_to_a_document_that_is_authoritative_by_now(
    make_notes: MakeNotes, boards: Boards, *, keep: Side
) -> None:
    """Nobody knows what it was before: against it stands what the other side holds."""
    manager = await with_board(make_notes, Phase.LIVE)
    await boards.document(1, name="foreign")
    await foreign_document(manager, "board", "boards", "update")
    await go(manager, Phase.SHADOW)
    done = await settled(manager, keep)
    assert done.settled, done
    await drained(manager)
    assert await boards.both() == {1: ("good" if keep is Side.NEW else "foreign", ["a", "b"])}


# What cannot be said ------------------------------------------------------------------------------------------------------


async def refused(manager: NotesManager, boards: Boards, keep: Side) -> str:
    """Why it is refused, in a dry run too; nothing is changed."""
    before = await boards.everything()
    planned = await settled(manager, keep, dry_run=True)
    assert await boards.everything() == before
    done = await settled(manager, keep)
    assert (done.outcome, done.settled) == ("refused", False), done
    assert (planned.outcome, planned.detail) == (done.outcome, done.detail)
    after = await boards.everything()
    for item in after:
        for row in item if isinstance(item, list) else ():
            if row.get("detail") == done.detail:
                row["detail"] = None
    assert after == before
    return done.detail


async def test_rows_that_make_no_document(make_notes: MakeNotes, boards: Boards) -> None:
    manager = await made(make_notes, DOCUMENTS_FIRST)
    (await manager.write("put", put(1, 5))).unwrap()
    await drained(manager)
    await boards.databases.sql("UPDATE notes SET n = NULL")
    detail = await refused(manager, boards, Side.NEW)
    assert "the mapping to the legacy side cannot say it" in detail
    assert "n: missing" in detail


async def test_a_document_that_makes_no_rows(make_notes: MakeNotes, boards: Boards) -> None:
    manager = await made(make_notes, Phase.RAMPDOWN)
    (await manager.write("put", put(1, 5))).unwrap()
    await drained(manager)
    async with pymongo.AsyncMongoClient[dict[str, Any]](boards.databases.urls[Side.LEGACY]) as client:
        await client.get_default_database()["notes"].update_one({}, {"$set": {"n": "secret"}})
    await foreign_document(manager, "note", "notes", "update")
    detail = await refused(manager, boards, Side.LEGACY)
    assert detail == "the mapping to the new side cannot say it: n: not a whole number"


async def test_what_would_be_carried_as_it_was(
    make_notes: MakeNotes, boards: Boards, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsigned(rows: RowsByTable) -> Document:
        return {"_id": ObjectId(digits(1)), "n": abs(rows["notes"][0]["n"])}

    assert NOTE.document is not None
    note = replace(NOTE, document=replace(NOTE.document, document_of=unsigned))
    monkeypatch.setattr(NotesManager, "entities", classmethod(lambda _: (note, BOARD)))
    manager = await made(make_notes, DOCUMENTS_FIRST)
    (await manager.write("put", put(1, 5))).unwrap()
    await drained(manager)
    await boards.databases.sql("UPDATE notes SET n = -5")
    detail = await refused(manager, boards, Side.NEW)
    assert detail == "the mapping to the legacy side cannot say it: notes.n"


async def test_a_database_that_changes_what_is_written(make_notes: MakeNotes, boards: Boards) -> None:
    manager = await with_board(make_notes, Phase.RAMPDOWN)
    await boards.databases.sql(
        "CREATE FUNCTION keeps() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN NEW.name := OLD.name; RETURN NEW; END$$; "
        "CREATE TRIGGER keeps BEFORE UPDATE ON boards FOR EACH ROW EXECUTE FUNCTION keeps()"
    )
    await boards.document(1, name="foreign")
    await foreign_document(manager, "board", "boards", "update")
    done = await settled(manager, Side.LEGACY)
    assert (done.outcome, done.detail) == (
        "refused",
        "the mapping to the new side cannot say it: boards.name",
    )
    assert await boards.databases.own(Side.NEW, "settlement") == []
    assert await boards.databases.own(Side.NEW, "journal") == []


# All of them --------------------------------------------------------------------------------------------------------------


@OF_EITHER
async def test_all_are_settled_but_what_somebody_else_decides_about(
    make_notes: MakeNotes, boards: Boards, *, of: Side
) -> None:
    before, after = CLOSING[of]
    manager = await made(make_notes, before)
    for number in (1, 2, 3):
        (await save(manager, number, "good")).unwrap()
    await drained(manager)
    await boards.refuse(of.other)
    for number in (1, 2, 3):
        (await save(manager, number, REFUSED)).unwrap()
    await drained(manager)
    await go(manager, after)
    await boards.refuse(of.other, refuses=False)
    second = (await manager.list_conflicts(limit=10))[1]
    store = manager.runtime.stores[of]
    done: list[SettlementView] = []
    async with store.connect() as other:
        await store.conflicts.hold(other, int(second.id.rpartition("-")[2]))
        with pytest.raises(ConflictError, match="somebody else settles"):
            await manager.settle_conflict(second.id, keep=of)
        await manager.settle_conflicts(keep=of, by="ada", on_each=done.append)
    assert [(item.settled, item.key) for item in done] == [(True, key(1)), (True, key(3))]
    assert [item.id for item in await manager.list_conflicts(limit=10)] == [second.id]
    assert (await settled(manager, of.other)).settled
    await drained(manager)
    assert await boards.both() == {1: (REFUSED, []), 2: ("good", []), 3: (REFUSED, [])}
    again = await manager.settle_conflict(second.id, keep=of.other)
    assert (again.settled, again.outcome) == (True, "settled already")
    with pytest.raises(ConflictError, match=f"settled by ada: kept {of.other.value}"):
        await manager.settle_conflict(second.id, keep=of)


@OF_EITHER
async def test_what_the_newer_change_has_decided_is_settled_already(
    make_notes: MakeNotes, boards: Boards, *, of: Side
) -> None:
    """A key that both sides had changed, each on its own."""
    manager = await with_board(make_notes, CLOSING[of][1])
    store = manager.runtime.stores[of]
    stranded = SettledConflict(
        side=of,
        entity="board",
        key=key(1),
        source_table="boards",
        kept_rows={"boards": "[]"},
        dropped_rows={"boards": "[]"},
        settled_by="newer",
        detail="changed on both sides",
    )
    async with store.begin() as connection:
        await store.conflicts.keep_settled(connection, stranded)
    (found,) = await manager.list_conflicts(limit=10, settled=True)
    for dry_run in (True, False):
        done = await manager.settle_conflict(found.id, keep=of.other, dry_run=dry_run)
        assert (done.settled, done.detail) == (True, "by newer")
        with pytest.raises(ConflictError, match="settled by newer"):
            await manager.settle_conflict(found.id, keep=of, dry_run=dry_run)
    assert await boards.both() == {1: ("good", ["a", "b"])}
