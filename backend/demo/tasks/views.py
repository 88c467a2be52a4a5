"""What either side holds of a thing, in the words of the service's API: read past the engine, with SQL and queries of our own.

So the engine's mapping is not believed here, but checked.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import asyncpg
from bson import Decimal128, ObjectId
from bson.errors import InvalidId
from pymongo import AsyncMongoClient

View = dict[str, Any]

IDS_PER_QUERY = 100
_CHECKLIST = (
    "(SELECT coalesce(json_agg(json_build_object('text', c.text, 'done', c.done) ORDER BY c.position), '[]')"
    " FROM task_checklist AS c WHERE c.task_id = t.mongo_id) AS checklist"
)
_LABELS = "ARRAY(SELECT l.label_id FROM task_labels AS l WHERE l.task_id = t.mongo_id ORDER BY l.position) AS labels"
_COLUMNS: Mapping[str, str] = {
    "tasks": f"t.title, t.description, t.status, t.priority, t.created_by, t.due_at, t.estimate_hours, {_LABELS}, {_CHECKLIST}",
    "teams": "t.name, t.invite_code, t.created_by",
    "labels": "t.name, t.color",
    "users": "t.email_id, t.name",
    "task_assignments": "t.task_id, t.user_id",
    "watchlists": "t.name, t.user_id",
}
_SPELLINGS = {"inprogress": "in_progress", "completed": "done", "canceled": "cancelled"}


async def rows_by_id(url: str, collection: str, ids: Collection[str]) -> dict[str, View]:
    """The rows of `ids` in the table of `collection`, with what belongs to them. Raises what the driver raises."""
    columns = _COLUMNS.get(collection)
    more = f", {columns}" if columns else ""
    connection = await asyncpg.connect(url, timeout=10, command_timeout=60)
    try:
        await connection.set_type_codec("json", schema="pg_catalog", encoder=json.dumps, decoder=json.loads)
        found = await connection.fetch(
            f'SELECT t.mongo_id{more} FROM "{collection}" AS t WHERE t.mongo_id = ANY($1)', list(ids)
        )
    finally:
        await connection.close()
    return {row["mongo_id"]: _plain({k: v for k, v in row.items() if k != "mongo_id"}) for row in found}


async def documents_by_id(url: str, collection: str, ids: Collection[str]) -> dict[str, View]:
    """The documents of `ids`, without the fields that the API does not know. Raises what the driver raises."""
    wanted = [_document_id(text) for text in ids]
    found: dict[str, View] = {}
    async with AsyncMongoClient[dict[str, Any]](url, tz_aware=True) as client:
        documents = client.get_default_database()[collection]
        for start in range(0, len(wanted), IDS_PER_QUERY):
            async for document in documents.find({"_id": {"$in": wanted[start : start + IDS_PER_QUERY]}}):
                found[str(document["_id"])] = _seen(collection, document)
    return found


def moment_text(value: datetime) -> str:
    """A point in time as both sides' views have it: UTC, in milliseconds."""
    return value.astimezone(UTC).isoformat(timespec="milliseconds")


def _document_id(text: str) -> object:
    try:
        return ObjectId(text)
    except InvalidId:
        return int(text) if text.isdecimal() else text  # what the generator calls a wrong id


def _seen(collection: str, document: Mapping[str, Any]) -> View:
    names = _FIELDS.get(collection, ())
    seen = _plain({name: document.get(name) for name in names})
    for name, read in _READERS.get(collection, {}).items():
        seen[name] = read(document.get(name))
    return seen


def _word(value: object) -> object:
    """A word of a closed set, however old programs have spelled it."""
    if not isinstance(value, str):
        return value
    bare = re.sub("[ _-]", "", value.lower())
    return _SPELLINGS.get(bare, bare)


def _checklist(value: object) -> list[View]:
    items = value if isinstance(value, Sequence) and not isinstance(value, str) else ()
    return [
        {"text": item.get("text"), "done": item.get("done")} for item in items if isinstance(item, Mapping)
    ]


def _plain(view: Mapping[str, Any]) -> View:
    return {name: _plain_value(value) for name, value in view.items()}


def _plain_value(value: Any) -> Any:
    match value:
        case ObjectId():
            return str(value)
        case Decimal128():
            return value.to_decimal()
        case int() | float() if not isinstance(value, bool):
            return Decimal(str(value))
        case datetime():
            return moment_text(value)
        case list():
            return [_plain_value(item) for item in value]
        case _:
            return value


_FIELDS: Mapping[str, Sequence[str]] = {
    "tasks": ("title", "description", "created_by", "due_at", "estimate_hours"),
    "teams": ("name", "invite_code", "created_by"),
    "labels": ("name", "color"),
    "users": ("email_id", "name"),
    "task_assignments": ("task_id", "user_id"),
    "watchlists": ("name", "user_id"),
}
_READERS: Mapping[str, Mapping[str, Callable[[Any], Any]]] = {
    "tasks": {
        "status": _word,
        "priority": _word,
        "labels": lambda value: [str(item) for item in value or ()],
        "checklist": _checklist,
    }
}
