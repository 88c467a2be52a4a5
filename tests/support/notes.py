"""Two small entities that are documents on one side: a plain one, and one with an array in a table of its own."""

from __future__ import annotations

from sqlalchemy import Column, Integer, MetaData, Table, Text

from backend.shared.domain.mapping import (
    Document,
    DocumentShape,
    EntityCatalog,
    RowsByTable,
    UnfitError,
    document_entity,
)
from backend.shared.stores.mongo.shapes import id_of, key_of

METADATA = MetaData()
NOTES = Table("notes", METADATA, Column("id", Text, primary_key=True), Column("n", Integer))
BOARDS = Table("boards", METADATA, Column("id", Text, primary_key=True), Column("name", Text))
BOARD_TAGS = Table(
    "board_tags",
    METADATA,
    Column("board_id", Text, primary_key=True),
    Column("place", Integer, primary_key=True),
    Column("tag", Text),
)
DDL = (
    'CREATE TABLE notes (id text COLLATE "C" PRIMARY KEY, n integer)',
    'CREATE TABLE boards (id text COLLATE "C" PRIMARY KEY, name text)',
    "CREATE TABLE board_tags (board_id text, place integer, tag text, PRIMARY KEY (board_id, place))",
)


def _note_rows(document: Document) -> RowsByTable:
    if not isinstance(document.get("n"), int):
        raise UnfitError("n: not a whole number")
    return {"notes": [{"id": str(document["_id"]), "n": document["n"]}]}


def _note_document(rows: RowsByTable) -> Document:
    (row,) = rows["notes"]
    if row["n"] is None:
        raise UnfitError("n: missing")
    return {"_id": id_of(f'["{row["id"]}"]'), "n": row["n"]}


def _board_rows(document: Document) -> RowsByTable:
    key = str(document["_id"])
    tags = [
        {"board_id": key, "place": place, "tag": tag} for place, tag in enumerate(document.get("tags", ()))
    ]
    return {"boards": [{"id": key, "name": document["name"]}], "board_tags": tags}


def _board_document(rows: RowsByTable) -> Document:
    (row,) = rows["boards"]
    tags = [tag["tag"] for tag in sorted(rows["board_tags"], key=lambda tag: int(tag["place"]))]
    return {"_id": id_of(f'["{row["id"]}"]'), "name": row["name"], "tags": tags}


NOTE = document_entity(
    "note",
    shape=DocumentShape(collection="notes", rows_of=_note_rows, document_of=_note_document),
    tables={NOTES: "id"},
)
BOARD = document_entity(
    "board",
    shape=DocumentShape(collection="boards", rows_of=_board_rows, document_of=_board_document),
    tables={BOARDS: "id", BOARD_TAGS: "board_id"},
)
CATALOG = EntityCatalog([NOTE, BOARD])


def digits(number: int) -> str:
    """The 24 digits of a small number's ObjectId."""
    return f"{number:024x}"


def key(number: int) -> str:
    """The canonical key of a small number."""
    return key_of(id_of(f'["{digits(number)}"]'))
