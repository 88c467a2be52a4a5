"""What is recorded: the kinds that a service has said it tells, and a task to deliver each unless somebody else does."""

from __future__ import annotations

from typing import ClassVar

import pytest

from backend.shared import Phase, UnitOfWork
from backend.shared.events.dead_letters import DeadLetters, Replayed
from backend.shared.events.delivered_by import DeliveredBy
from backend.shared.events.envelope import Envelope
from backend.shared.events.outbox import Outbox, envelope_of
from tests.support.fixtures import Sql
from tests.support.telling import ROOM, MakeTeller, PersonAdded, Teller


class PersonWhispered(PersonAdded):
    message_type: ClassVar[str] = "PersonWhispered"


async def counts(sql: Sql) -> tuple[int, int]:
    """Of what was recorded, and of what is to be delivered."""
    events = await sql("SELECT 1 FROM tandem_people.event")
    return len(events), len(await sql("SELECT 1 FROM tandem_people.outbox"))


async def test_a_kind_that_was_not_declared_is_refused_with_its_change(
    make_teller: MakeTeller, legacy_sql: Sql
) -> None:
    teller = await make_teller(Phase.DUALWRITE)

    async def unit(work: UnitOfWork) -> None:
        await teller.outbox.record(work, PersonAdded(person_id=1, email="a@example.org"))
        await teller.outbox.record(work, PersonWhispered(person_id=1, email="a@example.org"))

    with pytest.raises(ValueError, match="PersonWhispered is not among the messages that this service tells"):
        await teller.manager.run_unit("whisper", unit)
    assert await counts(legacy_sql) == (0, 0)


async def test_where_somebody_else_delivers_nothing_is_queued_but_what_is_replayed(
    make_teller: MakeTeller, legacy_sql: Sql
) -> None:
    teller = await make_teller(Phase.DUALWRITE)
    teller.outbox = Outbox(ROOM, tells={PersonAdded}, delivered_by=DeliveredBy.NONE)
    told = await teller.add("a@example.org")
    assert await counts(legacy_sql) == (1, 0)
    (kept,) = await legacy_sql("SELECT payload::text AS body FROM tandem_people.event")
    assert envelope_of(kept["body"]) == told

    await _put_aside(teller, told)
    assert await DeadLetters(ROOM, teller.manager.run_unit).replay_all() == Replayed(told=1)
    assert await counts(legacy_sql) == (1, 1)


async def _put_aside(teller: Teller, told: Envelope) -> None:
    """As a message that nobody hears."""
    body = told.model_copy(update={"subject": "events.person.Unheard"}).model_dump_json().encode()
    await teller.consumer.take(body)
