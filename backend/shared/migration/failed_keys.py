"""FAILED keys at a cutover: they become conflicts, which keep what both sides hold (R7).

Whatever could not be carried from a side is part of its authoritative state. When that side is closed the state would be
overwritten by the next carry the other way; so both states are kept, in the transaction that closes it, until somebody decides.
"""

from __future__ import annotations

from backend.shared.domain.errors import ConflictError
from backend.shared.domain.phases import Side
from backend.shared.journal.conflict_records import FailedKey, OpenFailureKey
from backend.shared.runtime import ServiceRuntime
from backend.shared.stores.postgres.projection_sql import table_name
from backend.shared.stores.side import Connection

BATCH_KEYS = 500
MOST_KEYS = 20_000
"""Writers wait while it is done: 3.3 s for so many on a busy machine, less than a unit is patient with a closed side."""
CLOSED_BY = "cutover"


async def keep_failed_keys(
    runtime: ServiceRuntime, closing: Connection, opening: Connection, *, side: Side
) -> int:
    """Make conflicts of the FAILED keys of `side`, in the transaction of `closing`; answers how many there were.

    Both connections hold the fence locks of their sides alone, so that nothing changes meanwhile. One query where there is
    none. Raises `ConflictError` where there are more than `MOST_KEYS`.
    """
    repository = runtime.stores[side].conflicts
    count = after = 0
    while page := await repository.open_failures(closing, after_id=after, limit=BATCH_KEYS):
        count, after = count + len(page), page[-1].id
        if count > MOST_KEYS:
            raise ConflictError(
                f"more than {MOST_KEYS} keys could not be carried: mend the rule that refuses them, and "
                f"`tandem retry {runtime.service}`"
            )
        await repository.keep_failed(
            closing, await _with_states(runtime, page, closing, opening, side=side), side=side, by=CLOSED_BY
        )
    return count


async def _with_states(
    runtime: ServiceRuntime,
    page: list[OpenFailureKey],
    closing: Connection,
    opening: Connection,
    *,
    side: Side,
) -> list[FailedKey]:
    found = []
    for name in dict.fromkeys(failure.entity for failure in page):
        failures = [failure for failure in page if failure.entity == name]
        keys = [failure.key for failure in failures]
        here: dict[str, dict[str, str]] = {}
        there: dict[str, dict[str, str]] = {}
        table = ""
        if name in runtime.catalog:  # else it was mapped once
            entity = runtime.catalog[name]
            table = table_name(entity.sources(side)[0].table)
            here = await runtime.stores[side].state.stored_rows(closing, entity, keys)
            there = await runtime.stores[side.other].state.stored_rows(opening, entity, keys)
        found += [
            FailedKey(
                failure_id=failure.id,
                entity=name,
                key=failure.key,
                source_table=table,
                reason=failure.reason,
                there=there.get(failure.key, {}),
                here=here.get(failure.key, {}),
            )
            for failure in failures
        ]
    return found
