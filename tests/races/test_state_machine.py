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
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from backend.shared import Phase, Side
from backend.shared.testing.clusters import Cluster
from tests.support.fixtures import BOTH_AUTHORITIES
from tests.support.play import Finale, Play
from tests.support.schedule import Step, steps
from tests.support.world import World, made_world

LONG_EXAMPLES = int(os.environ.get("STATE_MACHINE_EXAMPLES", "0"))
SHORT_EXAMPLES = 15
STEPS = 30 if LONG_EXAMPLES else 15


class Schedule(RuleBasedStateMachine):
    """One schedule. A step returns when everybody has ended, is held, or waits for a lock.

    There is one rule, and it asks for nothing: with several, Hypothesis leaves most of them out of most schedules; and what
    it generates must not depend on what the servers do.
    """

    world: World
    loop: asyncio.Runner

    def __init__(self) -> None:
        super().__init__()
        self.play = Play(self.world)
        self.finale = Finale.OLDEST_LAST
        self.broken = False

    @initialize(rows=st.integers(0, 3), finale=st.sampled_from(Finale))
    def begin(self, rows: int, finale: Finale) -> None:
        self.finale = finale
        self.run(self.play.begin(rows))

    @rule(step=steps())
    def next(self, step: Step) -> None:
        self.run(step(self.play))

    def teardown(self) -> None:
        try:
            if not self.broken:
                self.run(self.play.end(self.finale))
        finally:
            if self.broken:
                self.loop.run(self.play.give_up())

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work` to its end, and the loop with everybody on it as long."""
        try:
            self.loop.run(work)
        except BaseException:
            self.broken = True
            raise


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
