"""What tests of the demos ask."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from backend.shared.testing.programs import STATE_VARIABLE


def left_over_processes(state: Path) -> Sequence[str]:
    """Command lines of processes that belong to a demo in `state`; but for its watchdog, which ends a moment later."""
    found = []
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
            ours = process.environ().get(STATE_VARIABLE) == str(state)
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue
        mentions = any(str(state) in argument for argument in command)
        if mentions or (
            ours and process.pid != os.getpid() and "backend.shared.testing.watchdog" not in command
        ):
            found.append(" ".join(command))
    return found


def wait_for(condition: Callable[[], bool], *, seconds: float) -> None:
    """Until `condition` holds, or time is over."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.1)
