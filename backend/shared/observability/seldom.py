"""Lines that would fill a log if each of them were written."""

from __future__ import annotations

import time
from dataclasses import dataclass


@dataclass
class Seldom:
    """Lets one through every `seconds`, and remembers how many it has not."""

    seconds: float
    _quiet_until: float = 0.0
    _left_out: int = 0

    def left_out(self) -> int | None:
        """How many were kept back since the last one that was let through; None if this one is kept back too."""
        now = time.monotonic()
        if now < self._quiet_until:
            self._left_out += 1
            return None
        self._quiet_until = now + self.seconds
        count, self._left_out = self._left_out, 0
        return count
