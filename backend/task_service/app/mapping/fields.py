"""The fields of an object as columns of a row, with `extra` for what columns cannot say, and back.

`extra` is canonical extended JSON of an object. Of its parts only those are there that say something:

`null`     fields that are null: a column that is NULL stands for a field that is missing, unless it is named here
`missing`  arrays that are missing: without rows an array is empty, unless it is named here or under `null`
`hints`    by field, what a column has no room for: the type of a number, the spelling of a word, an order
`unknown`  the fields that the schema does not know, as they are
`nested`   by field, the `extra` of a nested object whose fields are columns of the same row

Whoever writes rows by SQL leaves `extra` as it is, or `{}`: columns and rows have the last word over it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from backend.shared.domain.mapping import UnfitError

from .bson_text import quoted, read_text, write_text
from .values import Kind, wrong_type

Extra = dict[str, Any]

_NAMES_ONLY = {"null", "missing"}


@dataclass(frozen=True, kw_only=True)
class Scalar:
    """A field that is one column. `nullable`: it may be missing, or null."""

    name: str
    kind: Kind
    nullable: bool = False
    column: str = ""

    @property
    def column_name(self) -> str:
        return self.column or self.name


@dataclass(frozen=True, kw_only=True)
class Nested:
    """A field that is an object, or null, or missing; its own fields are columns of the same row."""

    name: str
    fields: tuple[Scalar, ...]


@dataclass(frozen=True, kw_only=True)
class ObjectFields:
    """The fields of one object that are columns. `arrays` names those that are rows of other tables."""

    fields: tuple[Scalar | Nested, ...]
    arrays: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    _known: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        known = {*(item.name for item in self.fields), *self.arrays, *self.ignored}
        object.__setattr__(self, "_known", frozenset(known))

    def keep(self, value: Mapping[str, Any], *, path: str = "") -> tuple[dict[str, Any], Extra]:
        """The columns of an object, and its `extra`, without anything about arrays."""
        columns: dict[str, Any] = {}
        extra: Extra = {}
        for item in self.fields:
            if isinstance(item, Nested):
                self._keep_nested(item, value, columns, extra, path=path)
            else:
                columns[item.column_name] = self._keep_scalar(item, value, extra, path=path)
        if unknown := {name: value[name] for name in value if name not in self._known}:
            extra["unknown"] = unknown
        return columns, extra

    @staticmethod
    def _keep_scalar(item: Scalar, value: Mapping[str, Any], extra: Extra, *, path: str) -> Any:
        name = path + item.name
        if value.get(item.name) is None:
            if not item.nullable:
                raise UnfitError(f"{name}: null, but needed" if item.name in value else f"{name}: missing")
            if item.name in value:
                extra.setdefault("null", []).append(item.name)
            return None
        kept = item.kind.keep(value[item.name], field=name)
        if kept.hint is not None:
            extra.setdefault("hints", {})[item.name] = kept.hint
        return kept.column

    @staticmethod
    def _keep_nested(
        item: Nested, value: Mapping[str, Any], columns: dict[str, Any], extra: Extra, *, path: str
    ) -> None:
        inner = value.get(item.name)
        if inner is None:
            columns.update(dict.fromkeys((scalar.column_name for scalar in item.fields), None))
            if item.name in value:
                extra.setdefault("null", []).append(item.name)
            return
        if not isinstance(inner, Mapping):
            raise wrong_type(inner, expected="object", field=path + item.name)
        found, more = ObjectFields(fields=item.fields).keep(inner, path=f"{path}{item.name}.")
        columns.update(found)
        if more or all(column is None for column in found.values()):
            extra.setdefault("nested", {})[item.name] = more

    def restore(self, columns: Mapping[str, Any], extra: Extra, *, path: str = "") -> dict[str, Any]:
        """The object without its arrays: the fields of the schema in its order, then the unknown ones."""
        return self.restore_known(columns, extra, path=path) | self.restore_unknown(extra, path=path)

    def restore_known(self, columns: Mapping[str, Any], extra: Extra, *, path: str = "") -> dict[str, Any]:
        """The fields of the schema that are columns."""
        value: dict[str, Any] = {}
        hints, nested = _part(extra, "hints"), _part(extra, "nested")
        for item in self.fields:
            found = _MISSING
            if isinstance(item, Nested):
                found = self._restore_nested(item, columns, nested.get(item.name), path=path)
            elif (column := columns.get(item.column_name)) is not None:
                found = item.kind.restore(column, hints.get(item.name), field=path + item.name)
            elif not item.nullable:
                raise UnfitError(f"{path}{item.name}: the column is NULL")
            if found is not _MISSING:
                value[item.name] = found
            elif names_in(extra, "null", item.name):
                value[item.name] = None
        return value

    def restore_unknown(self, extra: Extra, *, path: str = "") -> dict[str, Any]:
        """The fields that the schema does not know."""
        unknown = _part(extra, "unknown")
        for name in self._known & unknown.keys():
            raise UnfitError(f"{path}{quoted(name)}: extra has a field that has a column of its own")
        return unknown

    @staticmethod
    def _restore_nested(item: Nested, columns: Mapping[str, Any], extra: Any, *, path: str) -> Any:
        if extra is None and all(columns.get(scalar.column_name) is None for scalar in item.fields):
            return _MISSING
        inner = extra if isinstance(extra, dict) else {}
        return ObjectFields(fields=item.fields).restore(columns, inner, path=f"{path}{item.name}.")


_MISSING = object()


def names_in(extra: Extra, part: str, name: str) -> bool:
    """Whether the list `part` of `extra` has this name."""
    found = extra.get(part)
    return isinstance(found, list) and name in found


def _part(extra: Extra, part: str) -> dict[str, Any]:
    found = extra.get(part)
    return found if isinstance(found, dict) else {}


def write_extra(extra: Extra, *, path: str = "") -> str:
    """The text of the column `extra`. `UnfitError` names the field that does not fit."""
    if extra.keys() <= _NAMES_ONLY:
        # Of names of the schema: so there is nothing to be looked at.
        return json.dumps(extra, separators=(",", ":"))
    try:
        return write_text(extra, field=f"{path}extra")
    except UnfitError as error:
        reason = str(error)
    _name_the_culprit(extra, path=path)
    raise UnfitError(reason)


def _name_the_culprit(extra: Extra, *, path: str) -> None:
    for part in ("hints", "unknown"):
        for name, value in _part(extra, part).items():
            write_text({name: value}, field=path + quoted(name))
    for name, inner in _part(extra, "nested").items():
        _name_the_culprit(inner, path=f"{path}{name}.")


def read_extra(text: object, *, path: str = "") -> Extra:
    """The inverse of `write_extra`."""
    if text is None or text == "{}":
        return {}
    return read_text(text, field=f"{path}extra")
