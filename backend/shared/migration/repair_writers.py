"""The two ways in which a repair writes: from the authoritative side to the other, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from backend.shared.domain.errors import FencedError
from backend.shared.domain.phases import Direction
from backend.shared.journal.carrier import Carrier, KeyOutcome, Outcome, TargetUnavailableError
from backend.shared.migration.repair_looks import Looks
from backend.shared.migration.repair_results import Identity, RepairOutcome
from backend.shared.runtime import ServiceRuntime
from backend.shared.validation.recheck import Look

ROUNDS = 3
"""How often a key is carried that still differs afterwards."""

CLOSED_BY = "repair"
_STILL_DIFFERENT = (
    "still different after it was carried: something else writes it, or changes what is written"
)
_MOVED_ON = "written; it has been changed since, and that change is on its way"


@dataclass(frozen=True, kw_only=True)
class Written:
    """What became of one key."""

    outcome: RepairOutcome
    detail: str = ""
    waits: bool = False


class RepairWriter(Protocol):
    """Writes keys that differ, and looks at them again."""

    async def write(self, looks: Mapping[Identity, Look]) -> dict[Identity, Written]:
        """What became of each key. Raises `SideError` or `FencedError` if a side could not be asked or has moved on."""
        ...


class CarryingWriter:
    """Writes the secondary side, as the relay does: behind the guard, so never over a newer write (R3)."""

    def __init__(
        self,
        runtime: ServiceRuntime,
        *,
        direction: Direction,
        epoch: int,
        looks: Looks,
        patience_seconds: float,
    ) -> None:
        self._runtime = runtime
        self._source = runtime.stores[direction.source]
        self._epoch = epoch
        self._looks = looks
        self._patience_seconds = patience_seconds
        self._journal = self._source.journal
        self._carrier = Carrier(
            source=self._source,
            target=runtime.stores[direction.target],
            catalog=runtime.catalog,
            direction=direction,
            hook=runtime.hook,
        )

    async def write(self, looks: Mapping[Identity, Look]) -> dict[Identity, Written]:
        """Carry the keys of `looks`; those that have not become equal, some times."""
        done: dict[Identity, Written] = {}
        left = list(looks)
        for _ in range(ROUNDS):
            outcomes = await self._carry(left)
            gone = [item for item in left if _is_gone(outcomes[item])]
            done |= {item: _refused(outcomes[item]) for item in left if item not in set(gone)}
            seen = await self._looks.settled(gone, patience_seconds=self._patience_seconds)
            left = []
            for item, look in seen.items():
                if look.equal:
                    done[item] = Written(outcome=RepairOutcome.REPAIRED)
                elif look.settled:
                    left.append(item)
                else:
                    done[item] = Written(outcome=RepairOutcome.MOVING, detail=_MOVED_ON)
            if not left:
                break
        return done | {item: Written(outcome=RepairOutcome.REFUSED, detail=_STILL_DIFFERENT) for item in left}

    async def _carry(self, identities: list[Identity]) -> dict[Identity, KeyOutcome]:
        """Carry once; failures of what has gone over are closed, as the relay does."""
        keys: dict[str, list[str]] = {}
        for entity, key in identities:
            keys.setdefault(entity, []).append(key)
        outcomes = await self._carrier.carry(keys, epoch=self._epoch)
        gone = {item: outcomes[item].position for item in identities if _is_gone(outcomes[item])}
        # Keys that came along because they held a unique value that was wanted: the relay sees to them and their failures.
        others = set(outcomes) - set(identities)
        if gone or others:
            async with self._source.begin() as connection:
                await self._source.failures.close(connection, gone, epoch=self._epoch, by=CLOSED_BY)
                for entity, key in sorted(others):
                    await self._journal.add(connection, entity, [key])
        return outcomes


def _is_gone(outcome: KeyOutcome) -> bool:
    return outcome.outcome in (Outcome.CARRIED, Outcome.SKIPPED)


def _refused(outcome: KeyOutcome) -> Written:
    waits = outcome.outcome is Outcome.WAITING
    return Written(outcome=RepairOutcome.REFUSED, detail=outcome.reason, waits=waits)


async def help_relay(runtime: ServiceRuntime, direction: Direction) -> bool:
    """One pass of the relay, as any replica's relay does; answers whether there was anything to carry.

    Nothing where second writes are switched off, or a side is away: then what is on its way stays so.
    """
    if not runtime.settings.carries(runtime.phase):
        return False
    try:
        return bool((await runtime.relays[direction].run_once()).rows)
    except (TargetUnavailableError, FencedError):
        return False
