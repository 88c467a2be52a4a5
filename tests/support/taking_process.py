"""A process of a consumer that takes one message and never acknowledges it.

    python -m tests.support.taking_process URL NAME CONSUMER

It says `taken` when it has it, and then does nothing more until it is killed.
"""

from __future__ import annotations

import asyncio
import sys

from backend.shared.events.transport import transport_for
from tests.support.broker_room import SILENT_SECONDS, Rang


async def _listen(url: str, name: str, consumer: str) -> None:
    async def take(_body: bytes) -> None:
        sys.stdout.write("taken\n")
        sys.stdout.flush()
        await asyncio.Event().wait()

    transport = transport_for(url, name=name, silent_seconds=SILENT_SECONDS)
    transport.subscribe(consumer, (Rang,), take)
    await transport.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_listen(*sys.argv[1:]))
