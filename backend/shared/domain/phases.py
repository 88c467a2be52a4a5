"""The six phases and the one policy table that says what each of them means.

The names are those of LaunchDarkly's migration stages. Everything that asks "who is authoritative?" asks here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Side(StrEnum):
    """One of the two databases of a service."""

    LEGACY = "legacy"
    NEW = "new"

    @property
    def other(self) -> Side:
        """The opposite side."""
        return Side.NEW if self is Side.LEGACY else Side.LEGACY


class Direction(StrEnum):
    """Which way state is carried."""

    TO_NEW = "to_new"
    TO_LEGACY = "to_legacy"

    @property
    def source(self) -> Side:
        """The side that state is read from."""
        return self.target.other

    @property
    def target(self) -> Side:
        """The side that state is written to."""
        return Side.NEW if self is Direction.TO_NEW else Side.LEGACY

    @classmethod
    def towards(cls, target: Side) -> Direction:
        """The direction whose target is `target`."""
        return cls.TO_NEW if target is Side.NEW else cls.TO_LEGACY


class Capture(StrEnum):
    """Who writes the journal."""

    TRIGGER = "trigger"
    """A trigger on every table that a projection reads: it catches other programs' writes too."""
    UNIT = "unit"
    """The unit of work, where no trigger can be installed. Other programs' writes are then not seen."""
    STREAM = "stream"
    """Triggers on PostgreSQL; on MongoDB the unit of work, and a change stream for what other programs write."""


class Phase(StrEnum):
    """How far a service has moved. One row in the database says which phase holds."""

    OFF = "off"
    DUALWRITE = "dualwrite"
    SHADOW = "shadow"
    LIVE = "live"
    RAMPDOWN = "rampdown"
    COMPLETE = "complete"

    @property
    def policy(self) -> PhasePolicy:
        """What this phase means for reads and writes."""
        return POLICIES[self]

    @property
    def up(self) -> Phase | None:
        """The next phase, on the way to `complete`."""
        order = list(Phase)
        return order[order.index(self) + 1] if self is not Phase.COMPLETE else None

    @property
    def down(self) -> Phase | None:
        """The phase before. None for `off`, and for `complete`, which is left by no way."""
        order = list(Phase)
        return order[order.index(self) - 1] if self not in (Phase.OFF, Phase.COMPLETE) else None

    def is_above(self, other: Phase) -> bool:
        """Whether this phase is further on the way to `complete` than `other`."""
        order = list(Phase)
        return order.index(self) > order.index(other)

    def way_to(self, to: Phase) -> list[Phase]:
        """The phases to go through, one step each, `to` at the end; empty if it is this one.

        Raises `ValueError` for a way that leaves `complete`.
        """
        way: list[Phase] = []
        at = self
        while at is not to:
            following = at.up if to.is_above(at) else at.down
            if following is None:
                raise ValueError(f"there is no way from {self.value} to {to.value}")
            way.append(following)
            at = following
        return way


@dataclass(frozen=True, kw_only=True)
class PhasePolicy:
    """One line of the phase table."""

    authoritative: Side
    dual: bool
    """Whether changes are carried to the other side."""
    compares_reads: bool
    """Whether a read is also asked of the other side and compared."""

    ramps_reads: bool = False
    """Whether a share of the reads may be answered by the secondary side already."""

    def moves_authority_to(self, phase: Phase) -> bool:
        """Whether the way from here to `phase` moves the authority."""
        return phase.policy.authoritative is not self.authoritative

    @property
    def captures(self) -> bool:
        """Whether changes are journalled: as long as they are carried."""
        return self.dual

    @property
    def validates(self) -> bool:
        """Whether the two sides are meant to be equal, so that to compare them says something."""
        return self.dual

    @property
    def secondary(self) -> Side | None:
        """The side that is written second, if any is."""
        return self.authoritative.other if self.dual else None

    @property
    def direction(self) -> Direction | None:
        """Which way changes are carried, if they are."""
        return Direction.towards(self.authoritative.other) if self.dual else None


POLICIES: dict[Phase, PhasePolicy] = {
    Phase.OFF: PhasePolicy(authoritative=Side.LEGACY, dual=False, compares_reads=False),
    Phase.DUALWRITE: PhasePolicy(authoritative=Side.LEGACY, dual=True, compares_reads=False),
    Phase.SHADOW: PhasePolicy(authoritative=Side.LEGACY, dual=True, compares_reads=True, ramps_reads=True),
    Phase.LIVE: PhasePolicy(authoritative=Side.NEW, dual=True, compares_reads=True),
    Phase.RAMPDOWN: PhasePolicy(authoritative=Side.NEW, dual=True, compares_reads=False),
    Phase.COMPLETE: PhasePolicy(authoritative=Side.NEW, dual=False, compares_reads=False),
}
