"""What capture and fence have in common: triggers per statement, each with its function."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

LONGEST_NAME = 63
"""PostgreSQL cuts a longer one without a word, and then two triggers would share a name."""
OPERATIONS = ("insert", "update", "delete", "truncate")


@dataclass(frozen=True, kw_only=True)
class InstalledTrigger:
    """One trigger with its function. Several may share a function."""

    name: str
    table: str
    function_sql: str
    trigger_sql: str


def bounded_name(name: str) -> str:
    """`name`, or its beginning with a hash of the whole where it is too long for an identifier."""
    if len(name.encode()) <= LONGEST_NAME:
        return name
    return f"{name.encode()[: LONGEST_NAME - 13].decode(errors='ignore')}_{hashlib.sha256(name.encode()).hexdigest()[:12]}"
