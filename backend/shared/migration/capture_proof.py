"""By which tokens capture on the authoritative side is known to have been whole since the other side was made equal."""

from __future__ import annotations

from backend.shared.domain.phases import Side
from backend.shared.migration.backfill_state import Stage
from backend.shared.migration.progress import progress_towards
from backend.shared.runtime import ServiceRuntime
from backend.shared.stores.side import Connection


async def whole_since(runtime: ServiceRuntime, source: Connection, *, side: Side) -> frozenset[str]:
    """The token of capture as it was when `side` was opened, and that of a backfill from it that is complete.

    Capture that bears another one by now has had a gap, and a change may be missing on the target.
    """
    tokens = {(await runtime.stores[side].marks.read(source)).capture_token}
    progress = await progress_towards(runtime, side.other)
    copied = [progress.get(entity.name) for entity in runtime.catalog.ordered]
    if copied and all(item is not None and item.stage is Stage.COMPLETE for item in copied):
        # What a backfill keeps is the token and, behind a colon, the mapping's print.
        found = {item.capture.partition(":")[0] for item in copied if item is not None}
        if len(found) == 1:
            tokens |= found
    return frozenset(tokens - {""})
