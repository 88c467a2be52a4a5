"""Ends the children of a process that was killed.

The death of a parent can be seen on any system as the end of a pipe, and unlike Linux's parent-death signal that also
holds for children that were started from a thread which has ended since.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time

import psutil

_KILL_TIMEOUT_SECONDS = 10.0
_POLL_SECONDS = 0.005


def kill_tree(process: psutil.Process) -> None:
    """Kill a process and its descendants, suspended ones included, and wait for their end. Gone ones are passed over."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.suspend()  # so that it starts no more children while we look at them
        family = [process, *process.children(recursive=True)]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        # Descendants end up with another parent, which may take its time to collect them: a zombie is dead enough.
        deadline = time.monotonic() + _KILL_TIMEOUT_SECONDS
        while any(_is_alive(member) for member in family) and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)


def _is_alive(process: psutil.Process) -> bool:
    try:
        if not process.is_running():
            return False
        # A zombie whose other threads are still on their way out holds its ports and files.
        return process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1
    except psutil.NoSuchProcess:
        return False


class Watchdog:
    """A process that outlives this one for a moment, and kills what this one has not ended itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipe: int | None = None  # a bare number: it is to stay open until the very end

    def watch(self, pid: int) -> None:
        """Kill `pid` and its descendants should this process end first."""
        self._tell(f"watch {pid}\n")

    def forget(self, pid: int) -> None:
        """Let `pid` go: it has ended."""
        self._tell(f"forget {pid}\n")

    def _tell(self, line: str) -> None:
        with self._lock:
            if self._pipe is None:
                self._pipe = self._start()
            with contextlib.suppress(BrokenPipeError):  # somebody killed the watchdog; nothing depends on it
                os.write(self._pipe, line.encode())

    @staticmethod
    def _start() -> int:
        far_end, near_end = os.pipe()
        process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=far_end,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # out of reach of Ctrl-C
        )
        process.returncode = 0  # it ends after us, so nobody waits for it
        os.close(far_end)
        return near_end


def main() -> None:
    watched: dict[int, psutil.Process] = {}
    for line in sys.stdin:
        verb, _, pid = line.partition(" ")
        with contextlib.suppress(psutil.NoSuchProcess, ValueError):
            if verb == "watch":
                watched[int(pid)] = psutil.Process(int(pid))
            else:
                watched.pop(int(pid), None)
    for process in watched.values():
        if process.is_running():  # and is the same one, not another under its number
            kill_tree(process)


WATCHDOG = Watchdog()

if __name__ == "__main__":
    main()
