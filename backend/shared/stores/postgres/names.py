"""Names of what Tandem keeps inside a side's database: one schema per service."""

from __future__ import annotations

import re
from dataclasses import dataclass

from backend.shared.domain.errors import ConfigurationError
from backend.shared.domain.phases import Direction

CARRY_SETTING = "tandem.carry"
"""Transaction-local setting that marks Tandem's own carries: `service:direction:epoch`."""
UNIT_SETTING = "tandem.unit"
"""Transaction-local setting that marks a unit of work of the engine: `service:request id`."""
FENCE_CLASS = 0x7A4D
"""First half of the two-part advisory lock number that is a service's fence lock; the second is hashed from the name."""

CARRY_CLASS = 0x7A4E
"""The same, of the lock by which a backfill waits for the carries that are under way."""


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
    def guard_floor(self) -> str:
        """Per entity, the position of the latest chunk that was copied to here."""
        return f"{self.schema}.guard_floor"

    @property
    def backfill(self) -> str:
        """How far a backfill of each entity has come."""
        return f"{self.schema}.backfill"

    @property
    def backfill_chunk(self) -> str:
        """Ranges handed out to be copied."""
        return f"{self.schema}.backfill_chunk"

    @property
    def backfill_control(self) -> str:
        """What a running backfill is told, and says of itself."""
        return f"{self.schema}.backfill_control"

    @property
    def validation_run(self) -> str:
        """Comparisons of both sides; on the new side only."""
        return f"{self.schema}.validation_run"

    @property
    def validation_entity(self) -> str:
        """One entity of a comparison; on the new side only."""
        return f"{self.schema}.validation_entity"

    @property
    def mismatch(self) -> str:
        """Keys that differ, or did; on the new side only."""
        return f"{self.schema}.mismatch"

    @property
    def repair(self) -> str:
        """Which key was repaired by whom, and why; on the new side only."""
        return f"{self.schema}.repair"

    @property
    def carry_lock(self) -> str:
        """SQL arguments of the advisory lock that every carry holds in share mode.

        To get it alone is to have waited for all carries that were under way.
        """
        return f"{CARRY_CLASS}, hashtext('{self.schema}')"

    @property
    def fence_lock(self) -> str:
        """SQL arguments of the advisory lock that is this service's fence."""
        return f"{FENCE_CLASS}, hashtext('{self.schema}')"

    @property
    def conflict(self) -> str:
        """What foreign programs wrote to this side while it was closed."""
        return f"{self.schema}.conflict"

    @property
    def stranded(self) -> str:
        """Keys that were written on this side alone."""
        return f"{self.schema}.stranded"

    @property
    def settlement(self) -> str:
        """Which conflicts were settled by a write to this side."""
        return f"{self.schema}.settlement"

    @property
    def phase_change(self) -> str:
        """Every change of the phase row; on the new side only."""
        return f"{self.schema}.phase_change"

    @property
    def replica(self) -> str:
        """Processes of the service, and what they go by; on the new side only."""
        return f"{self.schema}.replica"

    @property
    def shadow_read(self) -> str:
        """Reads that were also asked of the other side; on the new side only."""
        return f"{self.schema}.shadow_read"

    @property
    def foreign_setting(self) -> str:
        """Transaction-local setting by which the fence tells capture that a foreign program writes to a closed side."""
        return f"tandem.foreign_{self.service}"

    def unit_mark(self, request_id: str) -> str:
        """The value of `UNIT_SETTING` for a unit of work."""
        return f"{self.service}:{request_id}"

    def carry_mark(self, direction: Direction, epoch: int) -> str:
        """The value of `CARRY_SETTING` for a carry."""
        return f"{self.service}:{direction.value}:{epoch}"
