"""What every message broker has to do. By itself over NATS; `--broker rabbitmq`, or `--broker kafka --broker-url kafka://…`, for others.

No case asks for an order, nor that a message comes once only.
"""

from __future__ import annotations

import asyncio
import sys

from backend.shared.events.envelope import Envelope
from backend.shared.testing.programs import REPOSITORY
from tests.support.broker_room import WAIT_SECONDS, BrokerRoom, Knocked, Listener, Rang, tell, told


async def test_each_consumer_gets_each_kind_that_it_listens_to(broker: BrokerRoom) -> None:
    both = await broker.listens("both", Rang, Knocked)
    one = await broker.listens("one", Knocked)
    publisher = await broker.started()
    rung = await told(publisher, *range(10))
    knocked = await told(publisher, *range(10), kind=Knocked)
    await both.until_all([*rung, *knocked])
    await one.until_all(knocked)
    assert set(one.ids) == {envelope.id for envelope in knocked}


async def test_what_is_taken_is_what_was_told(broker: BrokerRoom) -> None:
    """Byte for byte; what is no message at all too, or nobody could put it aside."""
    listener = await broker.listens("one")
    publisher = await broker.started()
    envelope = Envelope.of(Rang(number=1), correlation_id="1")
    bodies = [envelope.model_dump_json().encode(), b"{no json \xff", b'"\xc3\xa9"']
    for number, body in enumerate(bodies):
        await publisher.publish(Envelope.of(Rang(number=number), correlation_id="1"), body)
    await listener.until(lambda: set(bodies) <= set(listener.taken))


async def test_processes_of_one_consumer_share(broker: BrokerRoom) -> None:
    first, second = [await broker.listens("one") for _ in range(2)]
    both = asyncio.Barrier(2)

    def meet(listener: Listener) -> None:
        """What it takes first is held until the other has something too."""

        async def before(_body: bytes) -> None:
            listener.before = None
            await both.wait()

        listener.before = before

    meet(first)
    meet(second)
    envelopes = await told(await broker.started(), *range(60))
    await first.until(lambda: {envelope.id for envelope in envelopes} <= {*first.ids, *second.ids})
    assert first.taken
    assert second.taken


async def test_who_begins_later_gets_what_was_told_before(broker: BrokerRoom) -> None:
    publisher = await broker.started()
    before = await told(publisher, *range(250))
    await told(publisher, 1, kind=Knocked)
    listener = await broker.listens("late")
    after = await told(publisher, *range(5))
    await listener.until_all([*before, *after])
    assert set(listener.ids) == {envelope.id for envelope in [*before, *after]}


async def test_what_was_acknowledged_is_not_told_to_who_begins_anew(broker: BrokerRoom) -> None:
    first = await broker.listens("one")
    publisher = await broker.started()
    old = await told(publisher, *range(10))
    await first.until_all(old)
    await first.transport.stop()
    meanwhile = await told(publisher, *range(5))
    second = await broker.listens("one")
    await second.until_all([*meanwhile, *await told(publisher, *range(5))])
    assert not {envelope.id for envelope in old} & set(second.ids)


async def test_what_was_refused_comes_again(broker: BrokerRoom) -> None:
    listener = broker.listener("one")
    refused: list[bytes] = []

    async def before(body: bytes) -> None:
        if body not in refused:
            refused.append(body)
            raise RuntimeError("not yet")

    listener.before = before
    await listener.transport.start()
    envelopes = await told(await broker.started(), *range(3))
    await listener.until_all(envelopes)
    assert len(refused) == 3


async def test_what_a_killed_process_had_taken_comes_again(broker: BrokerRoom) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.support.taking_process", broker.url, broker.name, "one"),
        stdout=asyncio.subprocess.PIPE,
        cwd=REPOSITORY,
    )
    assert process.stdout is not None
    try:
        envelopes = await told(await broker.started(), *range(3))
        async with asyncio.timeout(WAIT_SECONDS):
            assert await process.stdout.readline() == b"taken\n"
    finally:
        process.kill()  # SIGKILL
        await process.wait()
    listener = await broker.listens("one")
    await listener.until_all(envelopes)


async def test_one_id_told_twice_at_once_and_told_anew(broker: BrokerRoom) -> None:
    """The first two may come as one; what is told anew comes."""
    listener = await broker.listens("one")
    publisher = await broker.started()
    envelope = Envelope.of(Rang(number=1), correlation_id="1")
    await tell(publisher, envelope)
    await tell(publisher, envelope)
    (sentinel,) = await told(publisher, 2)
    await listener.until_all([envelope, sentinel])
    # Both of the first have come by now, if they come: told by who has come to know of neither.
    before = listener.ids.count(envelope.id)
    assert before in {1, 2}
    await tell(publisher, envelope, again="2026-01-01T00:00:00+00:00")
    await listener.until(lambda: listener.ids.count(envelope.id) > before)


async def test_stopping_may_be_repeated(broker: BrokerRoom) -> None:
    listener = await broker.listens("one")
    for _ in range(2):
        await listener.transport.stop()
