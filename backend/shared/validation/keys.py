"""Keys as people write them."""

from __future__ import annotations

import json
import uuid

from sqlalchemy.types import BigInteger, Integer, SmallInteger, String, Uuid

from backend.shared.domain.errors import ValidationError
from backend.shared.domain.mapping import EntityMapping, Key, KeyPart

LONGEST_TEXT = 1000
"""Characters; an index entry of PostgreSQL holds no more than some 2,700 bytes."""
_LONGEST_NUMBER = 20


def parse_key(mapping: EntityMapping, text: str) -> Key:
    """The key that `text` names: its canonical JSON array or, where the key is one column, the bare value.

    Raises `ValidationError` for anything that no row's key could be.
    """
    parts: object = [text]
    if text.startswith("["):
        try:
            parts = json.loads(text)
        except (ValueError, RecursionError):
            parts = [text]
    if not isinstance(parts, list) or len(parts) != len(mapping.key):
        raise ValidationError(f"a key of {mapping.name} has {len(mapping.key)} part(s)")
    return tuple(
        _parse_part(mapping, declared, part) for declared, part in zip(mapping.key, parts, strict=True)
    )


def _parse_part(mapping: EntityMapping, declared: KeyPart, part: object) -> int | str:
    place = f"{declared.name} of {mapping.name}"
    if isinstance(declared.type, Integer):
        return _whole_number(declared.type, part, place)
    if isinstance(declared.type, Uuid):
        return _uuid(part, place)
    longest = getattr(declared.type, "length", None) if isinstance(declared.type, String) else None
    if not isinstance(part, str) or "\0" in part or len(part) > (longest or LONGEST_TEXT):
        raise ValidationError(f"{place} is no such text")
    try:
        part.encode()
    except UnicodeEncodeError:
        raise ValidationError(f"{place} is no such text") from None
    return part


def _whole_number(declared: Integer, part: object, place: str) -> int:
    text = str(part)
    if isinstance(part, bool) or not text.isascii() or not text.removeprefix("-").isdecimal():
        raise ValidationError(f"{place} is a whole number")
    bits = 63 if isinstance(declared, BigInteger) else 15 if isinstance(declared, SmallInteger) else 31
    if len(text) > _LONGEST_NUMBER or not -(2**bits) <= int(text) < 2**bits:
        raise ValidationError(f"{place} is out of range")
    return int(text)


def _uuid(part: object, place: str) -> str:
    try:
        return str(uuid.UUID(part if isinstance(part, str) else ""))
    except ValueError:
        raise ValidationError(f"{place} is no UUID") from None
