"""What is done to values before a collector gets them."""

from __future__ import annotations

import math
from enum import StrEnum

from prometheus_client import Gauge


def set_state(gauge: Gauge, labels: tuple[str, ...], *, kind: type[StrEnum], value: str) -> None:
    """1 for the state that holds, 0 for each other one of its kind."""
    for state in kind:
        gauge.labels(*labels, state.value).set(1 if state == value else 0)


def not_negative(seconds: float) -> float:
    """A duration that no histogram breaks on, whatever clock was set back."""
    return seconds if math.isfinite(seconds) and seconds > 0 else 0.0
