"""What commands need to know of the stack that they are typed at."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class Workplace(Protocol):
    """A stack, as an operator sees it."""

    @property
    def logs(self) -> Path:
        """Where the processes' logs lie."""
        ...

    def env_of(self, service: str) -> dict[str, str]:
        """The environment of a process that works for a service."""
        ...
