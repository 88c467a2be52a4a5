"""A pair of unlike databases: what a dual write costs, how fast history moves, and how fast it is compared.

The ways of writing take turns with the plain writes on either server as in `benchmarks.writes`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from pymongo import AsyncMongoClient
from rich.console import Console

from backend.legacy_documents.generator import DocumentGenerator
from backend.legacy_documents.size import DocumentsSize
from backend.shared import Phase
from backend.shared.migration.backfill import Backfill
from backend.shared.observability.labels import Verdict
from backend.shared.sync_validator import SyncValidator
from backend.shared.testing.document_servers import DocumentServer
from benchmarks.document_ways import (
    DocumentWay,
    Pair,
    document_server,
    document_ways,
    make_pair,
    plain_document,
    plain_row,
)
from benchmarks.load import Load, drive, joined
from benchmarks.report import Result
from benchmarks.stack import Stack
from benchmarks.ways import Operation

ROUNDS = 4
SECONDS = 1.5
"""Of one way and of both plain writes beside it, together, in one round."""
BURST_SECONDS = 0.1
WARM_UP_SECONDS = 0.3
WRITERS = (1, 16)
DOCUMENTS = 20_000
COPIES = 1


@dataclass(frozen=True, kw_only=True)
class _Turn:
    """A way of writing and both plain ones, over the same stretch of time."""

    way: Load
    documents: Load
    rows: Load


async def measure_documents(stack: Stack, console: Console) -> list[Result]:
    """Dual writes at each number of writers; documents copied and compared per second."""
    with document_server(stack) as server:
        return [*await _writes(stack, server, console), *await _history(stack, server, console)]


async def _writes(stack: Stack, server: DocumentServer, console: Console) -> list[Result]:
    pair = await make_pair(stack, server, phase=Phase.DUALWRITE)
    ways = document_ways(pair, await make_pair(stack, server, phase=Phase.RAMPDOWN))
    turns: dict[tuple[int, str], list[_Turn]] = {}
    order = random.Random(7)
    async with plain_document(pair) as documents, plain_row(pair) as rows:
        for round_ in range(ROUNDS):
            console.print(f"  round {round_ + 1} of {ROUNDS}", style="dim")
            for writers in WRITERS:
                for way in order.sample(ways, len(ways)):
                    found = await _turn(way, documents, rows, writers)
                    turns.setdefault((writers, way.name), []).append(found)
    results = []
    for writers in WRITERS:
        every = [turn for way in ways for turn in turns[writers, way.name]]
        results += _plain("plain_document", writers, [turn.documents for turn in every])
        results += _plain("plain_row", writers, [turn.rows for turn in every])
        for way in ways:
            results += _dual(way.name, writers, turns[writers, way.name])
    return results


async def _turn(way: DocumentWay, documents: Operation, rows: Operation, writers: int) -> _Turn:
    taken: tuple[list[Load], list[Load], list[Load]] = ([], [], [])
    async with way.open() as operation:
        operations = (operation, documents, rows)
        for warmed in operations:
            await drive(warmed, writers=writers, seconds=WARM_UP_SECONDS)
        deadline = time.perf_counter() + SECONDS
        while time.perf_counter() < deadline:
            for loads, measured in zip(taken, operations, strict=True):
                loads.append(await drive(measured, writers=writers, seconds=BURST_SECONDS))
    await way.tidy()
    return _Turn(way=joined(taken[0]), documents=joined(taken[1]), rows=joined(taken[2]))


def _plain(name: str, writers: int, loads: Sequence[Load]) -> list[Result]:
    name = _name(name, writers)
    return [
        Result(name=f"{name}.per_second", value=median(load.throughput for load in loads), unit="1/s"),
        Result(name=f"{name}.median", value=median(load.percentile(50) * 1000 for load in loads), unit="ms"),
        Result(name=f"{name}.p99", value=median(load.percentile(99) * 1000 for load in loads), unit="ms"),
    ]


def _dual(way: str, writers: int, turns: Sequence[_Turn]) -> list[Result]:
    """Throughput against each plain write, by rounds; and latencies."""
    value = median(turn.way.throughput for turn in turns)
    against = [
        Result(
            name=f"{_name(way, writers)}.{figure}",
            value=value,
            unit="1/s",
            peer=peer,
            peer_value=median(load.throughput for load in plain),
            ratio=median(
                turn.way.throughput / load.throughput for turn, load in zip(turns, plain, strict=True)
            ),
        )
        for figure, peer, plain in (
            ("per_second", "plain write on MongoDB", [turn.documents for turn in turns]),
            ("per_second_by_rows", "plain write on PostgreSQL", [turn.rows for turn in turns]),
        )
    ]
    return against + _plain(way, writers, [turn.way for turn in turns])[1:]


def _name(way: str, writers: int) -> str:
    return f"documents.{way}.{writers}_writer{'s' if writers > 1 else ''}"


async def _history(stack: Stack, server: DocumentServer, console: Console) -> list[Result]:
    copied: list[float] = []
    again: list[float] = []
    compared: list[float] = []
    for number in range(COPIES):
        console.print(f"  history {number + 1} of {COPIES}: {DOCUMENTS:,} documents", style="dim")
        pair = await make_pair(stack, server, phase=Phase.DUALWRITE)
        count = await _fill(pair)
        manager = pair.manager(phase=Phase.DUALWRITE)
        try:
            await manager.start()
            for speeds in (copied, again):
                started = time.perf_counter()
                if not (await Backfill(manager.runtime).run()).is_complete:
                    raise RuntimeError("the backfill did not end")
                speeds.append(count / (time.perf_counter() - started))
            started = time.perf_counter()
            report = await SyncValidator(manager.runtime).run()
            compared.append(count / (time.perf_counter() - started))
            if report.verdict is not Verdict.EQUAL:
                raise RuntimeError(f"not what was to be measured: {report.verdict_text}")
        finally:
            await manager.close()
        server.drop_database(pair.rows_url.rpartition("/")[2])
    return [
        Result(name="documents.backfill.per_second", value=median(copied), unit="documents/s"),
        Result(name="documents.backfill.again.per_second", value=median(again), unit="documents/s"),
        Result(name="documents.validate.per_second", value=median(compared), unit="documents/s"),
    ]


async def _fill(pair: Pair) -> int:
    """Awkward documents of all ten collections, every one of which fits; answers how many."""
    generator = DocumentGenerator(size=DocumentsSize.of_total(DOCUMENTS, misfits_per_kind=0))
    async with AsyncMongoClient[dict[str, object]](pair.documents_url) as client:
        database = client.get_default_database()
        for collection, documents in generator.batches():
            await database[collection].insert_many(documents, ordered=False)
    return generator.size.total
