"""Names of what Tandem keeps inside a side's database: one schema per service."""

from __future__ import annotations

import re
from dataclasses import dataclass

from backend.shared.domain.errors import ConfigurationError
from backend.shared.domain.phases import Direction

CARRY_SETTING = "tandem.carry"
"""Transaction-local setting that marks Tandem's own carries: `service:direction:epoch`."""
UNIT_SETTING = "tandem.unit"
"""Transaction-local setting that marks a unit of work of the engine; its value is the request id."""
FENCE_CLASS = 0x7A4D
"""First half of the two-part advisory lock number that is a service's fence lock; the second is hashed from the name."""


@dataclass(frozen=True)
class EngineNames:
    """Names in the schema of one service."""

    service: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]{0,30}", self.service):
            raise ConfigurationError(
                f"{self.service!r} is no service name: lower-case letters, digits and _ only"
            )

    @property
    def schema(self) -> str:
        """The schema of this service on either side."""
        return f"tandem_{self.service}"

    @property
    def journal(self) -> str:
        """Keys changed and not yet carried over."""
        return f"{self.schema}.journal"

    @property
    def guard(self) -> str:
        """Per key, the position of the state that was last written here."""
        return f"{self.schema}.guard"

    @property
    def mark(self) -> str:
        """Whether this side is open or closed, and in which epoch."""
        return f"{self.schema}.mark"

    @property
    def failure(self) -> str:
        """Keys that could not be carried."""
        return f"{self.schema}.failure"

    @property
    def control(self) -> str:
        """The phase row and the run-time settings; on the new side only."""
        return f"{self.schema}.control"

    @property
    def installation(self) -> str:
        """What was installed here, by fingerprint."""
        return f"{self.schema}.installation"

    @property
    def fence_lock(self) -> str:
        """SQL arguments of the advisory lock that is this service's fence."""
        return f"{FENCE_CLASS}, hashtext('{self.schema}')"

    def carry_mark(self, direction: Direction, epoch: int) -> str:
        """The value of `CARRY_SETTING` for a carry."""
        return f"{self.service}:{direction.value}:{epoch}"
