"""What becomes of a message that cannot be taken in: it waits, or it is put aside, and nothing of it is lost."""

from __future__ import annotations

import pytest
from sqlalchemy.exc import NoResultFound
from structlog.testing import capture_logs

from backend.shared import AwayError, Phase
from backend.shared.events import consumer as consumers
from backend.shared.events.consumer import ATTEMPTS
from backend.shared.events.dead_letters import DeadLetters, Replayed
from tests.integration.events.test_delivery import running
from tests.support.broker_room import BrokerRoom
from tests.support.fixtures import Sql
from tests.support.telling import ROOM, MakeTeller, PersonAdded, Teller

GREETED = "SELECT times FROM tandem_people.greetings"
DEAD = "SELECT attempts, reason, replayed_at FROM tandem_people.dead_letter"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumers, "DELAY_SECONDS", 0.01)
    monkeypatch.setattr(consumers, "MOST_DELAY_SECONDS", 0.01)


class Fails:
    """A handler's step that fails so many times."""

    def __init__(self, error: Exception, *, times: int) -> None:
        self.error, self.times, self.tried = error, times, 0

    async def __call__(self, _: PersonAdded) -> None:
        self.tried += 1
        if self.tried <= self.times:
            raise self.error


async def told(teller: Teller, fails: Fails) -> bytes:
    teller.before_greeting = fails
    return (await teller.add("one@example.org")).model_dump_json().encode()


async def test_a_message_that_always_fails_is_put_aside(make_teller: MakeTeller, legacy_sql: Sql) -> None:
    teller = await make_teller(Phase.DUALWRITE)
    fails = Fails(ValueError("no such thing"), times=100)
    await teller.consumer.take(await told(teller, fails))
    assert fails.tried == ATTEMPTS
    (letter,) = await legacy_sql(DEAD)
    assert letter["attempts"] == ATTEMPTS
    assert letter["reason"].startswith("ValueError: at ")
    assert "test_taking_in.py" in letter["reason"]
    assert await legacy_sql(GREETED) == []


async def test_a_message_that_fails_for_a_while_is_taken_in(make_teller: MakeTeller, legacy_sql: Sql) -> None:
    teller = await make_teller(Phase.DUALWRITE)
    await teller.consumer.take(await told(teller, Fails(ValueError("not yet"), times=ATTEMPTS - 1)))
    assert await legacy_sql(DEAD) == []
    assert [row["times"] for row in await legacy_sql(GREETED)] == [1]


async def test_while_something_is_away_a_message_waits(make_teller: MakeTeller, legacy_sql: Sql) -> None:
    """However often it is tried meanwhile."""
    teller = await make_teller(Phase.DUALWRITE)
    fails = Fails(AwayError("nobody there"), times=3 * ATTEMPTS)
    await teller.consumer.take(await told(teller, fails))
    assert fails.tried == 3 * ATTEMPTS + 1
    assert await legacy_sql(DEAD) == []
    assert [row["times"] for row in await legacy_sql(GREETED)] == [1]


async def test_a_handler_that_does_not_find_its_row_is_not_a_database_that_is_away(
    make_teller: MakeTeller, legacy_sql: Sql
) -> None:
    teller = await make_teller(Phase.DUALWRITE)
    fails = Fails(NoResultFound("No row was found when one was required"), times=ATTEMPTS)
    await teller.consumer.take(await told(teller, fails))
    assert [letter["reason"].partition(":")[0] for letter in await legacy_sql(DEAD)] == ["NoResultFound"]
    assert await legacy_sql(GREETED) == []


async def test_what_was_put_aside_is_told_anew_though_the_broker_has_kept_it_a_moment_ago(
    make_teller: MakeTeller, broker: BrokerRoom, legacy_sql: Sql
) -> None:
    teller = await make_teller(Phase.DUALWRITE)
    await told(teller, Fails(ValueError("no such thing"), times=ATTEMPTS))
    async with running(teller, broker):
        await legacy_sql.until("SELECT 1 FROM tandem_people.dead_letter")
        assert await DeadLetters(ROOM, teller.manager.run_unit).replay_all() == Replayed(told=1)
        await legacy_sql.until(GREETED)
    assert await DeadLetters(ROOM, teller.manager.run_unit).page(limit=10) == []


@pytest.mark.parametrize("data", [{"person_id": "s3cret"}, {"person_id": 1, "email": "s3cret"}])
async def test_no_value_of_a_message_reaches_the_log_or_the_reason(
    make_teller: MakeTeller, legacy_sql: Sql, data: dict[str, object]
) -> None:
    """Neither that of what cannot be read, nor that of what a handler says."""
    teller = await make_teller(Phase.DUALWRITE)

    async def refuse(event: PersonAdded) -> None:
        raise ValueError(f"{event.email} is nobody")

    teller.before_greeting = refuse
    told = (await teller.add("one@example.org")).model_copy(update={"data": data})
    with capture_logs() as logs:
        await teller.consumer.take(told.model_dump_json().encode())
        await teller.consumer.take(b'{"id": "s3cret", "version": "s3cret"}')
    letters = await legacy_sql(DEAD)
    assert len(letters) == 2
    assert {"message_failed", "message_put_aside"} <= {line["event"] for line in logs}
    assert "s3cret" not in f"{logs} {[letter['reason'] for letter in letters]}"
