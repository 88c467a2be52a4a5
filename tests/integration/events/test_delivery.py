"""Events go with their change or not at all, reach the broker at least once, and have their effect once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from backend.shared import Phase
from backend.shared.events.outbox import envelope_of
from backend.shared.events.transport import Transport
from tests.support.broker_room import BrokerRoom
from tests.support.fixtures import Sql
from tests.support.phases import change
from tests.support.telling import MakeTeller, Teller


@asynccontextmanager
async def running(teller: Teller, broker: BrokerRoom) -> AsyncIterator[Transport]:
    """The service delivers and listens."""
    transport = broker.transport()
    teller.consumer.listen(transport)
    async with AsyncExitStack() as stack:
        await transport.start()
        stack.push_async_callback(transport.stop)
        for delivery in teller.deliveries(transport):
            await delivery.start()
            stack.push_async_callback(delivery.stop)
        yield transport


async def test_what_is_told_arrives_and_has_its_effect_once(
    make_teller: MakeTeller, broker: BrokerRoom, legacy_sql: Sql
) -> None:
    teller = await make_teller(Phase.DUALWRITE)
    async with running(teller, broker):
        told = [await teller.add(f"{n}@example.org") for n in range(5)]
        await legacy_sql.until("SELECT 1 FROM tandem_people.greetings HAVING count(*) = 5")
        # Once more, as after an acknowledgement that was lost; the stream itself drops what it has kept a moment ago.
        (kept,) = await legacy_sql(
            "SELECT payload::text AS body FROM tandem_people.event WHERE id = $1", told[0].id
        )
        await teller.consumer.take(kept["body"].encode())
    assert await legacy_sql("SELECT 1 FROM tandem_people.greetings WHERE times <> 1") == []
    assert await legacy_sql("SELECT 1 FROM tandem_people.outbox") == []
    positions = [item.position for item in told if item.position is not None]
    assert len(positions) == len(told)
    assert positions == sorted(positions)
    assert envelope_of(kept["body"]) == told[0]


@pytest.mark.invariant("I1")
async def test_i1_what_was_taken_in_before_a_cutover_is_known_after_it(
    make_teller: MakeTeller, new_sql: Sql
) -> None:
    """The broker may bring it again on whichever side has the authority then."""
    teller = await make_teller(Phase.SHADOW)
    told = await teller.add("one@example.org")
    body = told.model_dump_json().encode()
    await teller.consumer.take(body)
    await change(teller.manager, Phase.LIVE, force=["lag", "validation", "shadow-reads", "backfill"])
    await teller.consumer.take(body)
    assert [row["times"] for row in await new_sql("SELECT times FROM greetings")] == [1]
    assert [str(row["id"]) for row in await new_sql("SELECT id FROM event")] == [str(told.id)]
