"""How a message that could not be taken in is kept: as it is, or, where no database would take that, by a stand-in."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, cast
from uuid import UUID, uuid5

from .envelope import Envelope

_UNREADABLE = UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
_MARK = "stand_in"
_NAMES = ("subject", "type", "aggregate_type", "aggregate_id", "correlation_id")


@dataclass(frozen=True, kw_only=True)
class Letter:
    """A message among the dead letters. Of a stand-in `data` is what came, in `body` as text or in `base64`."""

    envelope: Envelope
    is_stand_in: bool = False

    def as_json(self) -> dict[str, Any]:
        """As it is kept."""
        found = self.envelope.model_dump(mode="json")
        return {**found, _MARK: True} if self.is_stand_in else found

    @classmethod
    def from_json(cls, kept: str | Mapping[str, Any]) -> Self:
        """What `as_json` has made."""
        found = json.loads(kept) if isinstance(kept, str) else kept
        return cls(envelope=Envelope.model_validate(found), is_stand_in=bool(found.get(_MARK)))


def stand_in(envelope: Envelope, body: bytes) -> Letter:
    """For a message that cannot be kept as it is. PostgreSQL refuses U+0000 in any text, and half of a surrogate pair."""
    names = {name: storable(str(getattr(envelope, name))) for name in _NAMES}
    return Letter(envelope=envelope.model_copy(update={**names, "data": _raw(body)}), is_stand_in=True)


def unreadable(body: bytes) -> Letter:
    """For what is no message, with the same id each time that it comes."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        found = None
    fields = cast("dict[str, Any]", found) if isinstance(found, dict) else {}
    names = dict.fromkeys(_NAMES, "") | {"type": "unreadable"}
    names |= {name: fields[name] for name in _NAMES if isinstance(fields.get(name), str)}
    return stand_in(Envelope(id=uuid5(_UNREADABLE, body.hex()), version=1, data={}, **names), body)


def storable(text: str) -> str:
    """`text`, with an escape for what PostgreSQL takes in no text."""
    return text.encode(errors="backslashreplace").decode().replace("\0", "\\x00")


def _raw(body: bytes) -> dict[str, str]:
    try:
        text = body.decode()
    except UnicodeDecodeError:
        text = "\0"
    return {"base64": base64.b64encode(body).decode()} if "\0" in text else {"body": text}
