"""Keys, made here and not by a store, so that a thing has the same key in every store."""

from __future__ import annotations

import re
import secrets
import time
from itertools import count

ID_PATTERN = r"^[0-9a-f]{24}$"
"""What a key looks like: an ObjectId as text, in small letters."""

_WELL_FORMED = re.compile(ID_PATTERN)
_PROCESS = secrets.token_hex(5)
_COUNTER = count(secrets.randbelow(1 << 23))


def new_id() -> str:
    """A key that nobody else has: seconds, five random bytes of this process, and a counter, as BSON has them."""
    seconds = int(time.time()) & 0xFFFF_FFFF
    return f"{seconds:08x}{_PROCESS}{next(_COUNTER) & 0xFF_FFFF:06x}"


def is_id(text: str) -> bool:
    """Whether `text` can be a key."""
    return _WELL_FORMED.fullmatch(text) is not None
