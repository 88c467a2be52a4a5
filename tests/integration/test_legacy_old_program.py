"""The old program: what it tells is what the tables hold, whatever happens to its connection."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
from asyncpg.transaction import Transaction

from backend.legacy_shop import LoadError, ShopSize, create_schema, load_generated
from backend.legacy_shop.old_operations import Change
from backend.legacy_shop.old_program import OldProgram, OldProgramResult, OldWrite, Operation
from backend.legacy_shop.old_settlement import has_committed
from backend.legacy_shop.old_writes import KEYS
from backend.shared.testing.clusters import Cluster
from tests.conftest import MakeDatabase, MakeTemplate

SIZE = ShopSize(products=200, categories=30, users=150, carts=300, lines=1_200, wishes=200)
FAST = 5_000.0
LIMIT_SECONDS = 40


async def build(url: str) -> None:
    await create_schema(url)
    await load_generated(url, size=SIZE)


@pytest.fixture(scope="session")
def template(legacy_cluster: Cluster, make_template: MakeTemplate) -> str:
    return make_template(legacy_cluster, "legacy_shop_of_1200_lines", build)


@pytest.fixture
async def url(legacy_cluster: Cluster, make_database: MakeDatabase, template: str) -> str:
    return await make_database(legacy_cluster, template=template)


async def fetch(url: str, query: str) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(query)]
    finally:
        await connection.close()


async def grown(told: list[OldWrite]) -> None:
    """Wait until a hundred more writes are told."""
    before = len(told)
    while len(told) < before + 100:  # noqa: ASYNC110 - the list tells nobody
        await asyncio.sleep(0.01)


async def run_until(
    program: OldProgram,
    enough: Callable[[list[OldWrite]], bool],
    *,
    rate: float = FAST,
) -> tuple[list[OldWrite], OldProgramResult]:
    """The writes told until there were enough."""
    stop = asyncio.Event()
    told: list[OldWrite] = []

    def on_write(write: OldWrite) -> None:
        told.append(write)
        if enough(told):
            stop.set()

    async with asyncio.timeout(LIMIT_SECONDS):
        result = await program.run(stop, writes_per_second=rate, on_write=on_write)
    return told, result


async def lost(url: str, told: list[OldWrite]) -> list[str]:
    """What was told and is not so in the tables. A later write to the same column stands for an earlier one."""
    ledger: dict[tuple[str, Any], dict[str, Any] | None] = {}
    for write in told:
        place = (write.table, write.key)
        ledger[place] = None if write.deleted else {**(ledger.get(place) or {}), **write.values}
    tables: dict[str, dict[Any, dict[str, Any]]] = {}
    for table, key in KEYS.items():
        rows = await fetch(url, f"SELECT {key}, to_jsonb(t.*) FROM {table} t")
        tables[table] = {found: json.loads(row) for found, row in rows}
    missing: list[str] = []
    for (table, key), expected in ledger.items():
        row = tables[table].get(key)
        if expected is None:
            missing += [f"{table} {key} came back"] if row is not None else []
        elif row is None or expected.items() - row.items():
            missing.append(f"{table} {key}: {expected} is {row}")
    return missing


async def test_it_does_all_its_work_and_tells_the_truth(url: str) -> None:
    told, result = await run_until(
        OldProgram(url), lambda told: {write.operation for write in told} == set(Operation)
    )

    assert await lost(url, told) == []
    assert result.rows_written == len(told)
    assert set(result.acknowledged) == set(Operation)
    assert (result.refused, result.in_doubt, result.reconnects) == ({}, (), 0)


async def test_it_leaves_stock_and_open_carts_and_change_times_alone(url: str) -> None:
    queries = (
        "SELECT prod_no, qty_on_hand, chg FROM prod ORDER BY 1",
        "SELECT * FROM carts WHERE state = 'O' ORDER BY 1",
        "SELECT l.* FROM cart_lines l JOIN carts USING (cart_no) WHERE state = 'O' ORDER BY 1",
        "SELECT usr_id, last_upd FROM users WHERE usr_id NOT LIKE 'old-%' ORDER BY 1",
    )
    before = [await fetch(url, query) for query in queries]
    told, _ = await run_until(OldProgram(url, seed=3), lambda told: len(told) > 1_000)
    assert [await fetch(url, query) for query in queries] == before
    assert {write.values["state"] for write in told if "state" in write.values} == {"C"}


async def test_a_subtree_is_renamed_as_a_whole(url: str) -> None:
    def renamed_a_subtree(told: list[OldWrite]) -> bool:
        last = [write for write in told if write.transaction == told[-1].transaction]
        return last[0].operation is Operation.RENAME_CATEGORY and len(last) > 2

    told, _ = await run_until(OldProgram(url), renamed_a_subtree)
    orphans = await fetch(
        url,
        "SELECT cat_path FROM cat c WHERE cat_path LIKE '%/%' AND NOT EXISTS"
        " (SELECT FROM cat p WHERE p.cat_path = regexp_replace(c.cat_path, '/[^/]+$', ''))",
    )
    assert orphans == []
    assert await lost(url, told) == []


async def test_the_same_seed_does_the_same_work(
    legacy_cluster: Cluster, make_database: MakeDatabase, template: str
) -> None:
    runs = []
    for seed in (5, 5, 6):
        url = await make_database(legacy_cluster, template=template)
        told, _ = await run_until(OldProgram(url, seed=seed), lambda told: len(told) >= 200)
        runs.append([(write.operation, write.table, write.key) for write in told[:200]])
    assert runs[0] == runs[1] != runs[2]


async def test_spared_users_are_left_alone(url: str) -> None:
    everyone = {str(row[0]) for row in await fetch(url, "SELECT usr_id FROM users")}
    spared = everyone - {"user123"}
    told, _ = await run_until(OldProgram(url, spare_users=spared), lambda told: len(told) > 500)
    assert not {write.key for write in told if write.table == "users"} & spared


async def test_the_server_is_away_for_a_while(url: str, legacy_cluster: Cluster) -> None:
    told: list[OldWrite] = []
    stop = asyncio.Event()
    program = OldProgram(url, reconnect_delay_seconds=0.02)
    running = asyncio.create_task(program.run(stop, writes_per_second=FAST, on_write=told.append))
    async with asyncio.timeout(LIMIT_SECONDS):
        for _ in range(2):
            await grown(told)
            await asyncio.to_thread(legacy_cluster.stop, "immediate")
            await asyncio.to_thread(legacy_cluster.start)
        await grown(told)
        stop.set()
        result = await running

    assert result.reconnects >= 2
    assert result.in_doubt == ()
    assert await lost(url, told) == []


@pytest.mark.parametrize("committed", [True, False])
async def test_a_commit_whose_answer_was_lost_is_asked_for(
    url: str, monkeypatch: pytest.MonkeyPatch, *, committed: bool
) -> None:
    honest = Transaction.commit
    doubted: list[str] = []

    async def commit(transaction: Any) -> None:
        connection = transaction._connection
        if not doubted:
            doubted.append(await connection.fetchval("SELECT pg_current_xact_id()::text"))
            if committed:
                await honest(transaction)
            connection.terminate()
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        await honest(transaction)

    monkeypatch.setattr(Transaction, "commit", commit)
    told, result = await run_until(OldProgram(url, seed=2), lambda told: told[-1].transaction >= 20)

    operations: dict[int, str] = {write.transaction: write.operation for write in told}
    assert result.reconnects == 1
    assert sum(result.acknowledged.values()) == len(operations) == 20
    assert await fetch(url, f"SELECT pg_xact_status('{doubted[0]}'::xid8)") == [
        ("committed" if committed else "aborted",)
    ]
    assert await lost(url, told) == []


@pytest.mark.parametrize(("price", "happened"), [(77, True), (78, False)])
async def test_a_number_that_a_crashed_server_gave_out_again_does_not_pass_for_the_lost_commit(
    url: str, *, price: int, happened: bool
) -> None:
    connection = await asyncpg.connect(url)
    async with connection.transaction():
        xid = await connection.fetchval("SELECT pg_current_xact_id()::text")
        await connection.execute("UPDATE prod SET price_cents = 77 WHERE prod_no = 1")
    changes = [Change(table="prod", key=1, values={"price_cents": price})]
    assert await has_committed(connection, xid=xid, changes=changes, poll_seconds=0.01) is happened
    await connection.close()


async def test_a_number_that_the_server_has_not_given_out_was_lost_in_a_crash(url: str) -> None:
    connection = await asyncpg.connect(url)
    xid = await connection.fetchval("SELECT pg_snapshot_xmax(pg_current_snapshot())::text")
    assert not await has_committed(connection, xid=str(int(xid) + 1_000), changes=[], poll_seconds=0.01)
    await connection.close()


async def test_what_the_server_refuses_is_counted_and_not_told(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'closed'; END $$;"
        "CREATE TRIGGER refuse BEFORE UPDATE ON prod FOR EACH STATEMENT EXECUTE FUNCTION refuse()"
    )
    await connection.close()
    told, result = await run_until(OldProgram(url), lambda told: len(told) > 100)
    assert result.refused["P0001"] > 0
    assert not [write for write in told if write.table == "prod"]
    assert await lost(url, told) == []


async def test_it_keeps_to_its_pace(url: str) -> None:
    started = asyncio.get_running_loop().time()
    _, result = await run_until(OldProgram(url), lambda told: told[-1].transaction >= 10, rate=20)
    assert asyncio.get_running_loop().time() - started >= sum(result.acknowledged.values()) / 20 - 0.05


async def test_it_stops_at_once_while_it_waits_for_its_turn(url: str) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(OldProgram(url).run(stop, writes_per_second=0.001, on_write=lambda _: None))
    await asyncio.sleep(0.2)
    stop.set()
    async with asyncio.timeout(5):
        assert (await running).rows_written == 0


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
async def test_a_pace_that_is_none_is_refused(url: str, rate: float) -> None:
    with pytest.raises(ValueError, match="must be above 0"):
        await OldProgram(url).run(asyncio.Event(), writes_per_second=rate, on_write=lambda _: None)


async def test_it_cannot_begin_without_the_tables(
    legacy_cluster: Cluster, make_database: MakeDatabase
) -> None:
    empty = await make_database(legacy_cluster)
    with pytest.raises(LoadError, match="cannot read the legacy tables"):
        await OldProgram(empty).run(asyncio.Event(), writes_per_second=1, on_write=lambda _: None)


async def start_process(
    url: str, *arguments: str, stdout: int = asyncio.subprocess.PIPE
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "backend.legacy_shop.old_program", *arguments),
        env={**os.environ, "LEGACY_DATABASE_URL": url},
        stdout=stdout,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_as_a_process_it_prints_its_ledger_and_ends_on_sigterm(url: str) -> None:
    process = await start_process(url, "--writes-per-second", "200")
    assert process.stdout is not None
    lines = [await process.stdout.readline() for _ in range(50)]
    process.send_signal(signal.SIGTERM)
    rest, errors = await process.communicate()
    told = [OldWrite.from_json(line) for line in (b"".join(lines) + rest).decode().splitlines()]

    assert process.returncode == 0
    assert await lost(url, told) == []
    assert json.loads(errors)["rows_written"] == len(told)
    assert OldWrite.from_json(told[0].to_json()) == told[0]


async def test_as_a_process_it_ends_by_itself_when_nobody_reads(url: str) -> None:
    reading, writing = os.pipe()
    process = await start_process(url, "--writes-per-second", "200", stdout=writing)
    os.close(writing)
    await asyncio.to_thread(os.read, reading, 1)
    os.close(reading)
    async with asyncio.timeout(10):
        assert await process.wait() == 0


async def test_as_a_process_it_says_in_one_line_why_it_cannot_begin() -> None:
    process = await start_process("postgresql://shop:hush@127.0.0.1:1/poc")
    _, errors = await process.communicate()
    assert process.returncode == 2
    assert len(errors.splitlines()) == 1
    assert b"hush" not in errors
