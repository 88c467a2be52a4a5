"""Messages that were put aside: told anew, or deleted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest

from backend.shared import ConflictError, NotFoundError, Phase, Side, ValidationError
from backend.shared.domain.errors import SideError, side_error
from backend.shared.events import dead_letters
from backend.shared.events.dead_letters import DeadLetters, Replayed
from backend.shared.events.envelope import Envelope
from tests.integration.events.test_delivery import running
from tests.support.broker_room import BrokerRoom
from tests.support.fixtures import BOTH_AUTHORITIES, Sql
from tests.support.telling import ROOM, MakeTeller, PersonAdded, Teller

OPEN = "SELECT message_id FROM tandem_people.dead_letter WHERE replayed_at IS NULL"
QUEUED = "SELECT 1 FROM tandem_people.outbox"
UNREADABLE = b'{"subject": "events.person.PersonAdded", "data": 1}'


def letters_of(teller: Teller) -> DeadLetters:
    return DeadLetters(ROOM, teller.manager.run_unit)


async def unheard(teller: Teller, count: int = 1) -> list[UUID]:
    """Messages that were put aside, since nobody hears them."""
    told = [
        Envelope.of(PersonAdded(person_id=number, email="-"), correlation_id="-").model_copy(
            update={"subject": "events.person.Unheard"}
        )
        for number in range(count)
    ]
    for envelope in told:
        await teller.consumer.take(envelope.model_dump_json().encode())
    return [envelope.id for envelope in told]


@BOTH_AUTHORITIES
async def test_what_cannot_be_read_is_not_told_anew(make_teller: MakeTeller, *, phase: Phase) -> None:
    """Whoever hears its subject could only put it aside again, and without a subject no broker takes it."""
    teller = await make_teller(phase)
    await teller.consumer.take(UNREADABLE)
    letters = letters_of(teller)
    (stand_in,) = await letters.page(limit=10)
    with pytest.raises(ConflictError, match=f"the dead letter {stand_in.message_id} is a stand-in"):
        await letters.replay(stand_in.message_id)
    await unheard(teller)
    assert await letters.replay_all() == Replayed(told=1, stand_ins=1)
    assert [letter.message_id for letter in await letters.page(limit=10)] == [stand_in.message_id]


async def test_what_is_told_anew_leaves_the_outbox(
    make_teller: MakeTeller, broker: BrokerRoom, legacy_sql: Sql
) -> None:
    """A broker takes all of it."""
    teller = await make_teller(Phase.DUALWRITE)
    await teller.consumer.take(b"no JSON")
    await unheard(teller, 2)
    async with running(teller, broker):
        await letters_of(teller).replay_all()
        await legacy_sql.until(QUEUED, found=False)


@BOTH_AUTHORITIES
async def test_one_is_deleted(make_teller: MakeTeller, *, phase: Phase) -> None:
    teller = await make_teller(phase)
    (readable,) = await unheard(teller)
    await teller.consumer.take(UNREADABLE)
    letters = letters_of(teller)
    (stand_in,) = [letter for letter in await letters.page(limit=10) if letter.is_stand_in]
    await letters.discard(stand_in.message_id.upper())
    assert [letter.message_id for letter in await letters.page(limit=10)] == [str(readable)]
    with pytest.raises(NotFoundError, match="there is no dead letter"):
        await letters.discard(stand_in.message_id)
    await letters.replay(str(readable))
    with pytest.raises(NotFoundError):
        await letters.discard(str(readable))


Act = Callable[[DeadLetters, str], Awaitable[object]]


@pytest.mark.parametrize("act", [DeadLetters.replay, DeadLetters.discard])
async def test_ids_are_read_as_ids(make_teller: MakeTeller, legacy_sql: Sql, act: Act) -> None:
    teller = await make_teller(Phase.DUALWRITE)
    (number,) = await unheard(teller)
    for wrong in ("abc", "", "\0", f"{number}0"):
        with pytest.raises(ValidationError, match="is no id of a message"):
            await act(letters_of(teller), wrong)
    with pytest.raises(NotFoundError):
        await act(letters_of(teller), str(uuid4()))
    assert len(await legacy_sql(OPEN)) == 1
    await act(letters_of(teller), str(number).upper())
    assert await legacy_sql(OPEN) == []


async def test_many_are_told_anew_some_at_a_time(
    make_teller: MakeTeller, legacy_sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Broken off, it leaves what was told, and a repetition tells the rest."""
    monkeypatch.setattr(dead_letters, "BATCH_LETTERS", 2)
    teller = await make_teller(Phase.DUALWRITE)
    await unheard(teller, 4)
    await teller.consumer.take(UNREADABLE)
    units = 0

    async def away_at_the_second(operation: str, unit: Any) -> Any:
        nonlocal units
        units += 1
        if units == 2:
            raise side_error(Side.LEGACY, "not there", unavailable=True)
        return await teller.manager.run_unit(operation, unit)

    letters = DeadLetters(ROOM, away_at_the_second)
    with pytest.raises(SideError, match="not there"):
        await letters.replay_all()
    first = len(await legacy_sql(QUEUED))
    assert first in {1, 2}  # the one that cannot be read may be among them
    assert len(await legacy_sql(OPEN)) == 5 - first
    assert await letters.replay_all() == Replayed(told=4 - first, stand_ins=1)
    assert len(await legacy_sql(QUEUED)) == 4
    assert units == 2 + (3 if first == 1 else 2)


async def test_what_fails_again_meanwhile_stays(
    make_teller: MakeTeller, legacy_sql: Sql, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A letter that comes back as fast as it is told would be told for ever."""
    monkeypatch.setattr(dead_letters, "BATCH_LETTERS", 1)
    teller = await make_teller(Phase.DUALWRITE)
    await unheard(teller, 3)

    async def failing_again(operation: str, unit: Any) -> Any:
        done = await teller.manager.run_unit(operation, unit)
        await legacy_sql("UPDATE tandem_people.dead_letter SET replayed_at = NULL, failed_at = now()")
        return done

    assert await DeadLetters(ROOM, failing_again).replay_all() == Replayed(told=3)
    assert len(await legacy_sql(OPEN)) == 3
