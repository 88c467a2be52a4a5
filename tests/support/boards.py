"""Boards, which are documents on one side, and conflicts of them: FAILED ones when a side is closed, and foreign writes."""

from __future__ import annotations

from typing import Any

import asyncpg
import pymongo
import pytest
from bson import ObjectId

from backend.shared import Phase, Side
from backend.shared.documents import Documents
from backend.shared.journal.carrier import Hook, no_hook
from backend.shared.migration.gates import GateName
from backend.shared.migration.phase_controller import PhaseController
from backend.shared.observability.admin_views import ConflictView, SettlementView
from tests.support.note_service import MakeNotes, NoteDatabases, NotesManager
from tests.support.notes import digits

Board = tuple[str, list[str]]
CLOSING = {Side.LEGACY: (Phase.SHADOW, Phase.LIVE), Side.NEW: (Phase.LIVE, Phase.SHADOW)}
"""By the side that is closed: the phase before, and the one after."""
OF_EITHER = pytest.mark.parametrize("of", list(Side), ids=lambda side: f"of_{side.value}")
KEEPING_EITHER = pytest.mark.parametrize("keep", list(Side), ids=lambda side: f"keep_{side.value}")
REFUSED = "bad"
GATES = [name.value for name in GateName]


def save(manager: NotesManager, number: int, name: str, *tags: str) -> Any:
    """Writes a board through the service."""
    names = manager.runtime.names

    async def unit(work: Any) -> None:
        documents = Documents(work, catalog=manager.runtime.catalog, names=names)
        document = {"_id": ObjectId(digits(number)), "name": name, "tags": list(tags)}
        if await documents.get("board", (digits(number),)) is None:
            await documents.insert("board", document)
        else:
            await documents.replace("board", (digits(number),), document)

    return manager.write("save", unit)


def remove(manager: NotesManager, number: int) -> Any:
    """Deletes a board through the service."""

    async def unit(work: Any) -> None:
        await Documents(work, catalog=manager.runtime.catalog, names=manager.runtime.names).delete(
            "board", (digits(number),)
        )

    return manager.write("remove", unit)


class Boards:
    """The boards of both sides, and what the engine keeps there, as another program sees them."""

    def __init__(self, databases: NoteDatabases) -> None:
        self.databases = databases

    async def on(self, side: Side) -> dict[int, Board]:
        url = self.databases.urls[side]
        if side is Side.LEGACY:
            async with pymongo.AsyncMongoClient[dict[str, Any]](url) as client:
                found = await client.get_default_database()["boards"].find().to_list()
            return {int(str(item["_id"]), 16): (item["name"], item["tags"]) for item in found}
        connection = await asyncpg.connect(url)
        try:
            rows = await connection.fetch(
                "SELECT id, name, array(SELECT tag FROM board_tags WHERE board_id = b.id ORDER BY place) AS tags "
                "FROM boards AS b"
            )
            return {int(row["id"], 16): (row["name"], row["tags"]) for row in rows}
        finally:
            await connection.close()

    async def both(self) -> dict[int, Board]:
        """What both hold: they are the same."""
        legacy, new = await self.on(Side.LEGACY), await self.on(Side.NEW)
        assert legacy == new
        return new

    async def document(self, number: int, **changes: Any) -> None:
        """Another program changes a document."""
        async with pymongo.AsyncMongoClient[dict[str, Any]](self.databases.urls[Side.LEGACY]) as client:
            await client.get_default_database()["boards"].update_one(
                {"_id": ObjectId(digits(number))}, {"$set": changes}, upsert=True
            )

    async def refuse(self, side: Side, *, refuses: bool = True) -> None:
        """From now on a side takes no board of this name, or takes it again."""
        if side is Side.NEW:
            change = (
                f"ADD CONSTRAINT refused CHECK (name <> '{REFUSED}')"
                if refuses
                else "DROP CONSTRAINT refused"
            )
            await self.databases.sql(f"ALTER TABLE boards {change}")
            return
        rule = {"$jsonSchema": {"properties": {"name": {"not": {"enum": [REFUSED]}}}}} if refuses else {}
        async with pymongo.AsyncMongoClient[dict[str, Any]](self.databases.urls[side]) as client:
            await client.get_default_database().command("collMod", "boards", validator=rule)

    async def everything(self) -> list[Any]:
        """All that settling might change."""
        return [await self.on(side) for side in Side] + [
            [
                {name: value for name, value in row.items() if name != "holders"}
                for row in await self.databases.own(side, kept)
            ]
            for side in Side
            for kept in ("journal", "conflict", "settlement", "guard")
        ]


@pytest.fixture
def boards(note_databases: NoteDatabases) -> Boards:
    return Boards(note_databases)


async def made(
    make_notes: MakeNotes, phase: Phase, *, hook: Hook = no_hook, install: bool = True
) -> NotesManager:
    return await make_notes(
        phase, hook=hook, install=install, async_legacy=True, retry_attempts=1, timeout_seconds=5.0
    )


async def go(manager: NotesManager, to: Phase) -> None:
    """Go to a phase, through any gate."""
    controller = PhaseController(
        manager.runtime, check_schema=manager.check_schema, by="test", give_up_seconds=5.0, say=lambda _: None
    )
    await controller.change(to, reason="a test", force=GATES)


async def drained(manager: NotesManager) -> None:
    assert await manager.relay().drain(timeout_seconds=10)


async def closed_with_failure(make_notes: MakeNotes, boards: Boards, of: Side, **given: Any) -> NotesManager:
    """A key is FAILED on side `of` when that is closed: board 1, of the old name on the other side."""
    before, after = CLOSING[of]
    manager = await made(make_notes, before, **given)
    (await save(manager, 1, "good", "a", "b")).unwrap()
    (await save(manager, 2, "other")).unwrap()
    await drained(manager)
    await boards.refuse(of.other)
    (await save(manager, 1, REFUSED, "a", "b")).unwrap()
    await drained(manager)
    assert len(await manager.list_failures(limit=10)) == 1
    await go(manager, after)
    return manager


async def the_conflict(manager: NotesManager) -> ConflictView:
    (found,) = await manager.list_conflicts(limit=10)
    return found


async def settled(manager: NotesManager, keep: Side, **given: Any) -> SettlementView:
    conflict = await the_conflict(manager)
    return await manager.settle_conflict(conflict.id, keep=keep, by="ada", **given)


async def with_board(make_notes: MakeNotes, phase: Phase, **given: Any) -> NotesManager:
    """Board 1 is on both sides."""
    manager = await made(make_notes, phase, **given)
    (await save(manager, 1, "good", "a", "b")).unwrap()
    await drained(manager)
    return manager
