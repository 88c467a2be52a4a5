"""`PhaseController`: takes a service up and down its phases, one step at a time.

A step: every live replica has followed the one before; the gates are open; the intent is written down; then what the step
needs (capture, cutover), and the phase row. Whoever finds an intent may finish it, after a crash at any point.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from backend.shared.control import Intent
from backend.shared.domain.errors import (
    ConfigurationError,
    ConflictError,
    FencedError,
    TandemError,
    ValidationError,
)
from backend.shared.domain.phases import Direction, Phase, Side
from backend.shared.journal.carrier import Hook, TargetUnavailableError, no_hook
from backend.shared.migration.capture_switch import CaptureSwitch
from backend.shared.migration.cutover import (
    GIVE_UP_SECONDS,
    ChangeGivenUpError,
    ChangeOvertakenError,
    Cutover,
    Decision,
)
from backend.shared.migration.gates import Gate, GateName, Gates
from backend.shared.migration.progress import keeper_of, repository_of
from backend.shared.replicas import LEASE_SECONDS, Replica
from backend.shared.runtime import ServiceRuntime

FOLLOW_SECONDS = LEASE_SECONDS + 2.0
"""A replica follows within a second, or its lease runs out within five."""
_FOLLOW_LOOK_SECONDS = 0.1


class GateShutError(ConflictError):
    """At least one gate is shut, and nothing has changed. `gates` holds all that were looked at."""

    def __init__(self, now: Phase, to: Phase, gates: Sequence[Gate]) -> None:
        shut = [gate for gate in gates if not gate.is_open and not gate.forced]
        reasons = "; ".join(f"{gate.name.value}: {gate.figure}" for gate in shut)
        super().__init__(f"the step from {now.value} to {to.value} is refused: {reasons}")
        self.now = now
        self.to = to
        self.gates = tuple(gates)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step, done or (dry run) looked at. `behind`: replicas that had not followed when it returned."""

    origin: Phase
    to: Phase
    epoch: int
    gates: tuple[Gate, ...]
    actions: tuple[str, ...]
    changed: bool
    stall_ms: float | None = None
    behind: tuple[Replica, ...] = ()
    notes: tuple[str, ...] = ()


class PhaseController:
    """Changes the phase of one service. Any number may try; one of them goes on, the others are told so."""

    def __init__(
        self,
        runtime: ServiceRuntime,
        *,
        check_schema: Callable[[], Awaitable[None]],
        by: str,
        give_up_seconds: float = GIVE_UP_SECONDS,
        say: Callable[[str], None] = lambda _: None,
        hook: Hook = no_hook,
    ) -> None:
        self._runtime = runtime
        self._gates = Gates(runtime, check_schema=check_schema)
        self._by = by
        self._give_up_seconds = give_up_seconds
        self._say = say
        self._hook = hook

    async def change(
        self, to: Phase, *, reason: str = "", force: Sequence[str] = (), dry_run: bool = False
    ) -> list[Step]:
        """Go to `to`, step by step; answers what was done, or with `dry_run` would be.

        Raises `GateShutError`, with the steps before done; `ChangeGivenUpError` and `ChangeOvertakenError`, with the phase
        as it was or as somebody else has made it; `ValidationError` for what cannot be asked.
        """
        forced = self._checked(force, reason)
        await self._runtime.following.refresh()
        try:
            return await self._change(to, reason=reason, forced=forced, dry_run=dry_run)
        except TandemError:
            await self._runtime.following.refresh()  # it may have been taken back, or gone on elsewhere
            raise

    async def _change(self, to: Phase, *, reason: str, forced: tuple[str, ...], dry_run: bool) -> list[Step]:
        finished = None if dry_run else await self.finish(towards=to)
        control = self._runtime.control
        try:
            way = control.phase.way_to(to)
        except ValueError:
            raise ConflictError(
                f"{self._runtime.service} is {control.phase.value}: that cannot be left, since legacy was let go"
            ) from None
        done = [finished] if finished else []
        for following in way:
            if dry_run:
                done.append(await self._look(following, done, forced))
                continue
            done.append(await self._step(following, reason=reason, forced=forced))
        return done

    async def finish(self, *, towards: Phase | None = None) -> Step | None:
        """Bring a change that was begun and not finished to its end; None if there is none.

        One that leads away from `towards` is taken back, where that can still be done.
        """
        control = self._runtime.control
        intent = control.intent
        if intent is None:
            return None
        self._say(
            f"the change from {intent.origin.value} to {intent.to.value}, begun by {intent.by}, is not finished yet"
        )
        if intent.moves_authority and await self._cutover(intent).decision() is Decision.GIVEN_UP:
            await self._cutover(intent).give_up()
            self._say("it was given up")
            await self._runtime.following.refresh()
            return None
        if towards is None or intent.to in intent.origin.way_to(towards):
            return await self._drive(intent, gates=())
        if await self._take_back(intent):
            self._say("taken back: nothing was moved yet")
            await self._runtime.following.refresh()
            return None
        return await self._drive(intent, gates=())

    async def _take_back(self, intent: Intent) -> bool:
        if intent.moves_authority:
            decision = await self._cutover(intent).give_up()
            return decision is not Decision.FORWARD
        if self._runtime.control.phase is intent.to:
            return False
        await self._withdraw_capture(intent)
        return True

    def _checked(self, force: Sequence[str], reason: str) -> tuple[str, ...]:
        known = [name.value for name in GateName]
        for name in force:
            if name not in known:
                raise ValidationError(f"there is no gate {name!r}; the gates are {', '.join(known)}")
        if force and not reason.strip():
            raise ValidationError("to force a gate needs a reason: it is written down with the change")
        return tuple(force)

    async def _look(self, to: Phase, done: list[Step], forced: tuple[str, ...]) -> Step:
        """What a step would do. The gates are those of now, so only the first step's can be looked at."""
        origin = done[-1].to if done else self._runtime.phase
        gates = [] if done else await self._gates.look(origin, to, forced=forced)
        return Step(
            origin=origin,
            to=to,
            epoch=self._runtime.control.epoch,
            gates=tuple(gates),
            actions=actions_of(origin, to),
            changed=False,
            notes=("its gates are looked at when it is its turn",) if done else (),
        )

    async def _step(self, to: Phase, *, reason: str, forced: tuple[str, ...]) -> Step:
        runtime = self._runtime
        try:
            runtime.settings.check_phase(to)
        except ConfigurationError as error:
            raise ConflictError(str(error)) from None
        await self._await_followers()
        control = runtime.control
        gates = await self._gates.look(control.phase, to, forced=forced)
        if any(not gate.is_open and not gate.forced for gate in gates):
            raise GateShutError(control.phase, to, gates)
        skipped = tuple(gate.name.value for gate in gates if gate.forced)
        intent = await runtime.controls.intend(
            control,
            Intent.begin(control, to, by=self._by, reason=reason or "asked for", forced=skipped),
        )
        if intent is None:
            await runtime.following.refresh()
            raise ChangeOvertakenError(
                f"somebody else changes the phase: it is {runtime.phase.value} now, look at `tandem status`"
            )
        await self._hook("intent_written")
        return await self._drive(intent, gates=tuple(gates))

    async def _drive(self, intent: Intent, *, gates: tuple[Gate, ...]) -> Step:
        """Do what `intent` needs, and what is left of it after a crash."""
        stall_ms: float | None = None
        notes: tuple[str, ...] = ()
        before, after = intent.origin.policy, intent.to.policy
        if intent.moves_authority:
            stall_ms = await self._cutover(intent).run()
            if GateName.CAPTURE.value in intent.forced:
                await self._void_backfill()
        elif after.captures and not before.captures:
            await self._capture_on(intent)
        elif before.captures and not after.captures:
            notes = await self._capture_off(intent)
        else:
            await self._enter(intent, done=True)
        await self._hook("step_done")
        behind = await self._await_followers()
        return Step(
            origin=intent.origin,
            to=intent.to,
            epoch=self._runtime.control.epoch,
            gates=gates,
            actions=actions_of(intent.origin, intent.to),
            changed=True,
            stall_ms=stall_ms,
            behind=tuple(behind),
            notes=notes,
        )

    def _cutover(self, intent: Intent) -> Cutover:
        return Cutover(
            self._runtime,
            intent,
            hook=self._hook,
            give_up_seconds=self._give_up_seconds,
            say=self._say,
        )

    def _switch(self, intent: Intent) -> CaptureSwitch:
        return CaptureSwitch(
            self._runtime,
            intent,
            hook=self._hook,
            give_up_seconds=self._give_up_seconds,
            say=self._say,
        )

    async def _capture_on(self, intent: Intent) -> None:
        try:
            await self._switch(intent).put(intent.to, number=intent.number)
        except ChangeGivenUpError:
            await self._withdraw_capture(intent)
            raise
        except ChangeOvertakenError as error:
            # Somebody has begun to take it back, and died; if it was a later change, this says so.
            await self._withdraw_capture(intent)
            raise ChangeGivenUpError(f"the change to {intent.to.value} was taken back") from error
        await self._enter(intent, done=True)

    async def _withdraw_capture(self, intent: Intent) -> None:
        await self._switch(intent).put(intent.origin, number=intent.number + 1)
        await self._runtime.controls.withdraw(intent)

    async def _capture_off(self, intent: Intent) -> tuple[str, ...]:
        """The phase first: from then on nobody expects what is written to be carried."""
        await self._enter(intent, done=False)
        await self._hook("phase_entered")
        await self._switch(intent).put(intent.to, number=intent.number)
        notes: tuple[str, ...] = ()
        if intent.to is Phase.COMPLETE:
            await self._carry_the_rest()
            notes = await self._what_is_left()
        await self._enter(intent, done=True)
        return notes

    async def _carry_the_rest(self) -> None:
        """Leave legacy as it was when capture ended, and not a moment older."""
        relay = self._runtime.relays[Direction.TO_LEGACY]
        try:
            drained = await relay.drain(timeout_seconds=self._give_up_seconds)
        except (TargetUnavailableError, FencedError) as error:
            raise ChangeGivenUpError(f"the last changes could not be carried yet: {error}") from error
        if not drained:
            raise ChangeGivenUpError(
                "the last changes are not carried yet; the phase is complete already: call it again to finish"
            )

    async def _what_is_left(self) -> tuple[str, ...]:
        """What may now be deleted on the legacy side. Nothing is."""
        legacy = self._runtime.stores[Side.LEGACY]
        found = {name for entity in self._runtime.catalog.ordered for name in await legacy.tables(entity)}
        return (
            "on the legacy side nothing of this service is read or written any more; may be deleted there:",
            *(f"  {name}, if no other program uses it" for name in sorted(found)),
            f"  {legacy.engine_room}, last of all: the fence of these is in it",
        )

    async def _void_backfill(self) -> None:
        """Changes may be missing on the side that was just opened: what was copied from it before does not count."""
        runtime = self._runtime
        target = runtime.control.phase.policy.authoritative.other
        async with keeper_of(runtime, target).begin() as connection:
            await repository_of(runtime, target).void(connection)

    async def _enter(self, intent: Intent, *, done: bool) -> None:
        if await self._runtime.controls.enter(intent, done=done):
            return
        await self._runtime.following.refresh()
        now = self._runtime.control
        if now.phase is not intent.to or now.epoch < intent.epoch:
            raise ChangeOvertakenError(f"somebody else has changed the phase: it is {now.phase.value} now")

    async def _await_followers(self) -> list[Replica]:
        """Wait until every live replica goes by the phase as it is; answers those that do not."""
        deadline = time.monotonic() + FOLLOW_SECONDS
        await self._runtime.following.refresh()
        while True:
            control = self._runtime.control
            behind = [item for item in await self._runtime.replicas.live() if not item.follows(control)]
            if not behind or time.monotonic() > deadline:
                return behind
            await asyncio.sleep(_FOLLOW_LOOK_SECONDS)


def actions_of(origin: Phase, to: Phase) -> tuple[str, ...]:
    """What a step does, in order, in words."""
    before, after = origin.policy, to.policy
    enter = f"set the phase row from {origin.value} to {to.value}"
    follow = "wait until every live replica goes by it"
    if before.moves_authority_to(to):
        closing, opening = before.authoritative.value, after.authoritative.value
        return (
            "write the intent down",
            f"move the sequences of the {opening} side past the highest keys of both",
            f"carry what is left in the journal of the {closing} side",
            f"take the fence lock of the {closing} side alone, for at most a fraction of a second; carry the last changes",
            f"close the {closing} side in the next epoch",
            f"open the {opening} side in that epoch",
            enter,
            follow,
        )
    if after.captures and not before.captures:
        return ("write the intent down", "put capture on both sides", enter, follow)
    if before.captures and not after.captures:
        last = (
            "carry the last changes to the legacy side"
            if to is Phase.COMPLETE
            else "forget what is not carried: whoever goes up again copies everything again"
        )
        return ("write the intent down", enter, "drop capture on both sides", last, follow)
    return (enter, follow)
