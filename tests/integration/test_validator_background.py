"""Validation in the background: incremental, full at an interval of its own, one process of a service at a time."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
import structlog

from backend.shared import Phase, Side, SyncValidator
from backend.shared.background_validation import validate_periodically
from backend.shared.domain.errors import side_error
from backend.shared.observability.labels import RunKind, Verdict
from backend.shared.validation.report import ValidationReport
from backend.shared.validation.runs import BEGINNERS_LOCK
from tests.support.fixtures import MakeManager, Sql
from tests.support.people import PeopleManager
from tests.support.steps import PauseAt
from tests.support.validating import COMPARED, carried, grow_silent

QUEUED = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"


async def due(manager: PeopleManager) -> ValidationReport | None:
    return await SyncValidator(manager.runtime, chunk_rows=100).run_in_background()


async def wait_an_interval(new_sql: Sql, seconds: int = 300) -> None:
    await new_sql(
        "UPDATE tandem_people.validation_run SET started_at = started_at - make_interval(secs => $1), "
        "finished_at = finished_at - make_interval(secs => $1)",
        seconds + 1,
    )


async def test_first_full_then_incremental_then_full_again(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await carried(make_manager, legacy_sql, 10)
    kinds = []
    for seconds in (0, 300, 300, 86_400):
        await wait_an_interval(new_sql, seconds)
        report = await due(manager)
        assert report is not None
        assert await due(manager) is None, "not before the interval has gone by, whoever asks"
        kinds.append(report.kind)
    assert kinds == [RunKind.FULL, RunKind.CHANGED, RunKind.CHANGED, RunKind.FULL]


async def test_full_run_asked_for_by_hand_counts(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await carried(make_manager, legacy_sql, 10)
    await SyncValidator(manager.runtime).run(["person"])
    await SyncValidator(manager.runtime).run(share=0.5)
    assert (await SyncValidator(manager.runtime).run(changed=True)).verdict is Verdict.EQUAL
    report = await due(manager)
    assert (report and report.kind) is RunKind.FULL, "neither an entity nor a sample is everything"
    await new_sql("UPDATE tandem_people.validation_run SET background = false")
    report = await due(manager)
    assert (report and report.kind) is RunKind.CHANGED


async def test_full_interval_below_the_other_means_full_every_time(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await carried(make_manager, legacy_sql, 10, full_sync_interval_seconds=60.0)
    for _ in range(2):
        report = await due(manager)
        assert (report and report.kind) is RunKind.FULL
        await wait_an_interval(new_sql)


async def test_one_process_at_a_time_and_another_when_it_dies(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    await carried(make_manager, legacy_sql)
    pause = PauseAt(COMPARED)
    first, second = await make_manager(hook=pause), await make_manager()
    running = asyncio.ensure_future(due(first))
    await asyncio.wait_for(pause.reached.wait(), timeout=10)
    assert await due(second) is None
    await grow_silent(new_sql)
    report = await due(second)
    assert report is not None
    assert (report.resumed, report.verdict) == (True, Verdict.EQUAL)
    running.cancel()
    await asyncio.wait([running])
    assert [row["state"] for row in await new_sql("SELECT state FROM tandem_people.validation_run")] == [
        "finished"
    ]


async def test_put_off_while_a_backfill_runs(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    manager = await carried(make_manager, legacy_sql, 10)
    await new_sql(
        "INSERT INTO tandem_people.backfill_control (heartbeat_at, changed_by) VALUES (clock_timestamp(), 'test')"
    )
    assert await due(manager) is None
    await new_sql(
        "UPDATE tandem_people.backfill_control SET heartbeat_at = heartbeat_at - interval '1 minute'"
    )
    assert await due(manager) is not None


async def test_many_that_ask_at_once_are_one_run(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    """All of them have come to the place where they queue up before the first is let in."""
    await carried(make_manager, legacy_sql, 10)
    managers = [await make_manager() for _ in range(5)]
    gate = await asyncpg.connect(new_sql.url)
    async with gate.transaction():
        await gate.execute(f"SELECT pg_advisory_xact_lock({BEGINNERS_LOCK}, hashtext('tandem_people'))")
        asked = [asyncio.ensure_future(due(manager)) for manager in managers]
        async with asyncio.timeout(10):
            while await gate.fetchval(QUEUED) < len(asked):  # noqa: ASYNC110 - a lock gives no sign
                await asyncio.sleep(0.01)
    reports = await asyncio.gather(*asked)
    await gate.close()
    assert sum(report is not None for report in reports) == 1


async def test_stopped_process_leaves_its_run_to_the_next(
    make_manager: MakeManager, legacy_sql: Sql, new_sql: Sql
) -> None:
    await carried(make_manager, legacy_sql)
    pause, stop = PauseAt(COMPARED), asyncio.Event()
    first = await make_manager(hook=pause, sync_interval_seconds=0.1)
    running = asyncio.ensure_future(validate_periodically(first.runtime, stop))
    await asyncio.wait_for(pause.reached.wait(), timeout=10)
    stop.set()
    await asyncio.wait_for(running, timeout=2)
    report = await due(await make_manager())
    assert report is not None
    assert report.resumed


class SetWhenAskedFor(asyncio.Event):
    """An event that is set when somebody has asked so often whether it is."""

    def __init__(self, *, times: int) -> None:
        super().__init__()
        self._left = times

    def is_set(self) -> bool:
        self._left -= 1
        if self._left == 0:
            self.set()
        return super().is_set()


@pytest.mark.parametrize(("phase", "validate_sync"), [(Phase.OFF, True), (Phase.DUALWRITE, False)])
async def test_nothing_to_do(
    make_manager: MakeManager, new_sql: Sql, *, phase: Phase, validate_sync: bool
) -> None:
    manager = await make_manager(phase, sync_interval_seconds=0.01, validate_sync=validate_sync)
    await asyncio.wait_for(validate_periodically(manager.runtime, SetWhenAskedFor(times=20)), timeout=10)
    assert await new_sql("SELECT FROM tandem_people.validation_run") == []


async def test_log_names_the_kind_of_run(make_manager: MakeManager, legacy_sql: Sql) -> None:
    manager = await carried(make_manager, legacy_sql, 10, sync_interval_seconds=0.1)
    stop, kinds = asyncio.Event(), set[str]()
    with structlog.testing.capture_logs() as lines:
        running = asyncio.ensure_future(validate_periodically(manager.runtime, stop))
        async with asyncio.timeout(10):
            while len(kinds) < 2:
                await asyncio.sleep(0.02)
                kinds = {line["kind"] for line in lines if line["event"] == "entity_validated"}
        stop.set()
        await running
    assert kinds == {"full", "changed"}


async def test_trouble_is_logged_and_tried_again(make_manager: MakeManager, legacy_sql: Sql) -> None:
    await carried(make_manager, legacy_sql)
    failed, tried_again = asyncio.Event(), asyncio.Event()

    async def fail_once(step: str) -> None:
        if step == COMPARED and failed.is_set():
            tried_again.set()
        elif step == COMPARED:
            failed.set()
            raise side_error(Side.LEGACY, "went away", unavailable=True)

    manager = await make_manager(hook=fail_once, sync_interval_seconds=0.1)
    stop = asyncio.Event()
    with structlog.testing.capture_logs() as lines:
        running = asyncio.ensure_future(validate_periodically(manager.runtime, stop))
        await asyncio.wait_for(tried_again.wait(), timeout=15)
    assert [line["error"] for line in lines if line["event"] == "validation_failed"] == [
        "legacy side: went away"
    ]
    stop.set()
    await asyncio.wait_for(running, timeout=2)
