"""What became of a transaction whose COMMIT was never answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import asyncpg

from backend.legacy_shop.old_operations import Change
from backend.legacy_shop.old_writes import KEYS

QUESTION_TIMEOUT_SECONDS = 5.0


async def has_committed(connection: Any, *, xid: str, changes: Sequence[Change], poll_seconds: float) -> bool:
    """Wait until the transaction is over, and say whether the server kept it.

    The number alone does not tell: a server that crashed may give it out again, to somebody else's transaction. So the
    rows are looked at too. Nobody but the old program writes those columns, or else they are no longer its own to tell.
    """
    while (status := await _status(connection, xid=xid)) == "in progress":  # noqa: ASYNC110 - the server rings no bell
        await asyncio.sleep(poll_seconds)
    if status == "aborted":
        return False
    return all([await _is_there(connection, change=change) for change in changes])


async def _status(connection: Any, *, xid: str) -> str | None:
    """None when the server has forgotten. A number that it has not given out yet was lost in a crash."""
    try:
        status = await connection.fetchval(
            "SELECT pg_xact_status($1::text::xid8)", xid, timeout=QUESTION_TIMEOUT_SECONDS
        )
    except asyncpg.InvalidParameterValueError:
        return "aborted"
    return None if status is None else str(status)


async def _is_there(connection: Any, *, change: Change) -> bool:
    found = await connection.fetchval(
        f"SELECT to_jsonb(t.*) FROM {change.table} t WHERE {KEYS[change.table]} = $1",
        change.key,
        timeout=QUESTION_TIMEOUT_SECONDS,
    )
    if change.deleted or found is None:
        return change.deleted and found is None
    row = json.loads(found)
    return all(row[column] == value for column, value in change.values.items())
