"""A whole document inside of a column of type jsonb, which forgets in what order the fields stood."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from .bson_text import read_text, same_bson, write_text
from .values import Kept, wrong_type


class EmbeddedKind:
    """Any document, as canonical extended JSON. The hint is the order of fields, where it is not that of jsonb."""

    def keep(self, value: Any, *, field: str) -> Kept:
        if not isinstance(value, Mapping):
            raise wrong_type(value, expected="object", field=field)
        text = write_text(value, field=field)
        forgetful = read_text(json.dumps(_as_jsonb(json.loads(text))), field=field)
        if same_bson(forgetful, value):
            return Kept(text)
        order = list(_orders(value))
        if same_bson(_ordered(forgetful, iter(order)), value):
            return Kept(text, {"order": order})
        # Inside of a DBRef, or of a code's scope.
        return Kept(text, {"value": value})

    def restore(self, column: Any, hint: Any, *, field: str) -> dict[str, Any]:
        text = column if isinstance(column, str) else json.dumps(column)
        value = read_text(text, field=field)
        match hint:
            case {"order": list() as order}:
                return _in_order(value, order)
            case {"value": Mapping() as whole} if json.loads(write_text(whole, field=field)) == json.loads(
                text
            ):
                return dict(whole)
            case _:
                return value


EMBEDDED = EmbeddedKind()


def _as_jsonb(value: Any) -> Any:
    """The fields in the order that jsonb has: by length of their names, then by bytes."""
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: (len(name.encode()), name.encode()))
        return {name: _as_jsonb(value[name]) for name in names}
    return [_as_jsonb(item) for item in value] if isinstance(value, list) else value


def _orders(value: Any) -> Iterator[list[str]]:
    """The names of the fields of each document within, outer before inner, in their order."""
    if isinstance(value, Mapping):
        yield list(value)
        for item in value.values():
            yield from _orders(item)
    elif isinstance(value, list):
        for item in value:
            yield from _orders(item)


class _OtherFieldsError(Exception):
    """The document has been changed since its order was noted."""


def _ordered(value: Any, orders: Iterator[Any]) -> Any:
    if isinstance(value, dict):
        names = next(orders, None)
        if not isinstance(names, list) or len(names) != len(value) or set(names) != set(value):
            raise _OtherFieldsError
        return {name: _ordered(value[name], orders) for name in names}
    return [_ordered(item, orders) for item in value] if isinstance(value, list) else value


def _in_order(value: dict[str, Any], order: list[Any]) -> dict[str, Any]:
    try:
        found = _ordered(value, iter(order))
    except (_OtherFieldsError, TypeError):
        return value
    return dict(found)


__all__ = ["EMBEDDED", "EmbeddedKind"]
