"""What of a value goes into the hash of its row, by type: all of it, and nothing else.

PostgreSQL's hash functions serve `=`, so two values that are not the same may hash alike on purpose, or may be folded:
`hash_numeric` leaves out sign and scale and takes NaN for the infinities, `hashint8` (bigint, timestamps, times) folds two
halves into one, so that 1 and 4294967296 meet, -0.0 is 0.0, 1 month is 30 days, a nondeterministic collation takes 'A' for 'a',
and an enum is its number in this one database. The hashes of int2, int4, bool, date, uuid, bytea and of text in collation
"C" tell all their values apart (up to chance: 64 bits). Other numbers and times go in as the bytes that the server sends
(`…send`), and whatever is not named here as its text: for that a type needs no more than an output function.
"""

from __future__ import annotations

import re

_AS_THEY_ARE = frozenset({"smallint", "integer", "boolean", "date", "uuid", "bytea"})
_SENT = {
    "bigint": "int8send",
    "numeric": "numeric_send",
    "real": "float4send",
    "double precision": "float8send",
    "timestamp without time zone": "timestamp_send",
    "timestamp with time zone": "timestamptz_send",
    "time without time zone": "time_send",
    "interval": "interval_send",
}
_LENGTH = re.compile(r"\([0-9, ]*\)")


def base_type(sql_type: str) -> str:
    """The name of a type without length, precision and scale, in lower case."""
    return " ".join(_LENGTH.sub(" ", sql_type).lower().split())


def image(expression: str, sql_type: str) -> str:
    """SQL for what goes into a hash of `expression`, whose type has the name `sql_type` (as `format_type` writes it)."""
    kind = base_type(sql_type)
    if kind in _AS_THEY_ARE:
        return expression
    if kind in _SENT:
        return f"{_SENT[kind]}({expression})"
    return f'({expression})::text COLLATE "C"'


def record_hash(images: list[str], *, salt: int = 0) -> str:
    """SQL for a 64-bit hash (bigint) of a row of images; the same on every server from PostgreSQL 14 on.

    `hash_record` is linear in the hashes of the fields (31 times the one before, plus this one). Summed over rows it would
    be blind to values that have changed places between rows. `hashint4extended` with it as its seed is not linear.
    """
    return f"hashint4extended({salt}, hash_record_extended(ROW({', '.join(images)}), 0))"
