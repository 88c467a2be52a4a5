"""Ends the children of a process that was killed.

The death of a parent can be seen on any system as the end of a pipe, and unlike Linux's parent-death signal that also
holds for children that were started from a thread which has ended since.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from typing import IO

import psutil


def kill_tree(process: psutil.Process) -> None:
    """Kill a process and its descendants, suspended ones included. Gone ones are passed over."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process.suspend()  # so that it starts no more children while we look at them
        family = [process, *process.children(recursive=True)]
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        psutil.wait_procs(family, timeout=10)


class Watchdog:
    """A process that outlives this one for a moment, and kills what this one has not ended itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pipe: IO[bytes] | None = None

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
                self._pipe.write(line.encode())
                self._pipe.flush()

    @staticmethod
    def _start() -> IO[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # out of reach of Ctrl-C
        )
        assert process.stdin is not None
        process.returncode = 0  # it ends after us, so nobody waits for it
        return process.stdin


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
