"""A process that reads the change stream of the task service, and kills itself (SIGKILL) on the way.

    python -m tests.support.listening_process STEP TIMES

The databases are in LEGACY_URL and NEW_URL. It says `listening`, and dies at the TIMES-th passing of STEP.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from backend.shared import DualWriteSettings, Phase, Side
from tests.support.task_pair import StreamingTaskManager


async def _listen(step: str, times: int) -> None:
    passed = 0

    async def hook(reached: str) -> None:
        nonlocal passed
        passed += reached == step
        if passed == times:
            os.kill(os.getpid(), signal.SIGKILL)

    manager = StreamingTaskManager(
        settings=DualWriteSettings(
            service="task",
            legacy_database_url=os.environ["LEGACY_URL"],
            database_url=os.environ["NEW_URL"],
            phase=Phase.LIVE,
        ),
        hook=hook,
    )
    manager.counted = False
    await manager.start()
    stream = manager.runtime.stores[Side.LEGACY].change_stream
    if stream is None:
        raise AssertionError("there is no stream")
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    await stream.run(asyncio.Event(), paused=lambda: False)


if __name__ == "__main__":
    asyncio.run(_listen(sys.argv[1], int(sys.argv[2])))
