"""What holds a backfill, and what ends it: limits, pauses, outages, lost streams."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from backend.shared.domain.errors import ConfigurationError
from backend.shared.domain.phases import Side
from backend.shared.migration.backfill import Backfill
from backend.shared.migration.backfill_state import BackfillLimits
from backend.shared.migration.chunk_copy import _pieces, _unless_lost
from backend.shared.testing.clusters import Databases
from tests.support.backfilling import FOLK, progress_of, small
from tests.support.fixtures import MakeManager, Sql
from tests.support.state import assert_equal_sides


@pytest.mark.parametrize(
    "limits",
    [
        {"max_rows_per_second": -1.0},
        {"max_lag_seconds": -1.0},
        {"max_connection_share": 1.5},
        {"workers": 0},
        {"workers": 65},
    ],
)
def test_limits_that_cannot_be(limits: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(limits))):
        BackfillLimits().changed(limits)


async def test_a_watch_that_fails_ends_the_backfill_and_does_not_hold_it_for_ever(
    make_manager: MakeManager, legacy_sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the watch did not think of: it is what lets go of a backfill that trouble holds."""
    await legacy_sql(FOLK.format(rows=50))
    manager = await make_manager()
    work = small(manager)
    looked = 0

    async def fails() -> float:
        nonlocal looked
        looked += 1
        if looked > 1:
            raise RuntimeError("of nobody's making")
        raise ConnectionResetError

    await work.tell(limits=BackfillLimits(max_connection_share=0.9))
    monkeypatch.setattr(manager.runtime.stores[Side.LEGACY], "connection_share", fails)
    async with asyncio.timeout(20):
        with pytest.raises(RuntimeError, match="nobody's making"):
            await work.run()


async def test_lag_connections_and_pause_hold_it_and_it_says_so(
    make_manager: MakeManager, legacy_sql: Sql, people_databases: Databases
) -> None:
    """One after the other, each told while it runs."""
    await legacy_sql(FOLK.format(rows=50))
    manager = await make_manager()
    await legacy_sql(
        "INSERT INTO tandem_people.journal (entity, key, captured_at) VALUES ('person', '[1]', now() - interval '1 minute')"
    )
    work = small(manager)
    await work.tell(limits=BackfillLimits(max_lag_seconds=10))
    running = asyncio.create_task(work.run())

    async def held_by(word: str) -> None:
        async with asyncio.timeout(20):
            while word not in ((await work.status()).control.held_by or ""):
                assert not running.done()
                await asyncio.sleep(0.02)

    await held_by("relay lag")
    await work.tell(limits=BackfillLimits(max_lag_seconds=None, max_connection_share=0.001))
    await held_by("connections")
    await work.tell(paused=True, limits=BackfillLimits())
    await held_by("paused")
    assert progress_of(await work.status(), "person").rows_copied == 0
    await manager.relay().drain(timeout_seconds=10)
    await work.tell(paused=False)
    assert (await asyncio.wait_for(running, 20)).is_complete
    await assert_equal_sides(people_databases)


async def test_an_outage_holds_it_and_does_not_end_it(
    make_manager: MakeManager, legacy_sql: Sql, people_databases: Databases, new_sql: Sql
) -> None:
    await legacy_sql(FOLK.format(rows=50))
    manager = await make_manager()
    cut = False

    async def hook(step: str) -> None:
        nonlocal cut
        if step == "backfill_before_commit" and not cut:
            cut = True
            await new_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )

    work = Backfill(manager.runtime, first_chunk_rows=16, hook=hook)
    assert (await asyncio.wait_for(work.run(), 30)).is_complete
    assert cut
    await assert_equal_sides(people_databases)


async def test_a_consumer_that_leaves_ends_the_stream() -> None:
    """The queue is full when the target is the slower one: ending must not wait for room in it."""

    class Endless:
        async def copy_from_query(self, _query: str, *, output: Any, **_: Any) -> None:
            while True:
                await output(b"piece")

    async with asyncio.timeout(5):
        async with _pieces(Endless(), "SELECT", "binary") as pieces:
            await anext(pieces)
            await asyncio.sleep(0)  # the reader fills the queue meanwhile


async def test_a_lost_connection_ends_the_copy_into_it() -> None:
    class Lost:
        def add_termination_listener(self, note: Any) -> None:
            asyncio.get_running_loop().call_soon(note, self)

        def remove_termination_listener(self, note: Any) -> None:
            pass

    async def stuck() -> str:
        await asyncio.Event().wait()
        return "COPY 0"

    async with asyncio.timeout(5):
        with pytest.raises(ConnectionResetError):
            await _unless_lost(Lost(), stuck())
