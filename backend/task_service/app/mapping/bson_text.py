"""BSON values as text: canonical extended JSON where PostgreSQL and MongoDB both read it as it was written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import bson
from bson import json_util
from bson.codec_options import CodecOptions, DatetimeConversion
from bson.errors import BSONError

from backend.shared.domain.mapping import UnfitError

CODEC: CodecOptions[dict[str, Any]] = CodecOptions(
    tz_aware=True,
    # A date beyond the years 1 to 9999, or a text that is no UTF-8, is to fail with its own document alone.
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
    unicode_decode_error_handler="surrogateescape",
)
"""How documents are to be read, so that this module sees of each what there is to see."""

_OPTIONS = json_util.JSONOptions(
    json_mode=json_util.JSONMode.CANONICAL,
    tz_aware=True,
    datetime_conversion=DatetimeConversion.DATETIME_AUTO,
)
# An escape that no backslash before it takes the meaning from.
_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_NAMES: tuple[tuple[type, str], ...] = (
    (bool, "bool"),
    (bson.Int64, "long"),
    (int, "int"),
    (float, "double"),
    (bson.Code, "javascript"),
    (str, "string"),
    (datetime, "date"),
    (bson.DatetimeMS, "date"),
    (bson.ObjectId, "objectId"),
    (bson.Decimal128, "decimal"),
    (bson.Regex, "regex"),
    (bson.Timestamp, "timestamp"),
    (bson.MinKey, "minKey"),
    (bson.MaxKey, "maxKey"),
    (bytes, "binData"),
    (list, "array"),
    (Mapping, "object"),
    (bson.DBRef, "object"),
    (type(None), "null"),
)


def type_name(value: object) -> str:
    """The name that `$type` has for the type of `value`."""
    return next((name for kind, name in _NAMES if isinstance(value, kind)), type(value).__name__)


def quoted(name: str) -> str:
    """A field's name for a message: in ASCII, and not longer than 60 characters."""
    shown = name if re.fullmatch(r"[\w.-]+", name, re.ASCII) else ascii(name)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."


def same_bson(one: object, other: object) -> bool:
    """Whether two values are the same to the byte: type, order of fields and sign of a zero included."""
    return bson.encode({"v": one}) == bson.encode({"v": other})


def write_text(value: Mapping[str, Any], *, field: str) -> str:
    """`value` as canonical extended JSON. `UnfitError` names `field` when it cannot be read back as it is."""
    try:
        text = json_util.dumps(value, json_options=_OPTIONS, ensure_ascii=False, separators=(",", ":"))
        text.encode()
        if _NUL.search(text):
            raise UnfitError(f"{field}: holds a text with a NUL character")
        if not same_bson(value, json_util.loads(text, json_options=_OPTIONS)):
            raise UnfitError(f"{field}: holds what extended JSON cannot say")
    except UnicodeEncodeError:
        raise UnfitError(f"{field}: holds a text that is not UTF-8") from None
    except (BSONError, ValueError, TypeError, OverflowError, RecursionError):
        raise UnfitError(f"{field}: holds what extended JSON cannot say") from None
    return text


def read_text(text: object, *, field: str) -> dict[str, Any]:
    """The inverse of `write_text`."""
    try:
        value = json_util.loads(text, json_options=_OPTIONS) if isinstance(text, str) else None
    except (BSONError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UnfitError(f"{field}: is no extended JSON of an object")
    return value
