"""Generated schedules of writers, relays, backfills, validators and repairs, with crashes and cut connections.

Each schedule runs on two real servers, on one event loop. Whoever is held at a step of the engine stands there until a later
step of the schedule lets it go on, or die. Whatever happened, when all is let go both sides are the same in the end; and
what the triggers of `tests.support.audit` have noted by then shows that no row ever went back or came back on the way.

`make test` runs a few schedules, the same ones each time. `make test-long` runs many, others each time.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterator
from typing import Any, NoReturn

import pytest
import structlog
from hypothesis import HealthCheck, settings
from hypothesis import Phase as Stage
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from backend.shared import Phase, Side
from backend.shared.testing.clusters import Cluster
from tests.support.changes import (
    CORRUPT,
    FOREIGN,
    SPOIL,
    Change,
    DropNote,
    DropPerson,
    PutNote,
    PutPerson,
    Rekey,
    SwapMails,
)
from tests.support.fixtures import BOTH_AUTHORITIES
from tests.support.play import ACTORS_MOST, Play
from tests.support.world import World, made_world

LONG_EXAMPLES = int(os.environ.get("STATE_MACHINE_EXAMPLES", "0"))
SHORT_EXAMPLES = 15
STEPS = 30 if LONG_EXAMPLES else 15

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

keys = st.integers(1, 4)
units = st.lists(
    st.one_of(
        st.builds(PutPerson, keys, st.none() | st.integers(1, 3), st.booleans()),
        st.builds(DropPerson, keys),
        st.builds(PutNote, keys, keys),
        st.builds(DropNote, keys),
        st.builds(SwapMails, keys, keys),
        st.builds(Rekey, keys, keys),
    ),
    min_size=1,
    max_size=2,
)


def at(*steps: str) -> st.SearchStrategy[str | None]:
    """Where to be held, or to crash; half of the time nowhere."""
    return st.none() | st.sampled_from(steps)


class Schedule(RuleBasedStateMachine):
    """One schedule. A rule begins a piece of work, and returns when everybody has ended, is held, or waits for a lock."""

    world: World
    loop: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        self.play = Play(self.world)
        self.broken = False

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` to its end, and the loop with everybody on it as long."""
        try:
            self.loop.run(work)
        except BaseException:
            self.broken = True
            raise

    def teardown(self) -> None:
        try:
            if not self.broken:
                self.run(self.play.end())
        finally:
            if self.broken:
                self.loop.run(self.play.give_up())

    @initialize(rows=st.sampled_from([0, 3, 4]))
    def begin(self, rows: int) -> None:
        self.run(self.play.begin(rows))

    @rule(unit=units)
    def write(self, unit: list[Change]) -> None:
        self.run(self.play.act("write", lambda: self.play.write(self.world.asynchronous, unit)))

    @rule(unit=units, step=at(*WRITE_STEPS), crashes=st.booleans())
    def write_synchronously(self, unit: list[Change], step: str | None, *, crashes: bool) -> None:
        self.run(
            self.play.act(
                "write", lambda: self.play.write(self.world.synchronous, unit), step=step, crashes=crashes
            )
        )

    @rule(what=st.sampled_from(sorted(FOREIGN[Side.NEW])), a=keys, b=keys)
    def stranger_writes(self, what: str, a: int, b: int) -> None:
        side = self.world.source
        self.run(self.play.act("stranger", lambda: self.play.stranger(side, FOREIGN[side][what], a, b)))

    @rule(a=keys)
    def stranger_writes_what_is_refused(self, a: int) -> None:
        side = self.world.source
        self.play.spoilt = True
        self.run(self.play.act("stranger", lambda: self.play.stranger(side, SPOIL[side], a)))

    @rule(what=st.sampled_from(sorted(CORRUPT[Side.NEW])), a=keys, b=keys)
    def secondary_is_corrupted(self, what: str, a: int, b: int) -> None:
        side = self.world.target
        self.run(self.play.act("stranger", lambda: self.play.stranger(side, CORRUPT[side][what], a, b)))

    @rule(small=st.booleans(), step=at(*RELAY_STEPS), crashes=st.booleans())
    def relay(self, step: str | None, *, small: bool, crashes: bool) -> None:
        manager = self.world.synchronous if small else self.world.asynchronous
        self.run(self.play.act("relay", lambda: self.play.relay(manager), step=step, crashes=crashes))

    @rule(
        chunk_rows=st.integers(2, 4),
        step=at(*BACKFILL_STEPS),
        passing=st.integers(1, 3),
        crashes=st.booleans(),
    )
    def backfill(self, chunk_rows: int, step: str | None, passing: int, *, crashes: bool) -> None:
        self.run(
            self.play.act(
                "backfill",
                lambda: self.play.backfill(chunk_rows),
                step=step,
                passing=passing,
                crashes=crashes,
            )
        )

    @rule(changed=st.booleans(), step=at("validator_chunk_compared"), crashes=st.booleans())
    def validate(self, step: str | None, *, changed: bool, crashes: bool) -> None:
        alone = not self.play.under_way
        self.run(
            self.play.act(
                "validator",
                lambda: self.play.validate(changed=changed, alone=alone and step is None),
                step=step,
                crashes=crashes,
            )
        )

    @rule(step=at(*REPAIR_STEPS), crashes=st.booleans())
    def repair(self, step: str | None, *, crashes: bool) -> None:
        self.run(self.play.act("repair", self.play.repair, step=step, crashes=crashes))

    # No precondition may ask whether anybody is held: a schedule has to be the same each time, whatever the servers do.
    @rule(which=st.integers(0, ACTORS_MOST - 1), crash=st.booleans())
    def let_go(self, which: int, *, crash: bool) -> None:
        self.run(self.play.let_go(which, crash=crash))

    @rule(step=at("opened"))
    def cutover_begins(self, step: str | None) -> None:
        self.run(self.play.act("cutover", self.play.begin_of_a_cutover, step=step))

    @rule(side=st.sampled_from(Side))
    def connections_are_cut(self, side: Side) -> None:
        self.play.cuts += 1
        self.run(self.world.cut(side))
        self.run(self.play.settled())


@pytest.fixture
def loop() -> Iterator[asyncio.Runner]:
    """The loop of all schedules: connections belong to one. What is logged would hide the schedule that failed."""
    before = structlog.get_config()
    structlog.configure(processors=[_drop])
    with asyncio.Runner() as runner:
        yield runner
    structlog.configure(**before)


def _drop(*_: object) -> NoReturn:
    raise structlog.DropEvent


@pytest.mark.invariant("I1")
@pytest.mark.invariant("I2")
@pytest.mark.invariant("I3")
@pytest.mark.invariant("I5")
@pytest.mark.invariant("I7")
@pytest.mark.slow
@pytest.mark.timeout(0 if LONG_EXAMPLES else 300)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # connections cut while in use
@BOTH_AUTHORITIES
def test_every_schedule_ends_equal(
    loop: asyncio.Runner,
    legacy_cluster: Cluster,
    services_cluster: Cluster,
    people_templates: tuple[str, str],
    *,
    phase: Phase,
) -> None:
    made = made_world(
        phase,
        clusters={Side.LEGACY: legacy_cluster, Side.NEW: services_cluster},
        templates=dict(zip(Side, people_templates, strict=True)),
    )
    world = loop.run(made.__aenter__())
    long = bool(LONG_EXAMPLES)
    try:
        run_state_machine_as_test(
            type("Schedule", (Schedule,), {"world": world, "loop": loop}),
            settings=settings(
                max_examples=LONG_EXAMPLES or SHORT_EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                derandomize=not long,
                database=DirectoryBasedExampleDatabase(".hypothesis/examples") if long else None,
                phases=tuple(Stage) if long else (Stage.explicit, Stage.generate),
                report_multiple_bugs=False,
                print_blob=long,
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        loop.run(made.__aexit__(None, None, None))
