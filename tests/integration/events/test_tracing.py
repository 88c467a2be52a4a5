"""A trace goes through the outbox and a real broker, and what is wrong with it stops no message."""

from __future__ import annotations

import json

from backend.shared import Phase
from backend.shared.events.delivery import publish
from backend.shared.events.envelope import Envelope
from tests.integration.events.test_delivery import running
from tests.support.broker_room import BrokerRoom
from tests.support.fixtures import Sql
from tests.support.telling import MakeTeller, PersonAdded, Teller
from tests.support.tracing import Spans

GREETED = "SELECT 1 FROM tandem_people.greetings HAVING count(*) = 1"


async def test_recorded_published_and_taken_in_over_nats_in_one_trace(
    make_teller: MakeTeller, broker: BrokerRoom, legacy_sql: Sql, spans: Spans
) -> None:
    teller = await make_teller(Phase.DUALWRITE)
    async with running(teller, broker):
        told = await teller.add("one@example.org")
        await legacy_sql.until(GREETED)
    subject = told.subject
    (taken,) = spans.named(f"take {subject}")
    assert spans.ancestors(taken) == [
        "write add",
        f"record {subject}",
        f"publish {subject}",
        f"take {subject}",
    ]
    (greeted,) = spans.named("write take_PersonAdded")
    assert spans.ancestors(greeted)[-2:] == [f"take {subject}", "write take_PersonAdded"]
    assert "one@example.org" not in str([span.to_json() for span in spans.all()])


class Kept:
    """A broker that keeps what it is given. Implements `Publisher`."""

    def __init__(self) -> None:
        self.messages: list[tuple[Envelope, bytes]] = []

    async def publish(self, envelope: Envelope, body: bytes, *, again: str = "") -> None:
        self.messages.append((envelope, body))


async def test_what_was_recorded_untraced_is_traced_from_its_delivery_on(spans: Spans) -> None:
    """As after an update of a service. What the present version does not know stays in the message."""
    event = PersonAdded(person_id=1, email="one@example.org")
    recorded = Envelope.of(event, correlation_id="c").model_dump(mode="json") | {"later": [1, "x"]}
    broker = Kept()
    await publish(broker, json.dumps(recorded).encode())
    ((envelope, body),) = broker.messages
    (published,) = spans.all()
    assert (published.name, published.parent) == ("publish events.person.PersonAdded", None)
    assert published.context is not None
    assert envelope.trace["traceparent"].split("-")[2] == f"{published.context.span_id:016x}"
    assert json.loads(body) == recorded | {"trace": envelope.trace}


GARBAGE: list[object] = ["nonsense", None, 5, {"traceparent": 5}, {"traceparent": "00-ab"}]


async def take_all(teller: Teller, sql: Sql) -> None:
    for number, trace in enumerate(GARBAGE, start=1):
        told = await teller.add(f"{number}@example.org")
        body = told.model_dump(mode="json") | {"trace": trace}
        await teller.consumer.take(json.dumps(body).encode())
    greeted = await sql("SELECT count(*) AS n FROM tandem_people.greetings WHERE times = 1")
    assert greeted[0]["n"] == len(GARBAGE)
    assert await sql("SELECT 1 FROM tandem_people.dead_letter") == []


async def test_a_message_whose_trace_is_garbage_is_taken_in(
    make_teller: MakeTeller, legacy_sql: Sql, spans: Spans
) -> None:
    await take_all(await make_teller(Phase.DUALWRITE), legacy_sql)
    taken = spans.named("take events.person.PersonAdded")
    assert [span.parent for span in taken] == [None] * len(GARBAGE)


async def test_a_message_whose_trace_is_garbage_is_taken_in_by_who_does_not_trace(
    make_teller: MakeTeller, legacy_sql: Sql
) -> None:
    await take_all(await make_teller(Phase.DUALWRITE), legacy_sql)
