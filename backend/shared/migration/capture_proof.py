"""By which tokens capture on the authoritative side is known to have been whole since the other side was made equal."""

from __future__ import annotations

from sqlalchemy.ext.asyncio import AsyncConnection

from backend.shared.journal.marks import MarkRepository
from backend.shared.migration.backfill_state import BackfillRepository, Stage
from backend.shared.runtime import ServiceRuntime


async def whole_since(
    runtime: ServiceRuntime, *, source: AsyncConnection, target: AsyncConnection
) -> frozenset[str]:
    """The token of capture as it was when `source` was opened, and that of a backfill to `target` that is complete.

    Capture that bears another one by now has had a gap, and a change may be missing on the target.
    """
    tokens = {(await MarkRepository(runtime.names).read(source)).capture_token}
    progress = await BackfillRepository(runtime.names).progress(target)
    copied = [progress.get(entity.name) for entity in runtime.catalog.ordered]
    if copied and all(item is not None and item.stage is Stage.COMPLETE for item in copied):
        # What a backfill keeps is the token and, behind a colon, the mapping's print.
        found = {item.capture.partition(":")[0] for item in copied if item is not None}
        if len(found) == 1:
            tokens |= found
    return frozenset(tokens - {""})
