"""What is compared in the end: both sides with each other while both are written, the ledger with both, legacy with itself."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Collection, Mapping

from backend.shared.domain.phases import Phase, Side
from backend.shared.dual_write_manager import DualWriteManager
from backend.shared.sync_validator import SyncValidator
from backend.shared.validation.report import EntityReport, ValidationReport

from .ledger import Lost
from .watch import JournalWatch

Audit = Callable[[Collection[Side]], Awaitable[list[Lost]]]
"""The acknowledged writes that these sides do not bear out."""
Prints = Mapping[str, object]
"""Fingerprints by table or collection."""
TakePrints = Callable[[DualWriteManager], Awaitable[Prints]]


class Comparison:
    """Compares, and keeps what was found. `audit` holds the ledger against sides, `prints` takes those of legacy.

    `legacy_written` names the legacy tables that were written after their service had become `complete`; `forced` the gates
    that the history of the phase says were forced, `phases` the phase that each service ended in, and `conflicts_open` counts
    what somebody wrote on a closed side.
    """

    def __init__(
        self,
        managers: Mapping[str, DualWriteManager],
        *,
        audit: Audit,
        prints: TakePrints,
        watch: JournalWatch,
    ) -> None:
        self.drained = False
        self.drain_seconds = 0.0
        self.validation = ValidationReport(entities=())
        self.lost: list[Lost] = []
        self.legacy_written: list[str] = []
        self.forced: list[str] = []
        self.phases: dict[str, Phase] = {}
        self.conflicts_open = 0
        self._managers = managers
        self._audit = audit
        self._take_prints = prints
        self._watch = watch
        self._prints: dict[str, Prints] = {}

    async def drain(self) -> None:
        """Wait until the journals are empty."""
        began = time.monotonic()
        self.drained = await self._watch.drained()
        self.drain_seconds = time.monotonic() - began

    async def compare_sides(self) -> None:
        """Compare all rows of both sides."""
        entities: list[EntityReport] = []
        for manager in self._managers.values():
            await manager.start()
            entities += (await SyncValidator(manager.runtime).run()).entities
        self.validation = ValidationReport(entities=tuple(entities))

    async def hold_ledger(self) -> None:
        """Hold the ledger against both sides."""
        self.lost += await self._audit(tuple(Side))

    async def service_complete(self, service: str) -> None:
        """From now on nobody may write the legacy tables of a service."""
        self._prints[service] = await self._take_prints(self._managers[service])

    async def conclude(self) -> None:
        """When everything is over: hold the ledger against the new side once more, look at legacy and at the phases."""
        known = {(id(loss.write), loss.side, loss.row, loss.column) for loss in self.lost}
        again = await self._audit((Side.NEW,))
        self.lost += [
            loss for loss in again if (id(loss.write), loss.side, loss.row, loss.column) not in known
        ]
        for service, manager in self._managers.items():
            overview = await manager.overview()
            self.phases[service] = overview.phase
            self.conflicts_open += overview.conflicts_open
            for change in await manager.phase_history():
                self.forced += [f"{service}: {gate}" for gate in change.forced]
            before = self._prints.get(service)
            if before is not None:
                now = await self._take_prints(manager)
                self.legacy_written += [name for name, found in now.items() if found != before[name]]
