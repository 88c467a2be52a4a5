"""The server's validators say the same as the models, and both the same as the mapping."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from backend.task_service.app.documents import DOCUMENTS, UnknownFields, document_model, json_schema
from backend.task_service.app.documents.schemas import SCHEMAS
from backend.task_service.app.mapping import COLLECTIONS
from backend.task_service.app.mapping.fields import Scalar
from backend.task_service.app.mapping.values import ChoiceKind

EACH = pytest.mark.parametrize("collection", DOCUMENTS)
ID = "0123456789abcdef01234567"


def of_model(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """A JSON schema of Pydantic as it reads in BSON's types, with `null` among the types where it may be null."""
    if "$ref" in schema:
        return of_model(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        parts = [of_model(part, definitions) for part in schema["anyOf"]]
        named = {name: value for part in parts for name, value in part.items()}
        types = {kind for part in parts for kind in part["types"]}
        # A decimal travels as a number or as a text that looks like one.
        if {"number", "string"} <= types:
            types = types - {"string"}
            named.pop("pattern", None)
        return {**named, "types": types}
    match schema:
        case {"type": "string", "pattern": "^[0-9a-f]{24}$"}:
            return {"types": {"objectId"}}
        case {"type": "string", "format": "date-time"}:
            return {"types": {"date"}}
        case {"type": "array", "items": items}:
            return {"types": {"array"}, "items": of_model(items, definitions)}
        case {"type": "object", "properties": properties}:
            return {
                "types": {"object"},
                "properties": {name: of_model(part, definitions) for name, part in properties.items()},
                "required": set(schema.get("required", ())),
                "closed": schema.get("additionalProperties") is False,
            }
        case {"type": kind}:
            kept: dict[str, Any] = {name: schema[name] for name in ("pattern", "enum") if name in schema}
            return {"types": {"bool" if kind == "boolean" else kind}, **kept}
        case _:
            raise AssertionError(schema)


def of_server(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema of the server in the same terms."""
    types = schema["bsonType"]
    found = {
        "number" if kind in {"decimal", "double", "int", "long"} else kind
        for kind in (types if isinstance(types, list) else [types])
    }
    result: dict[str, Any] = {"types": found}
    result |= {name: schema[name] for name in ("pattern", "enum") if name in schema}
    if "items" in schema:
        result["items"] = of_server(schema["items"])
    if "properties" in schema:
        result["properties"] = {name: of_server(part) for name, part in schema["properties"].items()}
        result["required"] = set(schema.get("required", ()))
        result["closed"] = schema.get("additionalProperties") is False
    return result


@EACH
@pytest.mark.parametrize("unknown", UnknownFields)
def test_the_server_asks_for_what_the_model_asks_for(collection: str, unknown: UnknownFields) -> None:
    model = document_model(collection, unknown=unknown).model_json_schema(by_alias=True)
    expected = of_model(model, model.get("$defs", {}))
    assert of_server(json_schema(collection, unknown=unknown)) == expected


@pytest.mark.parametrize("collection", COLLECTIONS, ids=lambda collection: collection.name)
def test_the_mapping_knows_the_same_fields(collection: Any) -> None:
    schema = SCHEMAS[collection.name]
    needed = {item.name for item in collection.fields if isinstance(item, Scalar) and not item.nullable}
    assert set(schema["required"]) == {"_id", *needed}
    known = {item.name for item in (*collection.fields, *collection.items)}
    assert set(schema["properties"]) == {"_id", *known}
    for item in collection.fields:
        if isinstance(item, Scalar) and isinstance(item.kind, ChoiceKind):
            assert schema["properties"][item.name]["enum"] == list(item.kind.choices)


def test_an_id_is_24_digits_in_lower_case() -> None:
    model = document_model("task_assignments", unknown=UnknownFields.FORBID)
    assert model.model_validate({"_id": ID, "task_id": ID, "user_id": ID}).id == ID
    for wrong in (ID.upper(), ID[:-1], f"{ID}\n", f"{ID}0", 5, None):
        with pytest.raises(ValidationError):
            model.model_validate({"_id": wrong, "task_id": ID, "user_id": ID})


@pytest.mark.parametrize(("unknown", "kept"), [(UnknownFields.IGNORE, False), (UnknownFields.ALLOW, True)])
def test_unknown_fields_are_dropped_or_kept_inside_too(unknown: UnknownFields, *, kept: bool) -> None:
    given = {"_id": ID, "x": 1, "checklist": [{"text": "a", "x": 1}], "source": {"x": 1}}
    given |= {"title": "t", "status": "todo", "priority": "low", "created_by": ID}
    given |= {"created_at": "2026-01-02T03:04:05Z", "updated_at": "2026-01-02T03:04:05Z"}
    found = document_model("tasks", unknown=unknown).model_validate(given).model_dump(by_alias=True)
    assert [("x" in part) for part in (found, found["checklist"][0], found["source"])] == [kept] * 3
    assert document_model("tasks", unknown=UnknownFields.FORBID) is not DOCUMENTS["tasks"]
    with pytest.raises(ValidationError) as caught:
        document_model("tasks", unknown=UnknownFields.FORBID).model_validate(given)
    places = {error["loc"] for error in caught.value.errors() if error["type"] == "extra_forbidden"}
    assert places == {("x",), ("checklist", 0, "x"), ("source", "x")}
