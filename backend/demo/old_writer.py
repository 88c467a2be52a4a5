"""The old program as a process beside the services, and what it says it wrote."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from backend.legacy_shop.old_writes import KEYS, OldWrite
from backend.shared.cli.services import manager_class
from backend.shared.domain.phases import Side
from backend.shared.testing.processes import ServiceProcess

from .errors import StepError
from .ledger import Effect, Ledger, Row, Write

SOURCE = "old program"
_STARTED_WITHIN_SECONDS = 20.0


class OldWriter:
    """Runs the old program and puts what it acknowledges into the ledger.

    It prints a line for each row of a transaction, which end up in a file; `read()` notes those that are complete. It does
    one thing after the other, so each transaction began after the one before was acknowledged.
    """

    def __init__(
        self,
        ledger: Ledger,
        *,
        services: Sequence[str],
        env: Mapping[str, str],
        folder: Path,
        seed: int,
        writes_per_second: float,
    ) -> None:
        self.process = ServiceProcess(
            [
                sys.executable,
                "-m",
                "backend.legacy_shop.old_program",
                *(
                    "--writes-per-second",
                    str(writes_per_second),
                    "--seed",
                    str(seed),
                    "--spare-user",
                    "admin",
                ),
            ],
            name="old-program",
            env={**os.environ, **env},
            log=folder / "old-program.log",
        )
        self.summary: dict[str, Any] = {}
        self._ledger = ledger
        self._tables = entities_by_table(services)
        self._started_at = 0.0
        self._offset = 0
        self._pending: list[OldWrite] = []

    def start(self) -> None:
        """Start the program without waiting for it."""
        self._started_at = time.time()
        self.process.spawn()

    @property
    def has_begun(self) -> bool:
        """Whether anything was written yet, and so its choice of rows been made. Raises `StepError` if it ended or is late."""
        self.read()
        if self._pending or self._ledger.by_source.get(SOURCE):
            return True
        if not self.process.is_running or time.time() > self._started_at + _STARTED_WITHIN_SECONDS:
            raise StepError(f"the old program did not start: {self._last_line()}")
        return False

    async def stop(self) -> None:
        """End the program after the transaction in hand, and note all that it wrote."""
        ended_itself = not self.process.is_running
        code = await self.process.terminate()
        self.read()
        self._note_pending()
        if code != 0 or ended_itself:
            raise StepError(f"the old program ended with {code}: {self._last_line()}")
        self._note_doubts()

    def read(self) -> None:
        """Note what was written since the last reading. A transaction is noted when the next one has begun."""
        if not self.process.log.exists():
            return
        with self.process.log.open("rb") as log:
            log.seek(self._offset)
            text = log.read()
        complete = text[: text.rfind(b"\n") + 1]
        self._offset += len(complete)
        for line in complete.decode().splitlines():
            found = json.loads(line) if line.startswith("{") else {}
            if "in_doubt" in found:
                self.summary = found
            elif "operation" in found:
                self._take(OldWrite.from_json(line))

    def _take(self, row: OldWrite) -> None:
        if self._pending and self._pending[0].transaction != row.transaction:
            self._note_pending()
        self._pending.append(row)

    def _note_pending(self) -> None:
        if not self._pending:
            return
        acknowledged_at = self._pending[0].acknowledged_at.timestamp()
        self._note(self._pending, acknowledged_at)
        self._started_at = acknowledged_at
        self._pending = []

    def _note_doubts(self) -> None:
        doubts = [OldWrite.from_json(json.dumps(doubt)) for doubt in self.summary.get("in_doubt", [])]
        if doubts:
            self._note(doubts, None)

    def _note(self, rows: Sequence[OldWrite], acknowledged_at: float | None) -> None:
        self._ledger.note(
            Write(
                source=SOURCE,
                operation=rows[0].operation.value,
                started_at=self._started_at,
                acknowledged_at=acknowledged_at,
                effects=tuple(self._effect(row) for row in rows),
            )
        )

    def _effect(self, written: OldWrite) -> Effect:
        service, entity = self._tables[written.table]
        row = Row(
            service=service,
            entity=entity,
            shape=Side.LEGACY,
            columns=(KEYS[written.table],),
            values=(written.key,),
        )
        return Effect(row=row, fields=written.values, deleted=written.deleted)

    def _last_line(self) -> str:
        lines = self.process.log.read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"


def entities_by_table(services: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Service and entity that each of legacy's own tables is the root of. The twins of tables that it never had are left out."""
    return {
        entity.to_legacy[0].table.name: (service, entity.name)
        for service in services
        for entity in manager_class(service).catalog().ordered
        if entity.to_legacy[0].table.schema is None
    }
