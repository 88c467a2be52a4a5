"""The driver's waits on Python 3.11, where being cancelled twice leaves its locks in disorder.

PyMongo waits for a condition by `asyncio.wait_for`, which on Python 3.11 runs the wait in a task of its own. Whoever is
cancelled while that task takes the lock back, and is cancelled again, goes on without it: the lock is then released twice
("cannot wait on un-acquired lock"), or never, and the client answers nobody any more until the process ends. Seen with
PyMongo 4.20 when a server went down under a backfill. From Python 3.12 on `wait_for` waits in the caller's own task, and a
condition takes its lock back however often it is cancelled (python/cpython#96764).
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any


async def wait_in_own_task(condition: Any, timeout: float | None) -> bool:  # noqa: ASYNC109 - the driver calls it so
    """What the driver's `_async_cond_wait` promises: True when notified, False after `timeout` seconds, the lock held."""
    try:
        async with asyncio.timeout(timeout):
            await condition.wait()
    except TimeoutError:
        return False
    return True


def mend_driver_waits() -> None:
    """Let the driver wait as it does on later versions of Python. May be repeated; changes nothing from 3.12 on."""
    if sys.version_info >= (3, 12):
        return
    from pymongo.asynchronous import pool, topology  # noqa: PLC0415 - needed here alone

    for module in (pool, topology):
        # A driver that no longer has it waits in some other way, which is not ours to mend.
        if hasattr(module, "_async_cond_wait"):
            module._async_cond_wait = wait_in_own_task  # type: ignore[attr-defined]  # noqa: SLF001
