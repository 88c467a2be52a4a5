"""The validators that the server holds the documents against, one `$jsonSchema` a collection.

A test holds them against the models of `models`. Numbers of other types than Decimal128 pass, as old programs write them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..core.document_rules import UnknownFields

Schema = dict[str, Any]

_ID: Schema = {"bsonType": "objectId"}
_TEXT: Schema = {"bsonType": "string"}
_DATE: Schema = {"bsonType": "date"}
_NUMBER: Schema = {"bsonType": ["decimal", "double", "int", "long"]}


def _or_null(schema: Schema) -> Schema:
    """The field may be null; being in no list of required ones, it may be missing too."""
    types = schema["bsonType"]
    return {**schema, "bsonType": [*(types if isinstance(types, list) else [types]), "null"]}


def _object(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    properties = {**required, **{name: _or_null(schema) for name, schema in (optional or {}).items()}}
    schema: Schema = {"bsonType": "object", "properties": properties}
    return schema | ({"required": list(required)} if required else {})


def _array(items: Schema) -> Schema:
    return {"bsonType": "array", "items": items}


def _document(required: Mapping[str, Schema], optional: Mapping[str, Schema] | None = None) -> Schema:
    return _object({"_id": _ID, **required}, optional)


SCHEMAS: Mapping[str, Schema] = {
    "users": _document({"email_id": _TEXT}, {"google_id": _TEXT, "name": _TEXT}),
    "roles": _document({"name": _TEXT}, {"permissions": _array(_TEXT)}),
    "labels": _document({"name": _TEXT}, {"color": {**_TEXT, "pattern": "^#[0-9A-Fa-f]{6}$"}}),
    "teams": _document({"name": _TEXT, "invite_code": _TEXT, "created_by": _ID}),
    "tasks": _document(
        {
            "title": _TEXT,
            "status": {**_TEXT, "enum": ["todo", "in_progress", "done", "cancelled"]},
            "priority": {**_TEXT, "enum": ["low", "medium", "high", "urgent"]},
            "created_by": _ID,
            "created_at": _DATE,
            "updated_at": _DATE,
        },
        {
            "description": _TEXT,
            "due_at": _DATE,
            "estimate_hours": _NUMBER,
            "source": _object({}, {"app": _TEXT, "ticket": _TEXT}),
            "completed_at": _DATE,
            "labels": _array(_ID),
            "checklist": _array(_object({"text": _TEXT}, {"done": {"bsonType": "bool"}})),
        },
    ),
    "task_assignments": _document({"task_id": _ID, "user_id": _ID}),
    "watchlists": _document({"name": _TEXT, "user_id": _ID}),
    "user_team_details": _document({"user_id": _ID, "team_id": _ID}),
    "user_roles": _document({"user_id": _ID, "role_id": _ID}),
    "audit_logs": _document(
        {"action": _TEXT, "collection": _TEXT, "created_at": _DATE}, {"document": {"bsonType": "object"}}
    ),
}
"""By collection; unknown fields pass."""


def json_schema(collection: str, *, unknown: UnknownFields) -> Schema:
    """The `$jsonSchema` of a collection. With `FORBID`, no object of the schema may have a field that it does not know."""
    return _closed(SCHEMAS[collection]) if unknown is UnknownFields.FORBID else SCHEMAS[collection]


def _closed(schema: Schema) -> Schema:
    found = dict(schema)
    if "properties" in schema:
        found["properties"] = {name: _closed(inner) for name, inner in schema["properties"].items()}
        found["additionalProperties"] = False
    if "items" in schema:
        found["items"] = _closed(schema["items"])
    return found
