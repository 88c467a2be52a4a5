"""Settles conflicts in one phase and epoch: by a carry, by a write on the authoritative side, or by taking one back there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING

from backend.shared.domain.errors import ConflictError, FencedError, SideError
from backend.shared.domain.phases import Direction, Side
from backend.shared.journal.conflict_records import Conflict
from backend.shared.migration.conflict_authority import ConflictAuthority
from backend.shared.migration.conflict_writer import ConflictWriter
from backend.shared.migration.repair_authority import AuthorityWriter
from backend.shared.migration.repair_looks import Looks
from backend.shared.migration.repair_results import FieldChange, RepairOutcome
from backend.shared.migration.repair_writers import help_relay
from backend.shared.runtime import ServiceRuntime

if TYPE_CHECKING:
    from backend.shared.migration.conflict_unlike import UnlikeConflictWriter

_PASSES = ("40001", "40P01", "55P03", "57014")
"""Another transaction holds the row: that says something about this key, not about the side."""


class SettleOutcome(StrEnum):
    """How a conflict stands after it was to be settled."""

    SETTLED = "settled"
    SETTLED_ALREADY = "settled already"
    MOVING = "moving"
    """It is done, but was not seen on the other side yet: settle it again later."""
    REFUSED = "refused"
    """It could not be done; `detail` says why. The conflict is open as before."""
    PLANNED = "planned"
    """A dry run: this is what would be done."""


@dataclass(frozen=True, kw_only=True)
class Settlement:
    """What became of one conflict. `fields` are those that are (or would be) written, without values unless asked for."""

    conflict: Conflict
    keep: Side
    outcome: SettleOutcome
    detail: str = ""
    fields: tuple[FieldChange, ...] = field(default=())

    @property
    def is_settled(self) -> bool:
        """Whether nothing is left to decide."""
        return self.outcome in (SettleOutcome.SETTLED, SettleOutcome.SETTLED_ALREADY)


class Settler:
    """Settles conflicts in the phase and epoch that hold as it is made; closes none of them."""

    def __init__(self, runtime: ServiceRuntime, *, by: str, patience_seconds: float) -> None:
        self._runtime = runtime
        self._patience_seconds = patience_seconds
        control = runtime.control
        self._phase, self._epoch = control.phase, control.epoch
        self._side = control.phase.policy.authoritative
        self._direction = Direction.towards(self._side.other)
        self._looks = Looks(runtime, direction=self._direction, epoch=control.epoch)
        self._authority = ConflictAuthority(runtime, side=self._side, epoch=control.epoch, by=by)
        self._writer: ConflictWriter | UnlikeConflictWriter = (
            ConflictWriter(runtime, side=self._side, epoch=control.epoch, by=by)
            if runtime.both_sql
            else _unlike_writer(runtime, side=self._side, epoch=control.epoch, by=by, looks=self._looks)
        )

    async def plan(self, conflict: Conflict, keep: Side, *, show_values: bool) -> Settlement:
        """What `settle` would do."""
        fields: tuple[FieldChange, ...] = ()
        if conflict.side is self._side:
            detail = f"the {self._side.value} side is authoritative now: " + (
                "its state stays, with the foreign write"
                if keep is self._side
                else "the foreign write is taken back there"
            )
        elif keep is conflict.side:
            try:
                trial = await self._writer.trial(conflict)
            except (ConflictError, SideError) as error:
                return self._refused(conflict, keep, error)
            fields = trial.fields(show_values=show_values)
            detail = f"written on the {self._side.value} side, then carried"
            if trial.is_in_force:
                detail = f"the {self._side.value} side holds it already: nothing is written"
        else:
            detail = f"carried to the {conflict.side.value} side once more"
            if self._phase.policy.dual:
                (look,) = (await self._looks.once([conflict.identity])).values()
                fields = self._writer.carry(look, conflict, show_values=show_values)
        return Settlement(
            conflict=conflict, keep=keep, outcome=SettleOutcome.PLANNED, detail=detail, fields=fields
        )

    async def settle(self, conflicts: Sequence[Conflict], keep: Side) -> list[Settlement]:
        """Do it, all at once where keys have only to be carried."""
        done: dict[int, Settlement] = {}
        for conflict in conflicts:
            done[conflict.id] = await self._write(conflict, keep)
        left = [item.conflict for item in done.values() if item.is_settled]
        if not self._phase.policy.dual:
            detail = f"nothing is carried in phase {self._phase.value}"
            return [
                replace(item, detail=item.detail or detail) if item.is_settled else item
                for item in done.values()
            ]
        waits = keep is self._side
        seen = await self._carried(left, patience_seconds=self._patience_seconds if waits else 0.5)
        for conflict in left:
            trouble = seen.get(conflict.id)
            if trouble is None:
                continue
            # What was written on the authoritative side is settled: the relay sees to the rest.
            outcome = trouble.outcome if waits else SettleOutcome.SETTLED
            done[conflict.id] = replace(done[conflict.id], outcome=outcome, detail=trouble.detail)
        return list(done.values())

    async def _write(self, conflict: Conflict, keep: Side) -> Settlement:
        """What has to be done on the authoritative side, key by key."""
        settled = Settlement(conflict=conflict, keep=keep, outcome=SettleOutcome.SETTLED)
        await self._runtime.hook("conflict_settling")
        try:
            if conflict.side is self._side:
                return await self._since_authoritative(settled)
            if keep is conflict.side:
                await self._writer.put(conflict)
                return settled
            if self._phase.policy.dual:
                self._check_carried()
                await self._authority.journal(conflict)
                await self._runtime.hook("conflict_journalled")
        except FencedError:
            raise
        except (ConflictError, SideError) as error:
            return self._refused(conflict, keep, error)
        return settled

    def _check_carried(self) -> None:
        if not self._runtime.settings.carries(self._phase):
            raise ConflictError(f"writes to the {self._side.other.value} side are switched off")

    async def _since_authoritative(self, settled: Settlement) -> Settlement:
        """The side of the foreign write has become authoritative since: its state is what everybody reads."""
        conflict, keep = settled.conflict, settled.keep
        if keep is not conflict.side and not self._writer.takes_back(conflict):
            return await self._from_secondary(settled)
        await self._writer.put_here(conflict, keep=keep)
        return replace(settled, detail=f"the {self._side.value} side has become authoritative since")

    async def _from_secondary(self, settled: Settlement) -> Settlement:
        """The state of the secondary side, as a repair from there writes it."""
        conflict = settled.conflict
        looks = await self._looks.settled([conflict.identity], patience_seconds=self._patience_seconds)
        look = looks[conflict.identity]
        if look.equal:
            return settled
        if not look.settled:
            return replace(settled, outcome=SettleOutcome.MOVING, detail="a change of it is on its way")
        if not self._runtime.both_sql:
            await self._writer.put_here(conflict, keep=settled.keep)
            return settled
        writer = AuthorityWriter(
            self._runtime,
            direction=self._direction,
            epoch=self._epoch,
            looks=self._looks,
            patience_seconds=self._patience_seconds,
        )
        written = (await writer.write(looks))[conflict.identity]
        if written.outcome is RepairOutcome.REPAIRED:
            return settled
        outcome = SettleOutcome.MOVING if written.outcome is RepairOutcome.MOVING else SettleOutcome.REFUSED
        return replace(settled, outcome=outcome, detail=written.detail)

    @staticmethod
    def _refused(conflict: Conflict, keep: Side, error: Exception) -> Settlement:
        if isinstance(error, SideError):
            if error.unavailable and error.sqlstate not in _PASSES:
                raise error
            detail = f"{error.side.value} side: {error.reason}"
        else:
            detail = str(error)
        return Settlement(conflict=conflict, keep=keep, outcome=SettleOutcome.REFUSED, detail=detail)

    async def _carried(
        self, conflicts: Sequence[Conflict], *, patience_seconds: float
    ) -> dict[int, Settlement]:
        """Help the keys across; answers those conflicts that were not seen to be the same on both sides."""
        if not conflicts:
            return {}
        self._runtime.relays[self._direction].wake()
        looks = await self._looks.settled(
            {conflict.identity for conflict in conflicts},
            patience_seconds=patience_seconds,
            help_along=partial(help_relay, self._runtime, self._direction),
        )
        trouble = {}
        for conflict in conflicts:
            look = looks[conflict.identity]
            if look.equal:
                continue
            result = partial(Settlement, conflict=conflict, keep=self._side)
            other = self._side.other.value
            if look.failed:
                detail = f"the {other} side refuses it: look at `tandem failures {self._runtime.service}`"
                trouble[conflict.id] = result(outcome=SettleOutcome.REFUSED, detail=detail)
            elif not look.settled:
                detail = f"on its way to the {other} side"
                trouble[conflict.id] = result(outcome=SettleOutcome.MOVING, detail=detail)
            elif not await self._written_again(conflict):
                detail = f"still different after it was carried: something on the {other} side changes what is written"
                trouble[conflict.id] = result(outcome=SettleOutcome.REFUSED, detail=detail)
        return trouble

    async def _written_again(self, conflict: Conflict) -> bool:
        """Whether a later foreign write, a conflict of its own, is what makes the key differ now."""
        store = self._runtime.stores[conflict.side]
        async with store.connect() as connection:
            return await store.conflicts.written_since(connection, conflict)


def _unlike_writer(
    runtime: ServiceRuntime, *, side: Side, epoch: int, by: str, looks: Looks
) -> UnlikeConflictWriter:
    # MongoDB's driver is an extra.
    from backend.shared.migration.conflict_unlike import UnlikeConflictWriter  # noqa: PLC0415

    return UnlikeConflictWriter(runtime, side=side, epoch=epoch, by=by, looks=looks)
