"""Takes the services through their phases, as an operator does: with `tandem advance` and `tandem rollback`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from backend.shared.domain.phases import Phase
from backend.shared.migration.gates import GateName

from .operator import Told
from .request_log import RequestLog

PATIENCE_SECONDS = 60.0
"""How long a step is tried again whose gates open by themselves, or that could not be done."""
PAUSE_SECONDS = 1.0
OPENS_BY_ITSELF = frozenset(
    {GateName.REPLICAS, GateName.SIDES, GateName.FAILURES, GateName.LAG, GateName.SHADOW_READS}
)
"""Gates that time alone may open. The others ask for something to be done."""
_GATE_SHUT = 1


class Command(Protocol):
    """Runs a `tandem` command for a service."""

    def __call__(self, command: str, service: str, /, *arguments: str) -> Awaitable[Told]: ...


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step that was done. `began` and `ended` are seconds of the monotonic clock, round the command that did it.

    `stall_ms`: how long no side took writes; 0 where no authority moved. `gates`: what each was found at, by its name.
    `refused`: how often it was tried before.
    """

    service: str
    origin: Phase
    to: Phase
    epoch: int
    began: float
    ended: float
    stall_ms: float
    gates: Mapping[str, str]
    forced: tuple[str, ...]
    refused: int


@dataclass(frozen=True, kw_only=True)
class PhaseChange:
    """A step with what the shop's customers and staff saw of it; `at` is seconds after the traffic began."""

    step: Step
    at: float
    requests: int
    requests_failed: int
    longest_request_ms: float

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        step = self.step
        return {
            "service": step.service,
            "from": step.origin.value,
            "to": step.to.value,
            "stall_ms": round(step.stall_ms, 1),
            "requests_failed": self.requests_failed,
            "requests": self.requests,
            "longest_request_ms": round(self.longest_request_ms, 1),
            "epoch": step.epoch,
            "at": round(self.at, 2),
            "took_seconds": round(step.ended - step.began, 2),
            "refused_before": step.refused,
            "gates": dict(step.gates),
            "forced": list(step.forced),
        }


class PhaseWalk:
    """Changes phases, one service after the other.

    `run` runs a command, `quiet` waits until no fault disturbs. A service whose step stays refused stays where it is: why is
    in `stuck`, and further steps of it are left out.
    """

    def __init__(
        self,
        services: Sequence[str],
        *,
        first: Phase,
        run: Command,
        quiet: Callable[[], Awaitable[None]],
        say: Callable[[str], None],
        patience_seconds: float = PATIENCE_SECONDS,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self.phases = dict.fromkeys(services, first)
        self.steps: list[Step] = []
        self.stuck: dict[str, str] = {}
        self._run = run
        self._quiet = quiet
        self._say = say
        self._patience_seconds = patience_seconds
        self._pause_seconds = pause_seconds

    async def all_to(self, to: Phase) -> None:
        """Take every service there."""
        for service in self.phases:
            await self.to(service, to)

    async def to(self, service: str, to: Phase) -> bool:
        """Take a service up or down to `to`, which must be next to where it is. Returns whether it is there."""
        if service in self.stuck:
            return False
        origin = self.phases[service]
        command = "advance" if to.is_above(origin) else "rollback"
        refused, last_reason, began = 0, "", 0.0
        deadline = time.monotonic() + self._patience_seconds
        while True:
            await self._quiet()
            # A refusal changes nothing; but what was begun and given up belongs to the change.
            began = began or time.monotonic()
            told = await self._run(command, service, "--to", to.value, "--json", "--reason", "the demo")
            if told.code == 0:
                self._note(service, origin, to, told, began=began, refused=refused)
                return True
            refused += 1
            if told.code == _GATE_SHUT:
                began = 0.0
            reason = _reason(told)
            if reason != last_reason:
                self._say(f"{service}: not to {to.value} yet: {reason}")
            last_reason = reason
            if time.monotonic() > deadline or not _may_open_by_itself(told):
                self.stuck[service] = f"it was not taken from {origin.value} to {to.value}: {reason}"
                return False
            await asyncio.sleep(self._pause_seconds)

    def seen(self, log: RequestLog, *, traffic_began: float) -> list[PhaseChange]:
        """Every step with what was seen of it. Ask when all requests are over."""
        changes = []
        for step in self.steps:
            seen = log.within(step.began, step.ended, service=step.service)
            changes.append(
                PhaseChange(
                    step=step,
                    at=step.began - traffic_began,
                    requests=seen.requests,
                    requests_failed=seen.failed,
                    longest_request_ms=seen.longest_seconds * 1000,
                )
            )
        return changes

    def _note(
        self, service: str, origin: Phase, to: Phase, told: Told, *, began: float, refused: int
    ) -> None:
        document = told.document
        stall_ms = document["stall_ms"]
        step = Step(
            service=service,
            origin=origin,
            to=to,
            epoch=document["epoch"],
            began=began,
            ended=time.monotonic(),
            stall_ms=stall_ms or 0.0,
            gates={gate["name"]: gate["figure"] for gate in document["gates"]},
            forced=tuple(gate["name"] for gate in document["gates"] if gate["forced"]),
            refused=refused,
        )
        self.steps.append(step)
        self.phases[service] = to
        stall = "" if stall_ms is None else f", no side took writes for {stall_ms:.0f} ms"
        self._say(f"{service}: {origin.value} → {to.value}, epoch {step.epoch}{stall}")


def _shut(told: Told) -> list[Mapping[str, Any]]:
    return [gate for gate in told.document.get("gates", ()) if not gate["is_open"] and not gate["forced"]]


def _reason(told: Told) -> str:
    return "; ".join(f"{gate['name']}: {gate['figure']}" for gate in _shut(told)) or told.message


def _may_open_by_itself(told: Told) -> bool:
    return told.code != _GATE_SHUT or all(gate["name"] in OPENS_BY_ITSELF for gate in _shut(told))
