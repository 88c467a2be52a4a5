"""What may not creep up unseen: statements and round trips of each operation, and the plans of the hot queries.

Speed itself is reported by `make bench`, not gated: only what is the same on every machine can fail here.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import asyncpg
import pytest
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from backend.shared import Direction, Phase, Side, UnitOfWork, runtime
from backend.shared.journal.repository import JournalRepository
from backend.shared.stores.postgres.names import EngineNames
from backend.shared.stores.postgres.store import entity_sql
from backend.shared.testing.clusters import Databases
from benchmarks.wire import Count, CountingWire, counting_wire
from tests.support.fixtures import BOTH_AUTHORITIES, MakeManager, Sql
from tests.support.people import NOTE, PERSON, PeopleManager, folk, notes, people

ROWS = 20_000
NAMES = EngineNames("people")
PLANNED = pytest.mark.parametrize("times", [1, 8], ids=["planned at first", "planned after some executions"])
"""From the sixth time on the server may keep one plan for whatever arguments come."""


@dataclass(frozen=True, kw_only=True)
class Wired:
    """A manager whose every byte goes through counting wires, and the side that is authoritative."""

    manager: PeopleManager
    wires: dict[Side, CountingWire]
    first: Side

    async def spent(self, operation: Callable[[], Awaitable[object]]) -> dict[Side, Count]:
        """What an operation asks of each side once connections are open and statements prepared.

        The least of some tries: the manager's own reading of the phase, once a second, may fall into one of them.
        """
        found = []
        for _ in range(9):
            before = {side: wire.count for side, wire in self.wires.items()}
            await operation()
            found.append({side: wire.count - before[side] for side, wire in self.wires.items()})
        return min(found, key=lambda counts: sum(count.round_trips for count in counts.values()))


MakeWired = Callable[..., Awaitable[Wired]]


@pytest.fixture
async def make_wired(
    make_manager: MakeManager, people_databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[MakeWired]:
    # What a process asks each second of its own accord is none of what is counted here.
    monkeypatch.setattr(runtime, "REFRESH_SECONDS", 3600.0)
    async with (
        counting_wire(people_databases.legacy_url) as legacy,
        counting_wire(people_databases.new_url) as new,
    ):
        wires = {Side.LEGACY: legacy, Side.NEW: new}
        managers = []

        async def make(phase: Phase, **settings: Any) -> Wired:
            urls = {side: wire.url for side, wire in wires.items()}
            manager = await make_manager(phase, url=urls, **settings)
            managers.append(manager)
            return Wired(manager=manager, wires=wires, first=phase.policy.authoritative)

        yield make
        for manager in managers:
            await manager.close()  # while the wires are there


async def test_an_asynchronous_write_asks_no_more_than_a_plain_one(make_wired: MakeWired) -> None:
    """BEGIN with the unit's mark, INSERT, COMMIT; the other side hears nothing."""
    wired = await make_wired(Phase.DUALWRITE)
    numbers = iter(range(100))

    async def unit(work: UnitOfWork) -> None:
        await work.session.execute(insert(folk).values(mail=f"{next(numbers)}@example.org", nm="Ann"))

    spent = await wired.spent(lambda: wired.manager.write("add", unit))
    assert spent[Side.LEGACY] == Count(statements=4, round_trips=3)
    assert spent[Side.NEW] == Count()


@BOTH_AUTHORITIES
async def test_a_write_through_the_unit_of_work(make_wired: MakeWired, *, phase: Phase) -> None:
    """On legacy one round trip more, for the key: it is needed before the projection is evaluated."""
    wired = await make_wired(phase)
    made = await wired.manager.write("add", lambda work: work.insert("person", {people.c.email: "a@x.org"}))
    (person,) = made.unwrap()

    async def unit(work: UnitOfWork) -> None:
        await work.insert("note", {notes.c.person_id: person, notes.c.body: "x"})

    spent = await wired.spent(lambda: wired.manager.write("add_note", unit))
    more = 1 if wired.first is Side.LEGACY else 0
    assert spent[wired.first] == Count(statements=4 + more, round_trips=3 + more)
    assert spent[wired.first.other] == Count()


@BOTH_AUTHORITIES
async def test_a_synchronous_write(make_wired: MakeWired, *, phase: Phase) -> None:
    """Bounded, and the same for every write."""
    wired = await make_wired(phase, async_legacy=False)
    made = await wired.manager.write("add", lambda work: work.insert("person", {people.c.email: "a@x.org"}))
    (person,) = made.unwrap()

    async def unit(work: UnitOfWork) -> None:
        await work.insert("note", {notes.c.person_id: person, notes.c.body: "x"})

    spent = await wired.spent(lambda: wired.manager.write("add_note", unit))
    assert sum(count.round_trips for count in spent.values()) <= 24
    assert spent[wired.first.other].round_trips <= 10


async def test_a_relay_pass_costs_the_same_whatever_its_size(make_wired: MakeWired, legacy_sql: Sql) -> None:
    wired = await make_wired(Phase.DUALWRITE, batch_size=1000)
    relay = wired.manager.relay()
    counts = {}
    # The first two open connections and prepare the statements on each: the pool hands them out in turn.
    for size in (5, 6, 10, 100, 1000):
        await legacy_sql(
            "INSERT INTO folk (mail) SELECT $1::text || '-' || n FROM generate_series(1, $1) AS n", size
        )
        before = [wire.count for wire in wired.wires.values()]
        done = await relay.run_once()
        assert done.carried == size
        counts[size] = sum(
            (wire.count - old for wire, old in zip(wired.wires.values(), before, strict=True)), Count()
        )
    assert counts[10].statements == counts[100].statements == counts[1000].statements
    assert counts[10].round_trips == counts[100].round_trips == counts[1000].round_trips
    assert counts[1000].statements <= 20
    assert counts[1000].statements / 1000 <= 0.05


class Recorder:
    """Stands in for a connection, to learn what a repository would send."""

    def __init__(self) -> None:
        self.statement = ""

    async def exec_driver_sql(self, statement: str, _parameters: object = None) -> list[object]:
        self.statement = statement
        return []


async def _claim_statement() -> str:
    recorder = Recorder()
    await JournalRepository(NAMES).claim(cast("AsyncConnection", recorder), limit=100)
    return recorder.statement


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from _nodes(child)


async def _plan(
    url: str, statement: str, *, types: str, arguments: Sequence[str], times: int
) -> list[dict[str, Any]]:
    """The nodes of the plan that a prepared statement has when it is asked for it the `times`th time."""
    connection = await asyncpg.connect(url, server_settings={"jit": "off"})
    try:
        await connection.execute(f"PREPARE hot ({types}) AS {statement}")
        for _ in range(times):
            found = await connection.fetchval(f"EXPLAIN (FORMAT JSON) EXECUTE hot ({', '.join(arguments)})")
    finally:
        await connection.close()
    return list(_nodes(json.loads(found)[0]["Plan"]))


def _scanned_whole(plan: Sequence[dict[str, Any]]) -> set[str]:
    return {node["Relation Name"] for node in plan if node["Node Type"] == "Seq Scan"}


def _indexes(plan: Sequence[dict[str, Any]]) -> set[str]:
    return {node["Index Name"] for node in plan if "Index Name" in node}


KEYS = "'{" + ",".join(f"[{number}]" for number in range(101, 201)) + "}'"


@pytest.fixture
async def filled(make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql) -> PeopleManager:
    """Both sides with as many rows as a reading of all of them would be felt, and a journal as long."""
    manager = await make_manager(Phase.DUALWRITE)
    for statement in (
        f"INSERT INTO folk (mail) SELECT n FROM generate_series(1, {ROWS}) AS n",
        "INSERT INTO folk_extra SELECT folk_no, 'Ulm' FROM folk",
        "INSERT INTO notes (folk_no, body) SELECT folk_no, 'x' FROM folk",
        "ANALYZE",
    ):
        await legacy_sql(statement)
    for statement in (
        f"INSERT INTO people (email) SELECT n FROM generate_series(1, {ROWS}) AS n",
        "INSERT INTO profiles SELECT id, 'Ulm' FROM people",
        "INSERT INTO notes (person_id, body) SELECT id, 'x' FROM people",
        (
            f"INSERT INTO {NAMES.guard} SELECT 'person', '[' || n || ']', 1, 1, 0 "
            f"FROM generate_series(1, {ROWS}) AS n"
        ),
        "ANALYZE",
    ):
        await new_sql(statement)
    return manager


@PLANNED
async def test_the_claim_goes_by_the_primary_key(
    filled: PeopleManager, people_databases: Databases, times: int
) -> None:
    """Oldest first, without sorting the journal."""
    plan = await _plan(
        people_databases.legacy_url,
        await _claim_statement(),
        types="bigint",
        arguments=["100"],
        times=times,
    )
    lock = next(node for node in plan if node["Node Type"] == "LockRows")
    (scan,) = lock["Plans"]
    assert (scan["Node Type"], scan["Index Name"]) == ("Index Scan", "journal_pkey")
    assert "Sort" not in {node["Node Type"] for node in plan}
    assert not _scanned_whole(plan)


@PLANNED
@pytest.mark.parametrize("direction", list(Direction))
async def test_state_is_read_by_the_keys_of_its_tables(
    filled: PeopleManager, people_databases: Databases, direction: Direction, times: int
) -> None:
    url = people_databases.legacy_url if direction is Direction.TO_NEW else people_databases.new_url
    expected = {
        (Direction.TO_NEW, "person"): {"folk_pkey", "folk_extra_pkey"},
        (Direction.TO_NEW, "note"): {"notes_pkey"},
        (Direction.TO_LEGACY, "person"): {"people_pkey", "profiles_pkey"},
        (Direction.TO_LEGACY, "note"): {"notes_pkey"},
    }
    for entity in (PERSON, NOTE):
        statement = entity_sql(entity, direction).read_state
        plan = await _plan(url, statement, types="text[]", arguments=[KEYS], times=times)
        assert not _scanned_whole(plan), entity.name
        assert _indexes(plan) == expected[direction, entity.name]


@PLANNED
async def test_rows_are_matched_with_moved_keys_by_hash(
    filled: PeopleManager, people_databases: Databases, times: int
) -> None:
    """Not each with each: with a thousand keys a batch that took longer than all the rest."""
    (statement,) = [projection.upsert for projection in entity_sql(NOTE, Direction.TO_NEW).projections]
    plan = await _plan(
        people_databases.new_url,
        statement,
        types="text, text[]",
        arguments=["'[]'", KEYS],
        times=times,
    )
    (scan,) = [node for node in plan if node["Node Type"] == "Function Scan"]
    assert "Filter" not in scan
    assert {"Hash Join", "Hash"} <= {node["Node Type"] for node in plan}
