"""The driver's waits on Python 3.11, where its locks and its callers' timeouts do not outlive every cancellation.

PyMongo waits for a condition, and for a command to be sent, by `asyncio.wait_for`, which on Python 3.11 does what is waited
for in a task of its own. Whoever is cancelled while that task takes a condition's lock back, and is cancelled again, goes on
without it: the lock is then released twice ("cannot wait on un-acquired lock"), or never, and the client answers nobody any more
until the process ends. And whoever is cancelled at the moment in which a command has been sent is not cancelled at all: a
timeout is lost. Both were seen with PyMongo 4.20. From Python 3.12 on `wait_for` waits in the caller's own task
(python/cpython#96764). Decision 20.
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


async def send_in_own_task(connection: Any, message: bytes) -> None:
    """What the driver's `async_sendall` promises."""
    try:
        async with asyncio.timeout(connection.gettimeout):
            await connection.write(message)
    except TimeoutError as error:
        raise TimeoutError("timed out") from error


def mend_driver_waits() -> None:
    """Let the driver wait as it does on later versions of Python. May be repeated; changes nothing from 3.12 on."""
    if sys.version_info >= (3, 12):
        return
    from pymongo.asynchronous import pool, topology  # noqa: PLC0415 - needed here alone

    mended = (
        (pool, "_async_cond_wait", wait_in_own_task),
        (topology, "_async_cond_wait", wait_in_own_task),
        (pool, "async_sendall", send_in_own_task),
    )
    for module, name, wait in mended:
        # A driver that no longer has it waits in some other way, which is not ours to mend.
        if hasattr(module, name):
            setattr(module, name, wait)
