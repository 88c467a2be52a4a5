"""What a running stack leaves in its folder, so that other programs find it: `stack.json` and `stack.env`."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Self

import psutil

_TERMINATE_SECONDS = 15.0
# Two readings of one process's start differ by rounding only.
_SAME_START_SECONDS = 0.5


@dataclass(frozen=True)
class RecordedProcess:
    """A process by its number and the time it started at, for numbers are used again."""

    pid: int
    started_at: float

    @classmethod
    def of(cls, pid: int) -> Self:
        return cls(pid=pid, started_at=psutil.Process(pid).create_time())

    def find(self) -> psutil.Process | None:
        """The process, if it still runs."""
        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.started_at) < _SAME_START_SECONDS
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


@dataclass(frozen=True)
class StackRecord:
    """The processes of a stack that runs detached, and the addresses of its services."""

    processes: Mapping[str, RecordedProcess]
    urls: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """The record in `path`; None where there is none, or none that can be read."""
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            processes = {name: RecordedProcess(**process) for name, process in raw["processes"].items()}
            return cls(processes=processes, urls=dict(raw["urls"]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def save(self, path: Path) -> None:
        write_private(path, json.dumps(asdict(self), indent=2) + "\n")

    @property
    def is_running(self) -> bool:
        """Whether every process of the stack still runs."""
        return bool(self.processes) and all(process.find() for process in self.processes.values())

    def stop(self) -> None:
        """End all processes: SIGTERM, and after 15 s SIGKILL."""
        alive = [found for process in self.processes.values() if (found := process.find())]
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
                process.terminate()
        _, stubborn = psutil.wait_procs(alive, timeout=_TERMINATE_SECONDS)
        for process in stubborn:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step; only its owner may read it."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    partial.replace(path)
