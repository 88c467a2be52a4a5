"""A process that delivers what the people service has told, and is killed on the way.

    python -m tests.support.delivering_process KEPT

The database is in LEGACY_URL. Its broker keeps the first KEPT messages, and says the id of each; with the next one the process
kills itself (SIGKILL).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from backend.shared import Side
from backend.shared.database import create_side_engine
from backend.shared.events.delivery import Delivery
from backend.shared.events.envelope import Envelope
from tests.support.publishing import Publishing
from tests.support.telling import ROOM


async def _deliver(kept: int) -> None:
    done = 0

    async def keep(envelope: Envelope) -> None:
        nonlocal done
        if done == kept:
            os.kill(os.getpid(), signal.SIGKILL)
        done += 1
        sys.stdout.write(f"{envelope.id}\n")
        sys.stdout.flush()

    engine = create_side_engine(os.environ["LEGACY_URL"], application_name="test")
    await Delivery(engine, ROOM.tables[Side.LEGACY], Publishing(keep)).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_deliver(int(sys.argv[1])))
