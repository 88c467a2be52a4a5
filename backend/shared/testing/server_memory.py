"""Shared memory of PostgreSQL servers that were killed: the kernel keeps it until somebody removes it, and has room for so many only.

Each server holds one small segment (System V), by which a second one for the same data would notice it. It removes that when it ends,
or a later one does that takes up the same data. Of data that is deleted after `kill -9` nobody would: after some thousand the machine
starts no server any more ("could not create shared memory segment: No space left on device").
"""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_TABLE = Path("/proc/sysvipc/shm")
_PID_FILE = "postmaster.pid"
_SEGMENT_LINE = 6  # of that file: key and id; see miscadmin.h of PostgreSQL
_KEYS = 2**32  # they are shown as signed numbers, and written down as unsigned ones of 64 bits
_IPC_RMID = 0  # the same on Linux, macOS and the BSDs


@dataclass(frozen=True)
class Segment:
    """A segment of shared memory: the key that it was made by, and its number."""

    key: int
    number: int


def segment_of(data: Path) -> Segment | None:
    """The segment of the server that runs on `data`, or was killed there; None after one that has ended by itself."""
    try:
        key, number = (data / _PID_FILE).read_text().splitlines()[_SEGMENT_LINE].split()
        return Segment(int(key) % _KEYS, int(number))
    except (OSError, IndexError, ValueError):
        return None


def unused_segments() -> Iterator[Segment]:
    """Those that no process has any more. Linux lists them; elsewhere there are none to be seen."""
    try:
        head, *rows = _TABLE.read_text().splitlines()
    except (OSError, ValueError):
        return
    names = head.split()
    for row in rows:
        found = dict(zip(names, row.split(), strict=False))
        if found.get("nattch") == "0":
            yield Segment(int(found["key"]) % _KEYS, int(found["shmid"]))


def remove_with_servers(folder: Path) -> None:
    """Delete `folder`, and the shared memory of the servers that were killed on data beneath it."""
    # Unlike Path.rglob, it does not mind that somebody else deletes the same.
    left = {segment_of(Path(path)) for path, _, files in os.walk(folder) if _PID_FILE in files}
    for segment in unused_segments():
        if segment in left:
            # Whoever may not do that leaves it where it is.
            ctypes.CDLL(None).shmctl(segment.number, _IPC_RMID, None)
    shutil.rmtree(folder, ignore_errors=True)
