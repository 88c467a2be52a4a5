"""What capture and fence have in common: triggers per statement, each with its function."""

from __future__ import annotations

from dataclasses import dataclass

OPERATIONS = ("insert", "update", "delete", "truncate")


@dataclass(frozen=True, kw_only=True)
class InstalledTrigger:
    """One trigger with its function. Several may share a function."""

    name: str
    table: str
    function_sql: str
    trigger_sql: str
