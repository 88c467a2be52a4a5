"""Helpers of the backfill's races: history, and a backfill that stands at a step."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg

from backend.shared import Phase, Side
from backend.shared.journal.carrier import Hook, no_hook
from backend.shared.migration.backfill import Backfill, BackfillStatus
from backend.shared.migration.backfill_state import BackfillLimits
from backend.shared.testing.clusters import Databases
from tests.support.fixtures import MakeManager
from tests.support.people import PeopleManager
from tests.support.steps import PauseAt

PEOPLE = 30
FILL = {
    Phase.DUALWRITE: f"""
INSERT INTO folk (folk_no, mail, nm, cents) SELECT n, 'p' || n, 'before', n FROM generate_series(1, {PEOPLE}) AS n;
INSERT INTO folk_extra SELECT n, 'Ulm' FROM generate_series(1, {PEOPLE}, 2) AS n;
INSERT INTO notes (note_no, folk_no, body) SELECT n, n, 'note' FROM generate_series(1, {PEOPLE}) AS n""",
    Phase.RAMPDOWN: f"""
INSERT INTO people (id, email, name, credit) SELECT n, 'p' || n, 'before', n FROM generate_series(1, {PEOPLE}) AS n;
INSERT INTO profiles SELECT n, 'Ulm' FROM generate_series(1, {PEOPLE}, 2) AS n;
INSERT INTO notes (id, person_id, body) SELECT n, n, 'note' FROM generate_series(1, {PEOPLE}) AS n""",
}


async def execute(url: str, script: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(script)
    finally:
        await connection.close()


async def filled(databases: Databases, make_manager: MakeManager, phase: Phase = Phase.DUALWRITE) -> None:
    """History that no journal knows of, on the authoritative side."""
    side = phase.policy.authoritative
    await execute(databases.legacy_url if side is Side.LEGACY else databases.new_url, FILL[phase])
    (await make_manager(phase)).relay()  # installs


def backfill(manager: PeopleManager, hook: Hook = no_hook) -> Backfill:
    """A backfill in small chunks, several of them at once."""
    return Backfill(manager.runtime, chunk_seconds=0.001, first_chunk_rows=4, hook=hook)


async def paused_at(step: str, manager: PeopleManager) -> tuple[PauseAt, asyncio.Task[BackfillStatus]]:
    """A backfill with one worker, that stands at `step` with the first chunk in its hands."""
    pause = PauseAt(step)
    work = backfill(manager, pause)
    await work.tell(limits=BackfillLimits(workers=1))
    running = asyncio.create_task(work.run())
    await asyncio.wait_for(pause.reached.wait(), 10)
    return pause, running


async def finish(
    manager: PeopleManager, pause: PauseAt, running: asyncio.Task[BackfillStatus]
) -> BackfillStatus:
    pause.resume.set()
    found = await asyncio.wait_for(running, 20)
    assert found.is_complete
    assert await manager.relay().drain(timeout_seconds=10)
    return found


async def is_blocked(task: asyncio.Task[Any], databases: Databases, side: Side) -> bool:
    """Whether `task` stands because its connection waits for a lock, seen in the server: no guess by time."""
    connection = await asyncpg.connect(databases.new_url if side is Side.NEW else databases.legacy_url)
    try:
        while not task.done():
            if await connection.fetchval(
                "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' "
                "AND datname = current_database())"
            ):
                return True
            await asyncio.sleep(0.01)
        return False
    finally:
        await connection.close()
