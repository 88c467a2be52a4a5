"""A process that delivers is killed: what the broker had not kept comes, and what it had comes again where nobody knew of it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from contextlib import suppress

import pytest

from backend.shared import Phase, Side
from backend.shared.events.delivery import Delivery
from backend.shared.events.envelope import Envelope
from backend.shared.testing.clusters import Databases
from backend.shared.testing.programs import REPOSITORY
from tests.support.fixtures import Sql
from tests.support.publishing import Publishing
from tests.support.telling import ROOM, MakeTeller

TOLD = 40


@pytest.mark.invariant("I7")
@pytest.mark.parametrize("kept", [0, 1, 30])
async def test_i7_a_killed_delivery_loses_no_message(
    make_teller: MakeTeller, people_databases: Databases, legacy_sql: Sql, kept: int
) -> None:
    teller = await make_teller(Phase.DUALWRITE)
    for number in range(TOLD):
        await teller.add(f"{number}@example.org")
    killed = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.delivering_process",
        str(kept),
        cwd=REPOSITORY,
        env=os.environ | {"LEGACY_URL": people_databases.legacy_url},
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            said, _ = await killed.communicate()
    finally:
        with suppress(ProcessLookupError):
            killed.kill()
    assert killed.returncode == -signal.SIGKILL
    before = said.decode().split()
    assert len(before) == kept
    # The leases of the dead process run out.
    left = await legacy_sql(
        "UPDATE tandem_people.outbox SET acquired_at = acquired_at - interval '1 hour' RETURNING id"
    )
    after: list[str] = []

    async def keep(envelope: Envelope) -> None:
        after.append(str(envelope.id))

    delivery = Delivery(
        teller.manager.runtime.engines[Side.LEGACY], ROOM.tables[Side.LEGACY], Publishing(keep)
    )
    await delivery.start()
    await legacy_sql.until("SELECT 1 WHERE NOT EXISTS (SELECT FROM tandem_people.outbox)")
    await delivery.stop()
    assert {*before, *after} == {str(told.id) for told in teller.told}
    assert len(after) == len(left), "each row that was left came once"
