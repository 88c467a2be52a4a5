"""Whatever comes ends: its effect, or a dead letter that holds all of it. None holds up those behind it."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from backend.shared import Phase, Side, ValidationError
from backend.shared.domain.errors import side_error
from backend.shared.events import consumer as consumers
from backend.shared.events.consumer import ATTEMPTS
from backend.shared.events.dead_letters import DeadLetter, DeadLetters
from backend.shared.events.envelope import Envelope
from backend.shared.events.transport import TAKEN_AT_ONCE
from tests.integration.events.test_delivery import running
from tests.support.broker_room import BrokerRoom
from tests.support.fixtures import BOTH_AUTHORITIES, Sql
from tests.support.telling import ROOM, MakeTeller, PersonAdded, Teller

ENDS_SECONDS = 5.0
UNREADABLE = {
    "zero bytes": b"\x00\x01",
    "no UTF-8": b"\xff no JSON",
    "half of a pair": rb'{"a": "\ud800"}',
    "a name with a zero": rb'{"subject": "a\u0000b", "type": "\udfff", "data": {}}',
    "too deep": b"[" * 100_000,
    "too deep a name": b'{"subject": ' + b"[" * 900 + b"]" * 900 + b"}",
    "a number without end": b"1" * 5000,
}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "DELAY_SECONDS", 0.01)
    monkeypatch.setattr(consumers, "MOST_DELAY_SECONDS", 0.01)


async def put_aside(teller: Teller, body: bytes) -> DeadLetter:
    """Take a message in that comes twice; answers the one letter that is made of it."""
    async with asyncio.timeout(ENDS_SECONDS):
        for _ in range(2):
            await teller.consumer.take(body)
    (letter,) = await DeadLetters(ROOM, teller.manager.run_unit).page(limit=10)
    return letter


def body_of(letter: DeadLetter) -> bytes:
    """What came, of which the letter is a stand-in."""
    data = letter.envelope.data
    return base64.b64decode(data["base64"]) if "base64" in data else str(data["body"]).encode()


async def refuse(_: PersonAdded) -> None:
    raise ValidationError("not\0her")


@BOTH_AUTHORITIES
@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
async def test_what_cannot_be_read_is_put_aside_whole(
    make_teller: MakeTeller, body: bytes, *, phase: Phase
) -> None:
    letter = await put_aside(await make_teller(phase), body)
    assert (letter.is_stand_in, letter.attempts) == (True, 2)
    assert body_of(letter) == body


async def test_what_can_be_read_and_not_be_kept_is_put_aside_whole(make_teller: MakeTeller) -> None:
    """Under its own id, and with its own names as far as they can be kept."""
    teller = await make_teller(Phase.DUALWRITE)
    teller.before_greeting = refuse
    told = Envelope.of(PersonAdded(person_id=1, email="a\0b"), correlation_id="story\0")
    body = told.model_dump_json().encode()
    letter = await put_aside(teller, body)
    assert (letter.message_id, letter.is_stand_in) == (str(told.id), True)
    assert (letter.envelope.subject, letter.envelope.correlation_id) == (told.subject, "story\\x00")
    assert (letter.reason, letter.attempts) == ("ValidationError: not\\x00her", 2 * ATTEMPTS)
    assert body_of(letter) == body


async def test_while_a_database_is_away_a_letter_waits_and_stays_as_it_is(make_teller: MakeTeller) -> None:
    teller = await make_teller(Phase.DUALWRITE)
    teller.before_greeting = refuse
    told = await teller.add("one@example.org")
    tries = 0

    async def away_at_first(operation: str, unit: Any) -> Any:
        nonlocal tries
        if operation == "put_aside":
            tries += 1
            if tries <= 3:
                raise side_error(Side.LEGACY, "not there", unavailable=True)
        return await teller.manager.run_unit(operation, unit)

    teller.consumer.run = away_at_first
    letter = await put_aside(teller, told.model_dump_json().encode())
    assert tries == 3 + 2
    assert (letter.is_stand_in, letter.envelope) == (False, told)


async def test_what_nobody_hears_is_kept_as_it_is(make_teller: MakeTeller) -> None:
    """A later version may hear it, once it is told anew."""
    teller = await make_teller(Phase.DUALWRITE)
    told = await teller.add("one@example.org")
    unheard = told.model_copy(update={"subject": "events.person.Unheard"})
    letter = await put_aside(teller, unheard.model_dump_json().encode())
    assert (letter.is_stand_in, letter.envelope) == (False, unheard)
    assert letter.reason == "UnheardError: there is no handler for its subject"


@pytest.mark.parametrize(
    "subject", ["", "people", "events.person.a b", "events.>", "other.person.PersonAdded"]
)
async def test_what_no_broker_would_take_again_is_kept_by_a_stand_in(
    make_teller: MakeTeller, subject: str
) -> None:
    teller = await make_teller(Phase.DUALWRITE)
    told = (await teller.add("one@example.org")).model_copy(update={"subject": subject})
    letter = await put_aside(teller, told.model_dump_json().encode())
    assert (letter.message_id, letter.is_stand_in) == (str(told.id), True)


async def test_poison_holds_up_nobody(make_teller: MakeTeller, broker: BrokerRoom, legacy_sql: Sql) -> None:
    """As many as a process takes in side by side, and those behind them."""
    teller = await make_teller(Phase.DUALWRITE)
    async with running(teller, broker) as transport:
        for number in range(TAKEN_AT_ONCE + 1):
            envelope = Envelope.of(PersonAdded(person_id=number, email="-"), correlation_id="-")
            await transport.publish(envelope, b"\x00\x01" + bytes([number]))
        await teller.add("one@example.org")
        await legacy_sql.until("SELECT 1 FROM tandem_people.greetings")
        await legacy_sql.until(
            f"SELECT 1 FROM tandem_people.dead_letter HAVING count(*) = {TAKEN_AT_ONCE + 1}"
        )
