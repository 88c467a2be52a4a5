"""The old program: it writes straight into the legacy tables, knowing nothing of any service.

`python -m backend.legacy_shop.old_program` runs it on its own and prints each acknowledged write as a line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import random
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import asyncpg

from backend.legacy_shop.connection import LOST, one_line, open_connection
from backend.legacy_shop.errors import LoadError
from backend.legacy_shop.old_operations import RECIPES, Change, Desk, choose
from backend.legacy_shop.old_settlement import has_committed
from backend.legacy_shop.old_targets import Targets, find_targets
from backend.legacy_shop.old_writes import OldWrite, Operation

__all__ = ["OldProgram", "OldProgramResult", "OldWrite", "Operation", "main"]

HOT_BURST = (5, 10)
STATEMENT_TIMEOUT_SECONDS = 15.0
LAST_QUESTION_SECONDS = 5.0
_SETTINGS = "SET lock_timeout = '2s'; SET statement_timeout = '10s'; SET search_path = public"


@dataclass(frozen=True, kw_only=True)
class OldProgramResult:
    """What a run came to. `in_doubt` are writes whose COMMIT nobody could tell the outcome of before the end."""

    acknowledged: Mapping[Operation, int]
    rows_written: int
    refused: Mapping[str, int]
    reconnects: int
    in_doubt: tuple[OldWrite, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "acknowledged": {operation.value: count for operation, count in self.acknowledged.items()},
            "transactions": sum(self.acknowledged.values()),
            "rows_written": self.rows_written,
            "refused": dict(self.refused),
            "reconnects": self.reconnects,
            "in_doubt": [write.to_dict() for write in self.in_doubt],
        }


@dataclass(frozen=True, kw_only=True)
class _Doubt:
    """A transaction whose COMMIT was sent and not answered."""

    xid: str
    operation: Operation
    changes: Sequence[Change]


@dataclass(kw_only=True)
class _Tally:
    acknowledged: Counter[Operation] = field(default_factory=Counter)
    rows_written: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    reconnects: int = 0


class OldProgram:
    """Does a seeded mix of everyday work on the legacy tables over one connection of its own.

    Users in `spare_users` are left alone.
    """

    def __init__(
        self,
        dsn: str,
        *,
        seed: int = 1,
        spare_users: Collection[str] = (),
        reconnect_delay_seconds: float = 0.2,
    ) -> None:
        self._dsn = dsn
        self._seed = seed
        self._spare_users = spare_users
        self._reconnect_delay_seconds = reconnect_delay_seconds
        self._rng = random.Random(seed)
        self._planned: deque[Operation] = deque()
        self._tally = _Tally()
        self._connection: Any = None
        self._doubt: _Doubt | None = None

    async def run(
        self, stop: asyncio.Event, *, writes_per_second: float, on_write: Callable[[OldWrite], None]
    ) -> OldProgramResult:
        """Work until `stop` is set, at so many transactions a second at most.

        `on_write` is called for each row, in the order of the transactions, and only after the server acknowledged the
        COMMIT; when the answer was lost, the server is asked for it before any other work. While the server is away the
        program waits and comes back; what it missed is not made up for. Raises `LoadError` when it cannot even begin.
        """
        if not (writes_per_second > 0 and math.isfinite(writes_per_second)):
            raise ValueError(f"writes_per_second must be above 0, not {writes_per_second}")
        self._tally = _Tally()
        self._connection = await self._connect()
        try:
            targets = await self._targets()
            await self._work(stop, targets=targets, interval_seconds=1 / writes_per_second, on_write=on_write)
            in_doubt = await self._last_question(on_write)
        finally:
            await self._disconnect()
        return OldProgramResult(
            acknowledged=dict(self._tally.acknowledged),
            rows_written=self._tally.rows_written,
            refused=dict(self._tally.refused),
            reconnects=self._tally.reconnects,
            in_doubt=in_doubt,
        )

    async def _connect(self) -> Any:
        connection = await open_connection(self._dsn, application_name="old-program")
        try:
            await connection.execute(_SETTINGS, timeout=STATEMENT_TIMEOUT_SECONDS)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(*LOST):
                await self._connection.close(timeout=2)
            self._connection = None

    async def _targets(self) -> Targets:
        try:
            return await find_targets(self._connection, seed=self._seed, spare_users=self._spare_users)
        except (asyncpg.PostgresError, *LOST) as error:
            raise LoadError(f"the old program cannot read the legacy tables: {one_line(error)}") from error

    async def _work(
        self,
        stop: asyncio.Event,
        *,
        targets: Targets,
        interval_seconds: float,
        on_write: Callable[[OldWrite], None],
    ) -> None:
        clock = asyncio.get_running_loop()
        due = clock.time()
        while not stop.is_set():
            due = max(due + interval_seconds, clock.time() - interval_seconds)
            await _pause(stop, seconds=due - clock.time())
            if stop.is_set():
                return
            try:
                writes = await self._attempt(targets)
            except LOST:
                await self._come_back(stop, on_write=on_write)
                continue
            except asyncpg.PostgresError as error:
                self._tally.refused[error.sqlstate or "unknown"] += 1
                continue
            for write in writes:
                on_write(write)

    def _next_operation(self, targets: Targets) -> Operation:
        if not self._planned:
            chosen = choose(self._rng, targets=targets)
            hot = chosen is Operation.CHANGE_HOT_PRICE
            self._planned.extend([chosen] * (self._rng.randint(*HOT_BURST) if hot else 1))
        return self._planned.popleft()

    async def _attempt(self, targets: Targets) -> list[OldWrite]:
        """One operation in a transaction. Once COMMIT is on its way, a loss leaves a doubt behind."""
        operation = self._next_operation(targets)
        desk = Desk(connection=self._connection, rng=self._rng, targets=targets)
        transaction = self._connection.transaction()
        async with asyncio.timeout(STATEMENT_TIMEOUT_SECONDS):
            await transaction.start()
            try:
                changes = await RECIPES[operation].run(desk)
                xid = await self._connection.fetchval("SELECT pg_current_xact_id_if_assigned()::text")
            except LOST:
                raise
            except asyncpg.PostgresError:
                await transaction.rollback()
                raise
            if not changes:
                await transaction.rollback()
                return []
            self._doubt = _Doubt(xid=xid, operation=operation, changes=changes)
            try:
                await transaction.commit()
            except LOST:
                raise
            except asyncpg.PostgresError:
                self._doubt = None
                raise
        return self._acknowledge()

    def _acknowledge(self) -> list[OldWrite]:
        """The transaction in doubt is in doubt no more: it committed."""
        doubt, self._doubt = self._doubt, None
        if doubt is None:
            return []
        self._tally.acknowledged[doubt.operation] += 1
        self._tally.rows_written += len(doubt.changes)
        return self._told(doubt)

    def _told(self, doubt: _Doubt) -> list[OldWrite]:
        now = datetime.now(UTC)
        number = self._tally.acknowledged.total()
        return [
            OldWrite(
                operation=doubt.operation,
                transaction=number,
                table=change.table,
                key=change.key,
                values=change.values,
                deleted=change.deleted,
                acknowledged_at=now,
            )
            for change in doubt.changes
        ]

    async def _come_back(self, stop: asyncio.Event, *, on_write: Callable[[OldWrite], None]) -> None:
        """Wait for the server, and settle first what became of the transaction in doubt."""
        while not stop.is_set():
            if self._connection is not None:
                self._connection.terminate()
                self._connection = None
            try:
                self._connection = await self._connect()
                writes = await self._settled()
            except (LoadError, asyncpg.PostgresError, *LOST):
                await _pause(stop, seconds=self._reconnect_delay_seconds)
                continue
            self._tally.reconnects += 1
            for write in writes:
                on_write(write)
            return

    async def _settled(self) -> list[OldWrite]:
        """Ask the server how the transaction in doubt ended."""
        doubt = self._doubt
        if doubt is not None and await has_committed(
            self._connection,
            xid=doubt.xid,
            changes=doubt.changes,
            poll_seconds=self._reconnect_delay_seconds,
        ):
            return self._acknowledge()
        self._doubt = None
        return []

    async def _last_question(self, on_write: Callable[[OldWrite], None]) -> tuple[OldWrite, ...]:
        """Settle a doubt that is left at the end, for a few seconds; what stays open is given back."""
        if self._doubt is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(LAST_QUESTION_SECONDS):
                    await self._come_back(asyncio.Event(), on_write=on_write)
        return self._still_in_doubt()

    def _still_in_doubt(self) -> tuple[OldWrite, ...]:
        return () if self._doubt is None else tuple(self._told(self._doubt))


async def _pause(stop: asyncio.Event, *, seconds: float) -> None:
    """Sleep, but not beyond the stop. Gives way to others even when there is nothing to wait for."""
    if seconds <= 0:
        await asyncio.sleep(0)
        return
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), timeout=seconds)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="old_program", description="Writes straight into the legacy tables; prints acknowledged writes."
    )
    parser.add_argument(
        "--url",
        default=os.environ.get("LEGACY_DATABASE_URL"),
        help="the legacy database; default: LEGACY_DATABASE_URL, which other users of the machine cannot see",
    )
    parser.add_argument("--writes-per-second", type=float, default=20.0, help="transactions a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--seconds", type=float, help="stop by itself after so long")
    parser.add_argument(
        "--spare-user", action="append", default=[], metavar="ID", help="leave this user alone"
    )
    found = parser.parse_args(argv)
    if not found.url:
        parser.error("LEGACY_DATABASE_URL: not set, and no --url given")
    if not (found.writes_per_second > 0 and math.isfinite(found.writes_per_second)):
        parser.error("--writes-per-second: must be above 0")
    return found


async def _run(arguments: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    if arguments.seconds is not None:
        loop.call_later(arguments.seconds, stop.set)

    def tell(write: OldWrite) -> None:
        try:
            sys.stdout.write(write.to_json() + "\n")
            sys.stdout.flush()
        except BrokenPipeError:
            # Nobody reads any more. Python flushes once again at exit, which must not fail then.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            stop.set()

    program = OldProgram(arguments.url, seed=arguments.seed, spare_users=frozenset(arguments.spare_user))
    result = await program.run(stop, writes_per_second=arguments.writes_per_second, on_write=tell)
    sys.stderr.write(json.dumps(result.to_dict(), ensure_ascii=False) + "\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run until SIGINT or SIGTERM. Acknowledged writes go to stdout, a summary to stderr. 2 when it cannot begin."""
    try:
        asyncio.run(_run(_arguments(argv)))
    except LoadError as error:
        sys.stderr.write(f"old program: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
