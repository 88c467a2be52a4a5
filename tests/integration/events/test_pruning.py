"""What grows with every message is cut off at its old end, on whichever side has the authority, and the other one follows."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy.event import listen, remove

from backend.shared import ConfigurationError, Phase, Side
from backend.shared.events.dead_letters import DeadLetters
from backend.shared.events.pruning import BATCH_ROWS, DAY_SECONDS, MessageRetention, Pruning
from backend.shared.observability.metrics import Metrics
from tests.support.fixtures import BOTH_AUTHORITIES, Sql
from tests.support.read_stage import carry
from tests.support.telling import ROOM, MakeTeller, Teller

OLD, YOUNG = 31 * DAY_SECONDS, 29 * DAY_SECONDS
INBOX = (
    "INSERT INTO {0}.inbox (consumer, message_id, received_at) "
    "SELECT 'people', gen_random_uuid(), now() - make_interval(secs => $2) FROM generate_series(1, $1)"
)
EVENTS = (
    "INSERT INTO {0}.event (id, aggregatetype, aggregateid, type, subject, payload, recorded_at) "
    "SELECT gen_random_uuid(), 'person', n, 'PersonAdded', 's', '{{}}', now() - make_interval(secs => $2) "
    "FROM generate_series(1, $1) AS n"
)
DEAD = (
    "INSERT INTO {0}.dead_letter (consumer, message_id, envelope, reason, attempts, failed_at, replayed_at) "
    "VALUES ('people', gen_random_uuid(), '{{}}', $1, 5, now() - interval '100 days', now() - make_interval(secs => $2))"
)


class Scene:
    """A service, and the tables of the side that has the authority."""

    def __init__(self, teller: Teller, legacy: Sql, new: Sql) -> None:
        on_new = teller.manager.phase.policy.authoritative is Side.NEW
        self.teller = teller
        self.metrics = Metrics(CollectorRegistry())
        self.metrics.declare("people")
        self.sql, self.room = (new, "public") if on_new else (legacy, "tandem_people")
        self.other, self.other_room = (legacy, "tandem_people") if on_new else (new, "public")

    def pruning(self, retention: MessageRetention | None = None) -> Pruning:
        return Pruning(
            "people",
            ROOM,
            self.teller.manager.run_unit,
            retention=retention or MessageRetention(),
            metrics=self.metrics,
        )

    async def count(self, table: str) -> int:
        return int((await self.sql(f"SELECT count(*) FROM {self.room}.{table}"))[0][0])

    def pruned(self, table: str) -> float | None:
        return self.metrics.registry.get_sample_value(
            "dualwrite_pruned_rows_total", {"service": "people", "table": table}
        )


@BOTH_AUTHORITIES
async def test_what_is_old_goes_on_both_sides(
    make_teller: MakeTeller, legacy_sql: Sql, new_sql: Sql, *, phase: Phase
) -> None:
    scene = Scene(await make_teller(phase), legacy_sql, new_sql)
    await scene.sql(INBOX.format(scene.room), BATCH_ROWS + 20, float(OLD))
    await scene.sql(INBOX.format(scene.room), 7, float(YOUNG))
    await carry(scene.teller.manager)
    assert len(await scene.other(f"SELECT 1 FROM {scene.other_room}.inbox")) == BATCH_ROWS + 27
    await scene.pruning().run()
    assert await scene.count("inbox") == 7
    await carry(scene.teller.manager)
    assert len(await scene.other(f"SELECT 1 FROM {scene.other_room}.inbox")) == 7
    assert scene.pruned("inbox") == BATCH_ROWS + 20


async def test_only_dead_letters_that_were_told_anew_go(
    make_teller: MakeTeller, legacy_sql: Sql, new_sql: Sql
) -> None:
    """An open one waits for somebody, however long that takes."""
    scene = Scene(await make_teller(Phase.DUALWRITE), legacy_sql, new_sql)
    for reason, replayed in (("told anew", float(OLD)), ("just told", 60.0), ("open", None)):
        await scene.sql(DEAD.format(scene.room), reason, replayed)
    await scene.pruning().run()
    left = await scene.sql(f"SELECT reason FROM {scene.room}.dead_letter ORDER BY reason")
    assert [row["reason"] for row in left] == ["just told", "open"]
    assert scene.pruned("dead_letter") == 1


async def test_the_record_stays_unless_it_is_asked_for(
    make_teller: MakeTeller, legacy_sql: Sql, new_sql: Sql
) -> None:
    scene = Scene(await make_teller(Phase.DUALWRITE), legacy_sql, new_sql)
    old = await scene.teller.add("old@example.org")
    young = await scene.teller.add("young@example.org")
    await scene.sql(
        f"UPDATE {scene.room}.event SET recorded_at = now() - interval '31 days' WHERE id = $1", old.id
    )
    await scene.pruning().run()
    assert await scene.count("event") == 2
    await scene.pruning(MessageRetention(event_seconds=30 * DAY_SECONDS)).run()
    left = await scene.sql(f"SELECT id::text FROM {scene.room}.event")
    assert [row["id"] for row in left] == [str(young.id)]
    assert await scene.count("outbox") == 2  # whatever waits for delivery waits


async def test_it_can_be_switched_off(make_teller: MakeTeller, legacy_sql: Sql, new_sql: Sql) -> None:
    scene = Scene(await make_teller(Phase.DUALWRITE), legacy_sql, new_sql)
    await scene.sql(INBOX.format(scene.room), 3, float(100 * OLD))
    await scene.pruning(MessageRetention(inbox_seconds=0)).run()
    assert await scene.count("inbox") == 3


async def test_several_processes_share_the_work(
    make_teller: MakeTeller, legacy_sql: Sql, new_sql: Sql
) -> None:
    """What one of them is deleting is not waited for by another."""
    scene = Scene(await make_teller(Phase.DUALWRITE), legacy_sql, new_sql)
    await scene.sql(INBOX.format(scene.room), 20, float(OLD))
    await scene.sql(INBOX.format(scene.room), 20, float(OLD) + 3600)
    engine = scene.teller.manager.runtime.engines[Side.LEGACY]
    async with engine.connect() as held:
        await held.exec_driver_sql(
            f"SELECT 1 FROM tandem_people.inbox WHERE received_at < now() - interval '{OLD + 1800:.0f} s' FOR UPDATE"
        )
        async with asyncio.timeout(20):
            await asyncio.gather(*(scene.pruning().run() for _ in range(2)))
        assert scene.pruned("inbox") == 20
        await held.rollback()
    await scene.pruning().run()
    assert scene.pruned("inbox") == 40
    assert await scene.count("inbox") == 0


@BOTH_AUTHORITIES
async def test_what_is_old_is_found_by_an_index(
    make_teller: MakeTeller, legacy_sql: Sql, new_sql: Sql, *, phase: Phase
) -> None:
    """A pass that finds nothing reads next to nothing. Dead letters are few, and have no index."""
    scene = Scene(await make_teller(phase), legacy_sql, new_sql)
    for statement in (INBOX, EVENTS):
        await scene.sql(statement.format(scene.room), 2_000, float(YOUNG))
    await scene.sql(f"ANALYZE {scene.room}.inbox, {scene.room}.event")
    sent: dict[str, tuple[str, Any]] = {}

    def note(_c: Any, _u: Any, statement: str, parameters: Any, *_: Any) -> None:
        for column in ("received_at", "recorded_at"):
            if "DELETE FROM" in statement and column in statement:
                sent[column] = statement, parameters

    side = scene.teller.manager.phase.policy.authoritative
    listened = scene.teller.manager.runtime.engines[side].sync_engine
    listen(listened, "before_cursor_execute", note)
    try:
        await scene.pruning(MessageRetention(event_seconds=30 * DAY_SECONDS)).run()
    finally:
        remove(listened, "before_cursor_execute", note)
    assert set(sent) == {"received_at", "recorded_at"}
    for column, (statement, parameters) in sent.items():
        plan = "\n".join(row[0] for row in await scene.sql(f"EXPLAIN {statement}", *parameters))
        assert re.search(rf"Index Cond: \(\(?{column} < ", plan), plan


async def test_what_was_taken_in_within_the_time_is_still_known(
    make_teller: MakeTeller, legacy_sql: Sql, new_sql: Sql
) -> None:
    scene = Scene(await make_teller(Phase.DUALWRITE), legacy_sql, new_sql)
    body = (await scene.teller.add("one@example.org")).model_dump_json().encode()
    await scene.teller.consumer.take(body)
    await scene.sql(f"UPDATE {scene.room}.inbox SET received_at = now() - interval '29 days'")
    await scene.pruning().run()
    await scene.teller.consumer.take(body)
    assert [row["times"] for row in await scene.sql("SELECT times FROM tandem_people.greetings")] == [1]
    assert await DeadLetters(ROOM, scene.teller.manager.run_unit).page(limit=1) == []


@pytest.mark.parametrize("variable", ["MESSAGES_KEEP_SECONDS", "EVENTS_KEEP_SECONDS"])
@pytest.mark.parametrize("value", ["3600", "-1", "nan", "inf", "a month", "1e12"])
def test_a_time_that_would_forget_too_early_is_refused(variable: str, value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        MessageRetention.from_env({variable: value})
    assert caught.value.variable == variable


def test_times_are_read() -> None:
    assert MessageRetention.from_env({}) == MessageRetention(inbox_seconds=30 * DAY_SECONDS, event_seconds=0)
    given = {"MESSAGES_KEEP_SECONDS": "0", "EVENTS_KEEP_SECONDS": "86400"}
    assert MessageRetention.from_env(given) == MessageRetention(inbox_seconds=0, event_seconds=DAY_SECONDS)
