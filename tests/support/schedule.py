"""The steps of which schedules are generated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from hypothesis import strategies as st

from backend.shared import Side
from tests.support.changes import (
    CORRUPT,
    FOREIGN,
    Change,
    DropNote,
    DropPerson,
    PutNote,
    PutPerson,
    Rekey,
    SwapMails,
)
from tests.support.play import ACTORS_MOST, Play

RELAY_STEPS = (
    "after_claim",
    "after_read",
    "before_target_commit",
    "after_target_commit",
    "before_source_commit",
)
WRITE_STEPS = (
    "after_guards_locked",
    "after_trial",
    "before_first_commit",
    "after_first_commit",
    "after_final_read",
    "before_second_commit",
    "after_second_commit",
)
BACKFILL_STEPS = (
    "backfill_after_hand_out",
    "backfill_after_lock",
    "backfill_after_snapshot",
    "backfill_before_commit",
    "backfill_after_commit",
)
REPAIR_STEPS = ("repair_looked", "after_read", "before_target_commit")


class Step(Protocol):
    """Something that happens."""

    async def __call__(self, play: Play) -> None: ...


@dataclass(frozen=True)
class Write:
    """A unit of work that is only carried later."""

    unit: tuple[Change, ...]

    async def __call__(self, play: Play) -> None:
        await play.act("write", partial(play.write, play.world.asynchronous, self.unit))


@dataclass(frozen=True)
class WriteBoth:
    """A unit of work with both writes in the call."""

    unit: tuple[Change, ...]
    stops_at: str | None
    crashes: bool

    async def __call__(self, play: Play) -> None:
        work = partial(play.write, play.world.synchronous, self.unit)
        await play.act("write", work, step=self.stops_at, crashes=self.crashes)


@dataclass(frozen=True)
class StrangerWrites:
    """Another program writes the authoritative side."""

    what: str
    a: int
    b: int

    async def __call__(self, play: Play) -> None:
        side = play.world.source
        await play.act("stranger", partial(play.stranger, side, FOREIGN[side][self.what], a=self.a, b=self.b))


@dataclass(frozen=True)
class Corrupt:
    """Another program writes the secondary."""

    what: str
    a: int
    b: int

    async def __call__(self, play: Play) -> None:
        side = play.world.target
        await play.act("stranger", partial(play.stranger, side, CORRUPT[side][self.what], a=self.a, b=self.b))


@dataclass(frozen=True)
class Relay:
    """One pass of a relay, over few keys or many."""

    small: bool
    stops_at: str | None
    crashes: bool

    async def __call__(self, play: Play) -> None:
        manager = play.world.synchronous if self.small else play.world.asynchronous
        await play.act("relay", partial(play.relay, manager), step=self.stops_at, crashes=self.crashes)


@dataclass(frozen=True)
class Copy:
    """A backfill, with `chunk_rows` to begin with; it stops at the `passing`th time that it comes to a step."""

    chunk_rows: int
    stops_at: str | None
    passing: int
    crashes: bool

    async def __call__(self, play: Play) -> None:
        work = partial(play.backfill, self.chunk_rows)
        await play.act("backfill", work, step=self.stops_at, passing=self.passing, crashes=self.crashes)


@dataclass(frozen=True)
class Validate:
    """A validator, which compares all keys or those that have changed."""

    changed: bool
    stops_at: str | None
    crashes: bool

    async def __call__(self, play: Play) -> None:
        alone = not play.under_way and self.stops_at is None
        work = partial(play.validate, changed=self.changed, alone=alone)
        await play.act("validator", work, step=self.stops_at, crashes=self.crashes)


@dataclass(frozen=True)
class Repair:
    """A repair of what the last validators have found."""

    stops_at: str | None
    crashes: bool

    async def __call__(self, play: Play) -> None:
        await play.act("repair", play.repair, step=self.stops_at, crashes=self.crashes)


@dataclass(frozen=True)
class LetGo:
    """One of those that are held goes on, or dies."""

    which: int
    crash: bool

    async def __call__(self, play: Play) -> None:
        await play.let_go(self.which, crash=self.crash)


@dataclass(frozen=True)
class LetAllGo:
    """All that are held go on, one after the other."""

    newest_first: bool

    async def __call__(self, play: Play) -> None:
        await play.let_all_go(newest_first=self.newest_first)


@dataclass(frozen=True)
class CutoverBegins:
    """The secondary is opened, and closed again."""

    stops_at: str | None

    async def __call__(self, play: Play) -> None:
        await play.act("cutover", play.begin_of_a_cutover, step=self.stops_at)


@dataclass(frozen=True)
class Cut:
    """All connections of the engine to a side end."""

    side: Side

    async def __call__(self, play: Play) -> None:
        await play.cut(self.side)


_keys = st.integers(1, 3)
_crashes = st.sampled_from([False, False, False, True])
_units = st.lists(
    st.one_of(
        st.builds(PutPerson, _keys, st.none() | st.integers(1, 3), st.booleans()),
        st.builds(PutNote, _keys, _keys),
        st.builds(DropPerson, _keys),
        st.builds(DropNote, _keys),
        st.builds(SwapMails, _keys, _keys),
        st.builds(Rekey, _keys, _keys),
    ),
    min_size=1,
    max_size=2,
).map(tuple)


def _perhaps(*steps: str) -> st.SearchStrategy[str | None]:
    return st.none() | st.sampled_from(steps)


_KINDS: list[tuple[int, st.SearchStrategy[Step]]] = [
    (5, st.builds(Write, _units)),
    (3, st.builds(WriteBoth, _units, _perhaps(*WRITE_STEPS), _crashes)),
    (3, st.builds(StrangerWrites, st.sampled_from(sorted(FOREIGN[Side.NEW])), _keys, _keys)),
    (6, st.builds(Relay, st.booleans(), _perhaps(*RELAY_STEPS), _crashes)),
    (4, st.builds(Copy, st.integers(1, 4), _perhaps(*BACKFILL_STEPS), st.integers(1, 3), _crashes)),
    (2, st.builds(Validate, st.booleans(), _perhaps("validator_chunk_compared"), _crashes)),
    (4, st.builds(LetGo, st.integers(0, ACTORS_MOST - 1), _crashes)),
    (1, st.builds(LetAllGo, st.booleans())),
    (1, st.builds(Corrupt, st.sampled_from(sorted(CORRUPT[Side.NEW])), _keys, _keys)),
    (1, st.builds(Repair, _perhaps(*REPAIR_STEPS), _crashes)),
    (1, st.builds(CutoverBegins, _perhaps("opened"))),
    (1, st.builds(Cut, st.sampled_from(Side))),
]
_WEIGHTED = [number for number, (weight, _) in enumerate(_KINDS) for _ in range(weight)]


@st.composite
def steps(draw: Callable[[st.SearchStrategy[Any]], Any]) -> Step:
    """Any step; what makes races is more frequent than what makes trouble."""
    _, strategy = _KINDS[draw(st.sampled_from(_WEIGHTED))]
    step: Step = draw(strategy)
    return step
