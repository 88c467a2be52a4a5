from __future__ import annotations

from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

import pytest

from backend.demo import phase_walk
from backend.demo.operator import Told
from backend.demo.phase_walk import PhaseWalk
from backend.demo.request_log import Request, RequestLog
from backend.shared.domain.phases import Phase


def done(*, stall_ms: float | None = None, forced: bool = False) -> Told:
    gate = {"name": "lag", "is_open": not forced, "figure": "0 s", "forced": forced}
    return Told(code=0, document={"stall_ms": stall_ms, "epoch": 2, "gates": [gate]}, message="")


def shut(name: str) -> Told:
    gates = [
        {"name": "sides", "is_open": True, "figure": "both answer", "forced": False},
        {"name": name, "is_open": False, "figure": "not so", "forced": False},
    ]
    return Told(code=1, document={"gates": gates}, message="it said nothing")


COULD_NOT = Told(code=2, document={}, message="the legacy side could not be closed")


class Script:
    """Answers commands with what is written down, and notes what was asked."""

    def __init__(self, *answers: Told) -> None:
        self.asked: list[tuple[str, ...]] = []
        self._answers = list(answers)

    async def __call__(self, command: str, service: str, /, *arguments: str) -> Told:
        self.asked.append((command, service, *arguments[:2]))
        return self._answers.pop(0)


FIRST_TRY = 2.0


class Clock:
    """Each look is a second later: the first is for the deadline, the second for the first try."""

    def __init__(self) -> None:
        self._seconds = count(1.0)

    def monotonic(self) -> float:
        return next(self._seconds)


async def no_fault() -> None:
    pass


def walk(
    script: Callable[..., Awaitable[Told]],
    *,
    first: Phase = Phase.SHADOW,
    said: list[str] | None = None,
    patience_seconds: float = 10,
) -> PhaseWalk:
    return PhaseWalk(
        ["cart"],
        first=first,
        run=script,
        quiet=no_fault,
        say=(said if said is not None else []).append,
        patience_seconds=patience_seconds,
        pause_seconds=0,
    )


async def test_up_is_advance_and_down_is_rollback() -> None:
    script = Script(done(stall_ms=80.0), done(stall_ms=40.0), done(), done())
    walking = walk(script)

    for phase in (Phase.LIVE, Phase.SHADOW, Phase.DUALWRITE):
        assert await walking.to("cart", phase)

    assert script.asked == [
        ("advance", "cart", "--to", "live"),
        ("rollback", "cart", "--to", "shadow"),
        ("rollback", "cart", "--to", "dualwrite"),
    ]
    assert [(step.origin, step.to, step.stall_ms) for step in walking.steps] == [
        (Phase.SHADOW, Phase.LIVE, 80.0),
        (Phase.LIVE, Phase.SHADOW, 40.0),
        (Phase.SHADOW, Phase.DUALWRITE, 0.0),
    ]
    assert walking.phases == {"cart": Phase.DUALWRITE}
    assert walking.steps[0].gates == {"lag": "0 s"}


@pytest.mark.parametrize("refusal", [shut("lag"), shut("shadow-reads"), shut("replicas"), COULD_NOT])
async def test_what_time_may_mend_is_tried_again_and_said_once(refusal: Told) -> None:
    said: list[str] = []
    walking = walk(Script(refusal, refusal, done()), said=said)

    assert await walking.to("cart", Phase.LIVE)

    assert walking.steps[0].refused == 2
    assert sum("not to live yet" in line for line in said) == 1


async def test_what_somebody_has_to_mend_is_not_tried_again_and_nothing_goes_on() -> None:
    script = Script(shut("validation"))
    walking = walk(script)

    await walking.all_to(Phase.LIVE)
    await walking.all_to(Phase.RAMPDOWN)

    assert len(script.asked) == 1
    assert walking.phases == {"cart": Phase.SHADOW}
    assert walking.stuck == {"cart": "it was not taken from shadow to live: validation: not so"}


async def test_patience_has_an_end() -> None:
    walking = walk(Script(COULD_NOT), patience_seconds=-1)
    assert not await walking.to("cart", Phase.LIVE)
    assert "the legacy side could not be closed" in walking.stuck["cart"]


async def test_a_forced_gate_is_noted() -> None:
    walking = walk(Script(done(forced=True)))
    await walking.to("cart", Phase.LIVE)
    assert walking.steps[0].forced == ("lag",)


@pytest.mark.parametrize(("first", "counts"), [(COULD_NOT, True), (shut("lag"), False)])
async def test_what_was_given_up_belongs_to_the_change_and_what_was_refused_does_not(
    first: Told, monkeypatch: pytest.MonkeyPatch, *, counts: bool
) -> None:
    monkeypatch.setattr(phase_walk, "time", Clock())
    walking = walk(Script(first, done()), patience_seconds=1000)
    await walking.to("cart", Phase.LIVE)

    assert (walking.steps[0].began == FIRST_TRY) is counts


async def test_a_request_that_failed_meanwhile_is_seen() -> None:
    log = RequestLog()

    async def run(*_: Any) -> Told:
        log.note(Request(service="cart", began=0.0, ended=float("inf"), failed=True))
        return done()

    walking = walk(run)
    await walking.to("cart", Phase.LIVE)
    (change,) = walking.seen(log, traffic_began=0.0)
    assert change.to_dict()["requests_failed"] == 1
