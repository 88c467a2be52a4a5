"""Legacy is not let go of before everything that was told there is delivered."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest

from backend.shared import Phase, Side
from backend.shared.cli.events import ROOMS_GROUP
from backend.shared.cli.services import manager_class, service_names
from backend.shared.events.tables import EventRoom
from backend.shared.migration.phase_controller import GateShutError
from backend.shared.observability.admin_views import GateView
from tests.support.fixtures import Sql
from tests.support.phases import SLOW_GATES
from tests.support.telling import ROOM, MakeTeller, Teller


async def _gate(teller: Teller) -> GateView | None:
    """As `tandem status` shows it."""
    view = await teller.manager.overview()
    return next((gate for gate in view.gates if gate.name == "outbox"), None)


async def test_what_waits_on_legacy_keeps_the_move_from_its_end(
    make_teller: MakeTeller, legacy_sql: Sql, new_sql: Sql
) -> None:
    teller = await make_teller(Phase.RAMPDOWN)
    await _tell_on_legacy(teller)
    await teller.add("told on the new side, where it stays")
    with pytest.raises(GateShutError, match="outbox: 1 messages wait on the legacy side, the oldest for"):
        await teller.manager.change_phase(Phase.COMPLETE, reason="a test", force=SLOW_GATES)
    assert teller.manager.phase is Phase.RAMPDOWN
    shut = await _gate(teller)
    assert shut is not None
    assert not shut.is_open
    assert "with its broker" in shut.remedy
    await legacy_sql("DELETE FROM tandem_people.outbox")  # as whoever delivers does
    found = await _gate(teller)
    assert found == GateView(name="outbox", is_open=True, figure="none waits on the legacy side")
    await teller.manager.change_phase(Phase.COMPLETE, reason="a test", force=SLOW_GATES)
    assert len(await new_sql("SELECT 1 FROM outbox")) == 1


async def test_what_was_given_up_there_waits_for_somebody(make_teller: MakeTeller, legacy_sql: Sql) -> None:
    teller = await make_teller(Phase.RAMPDOWN)
    await _tell_on_legacy(teller)
    await _give_up(legacy_sql)
    with pytest.raises(GateShutError, match="the delivery of 1 messages on the legacy side was given up"):
        await teller.manager.change_phase(Phase.COMPLETE, reason="a test", force=SLOW_GATES)
    forced = (*SLOW_GATES, "outbox")
    await teller.manager.change_phase(Phase.COMPLETE, reason="nobody needs it", force=forced)
    assert teller.manager.phase is Phase.COMPLETE


@pytest.mark.parametrize("phase", [Phase.DUALWRITE, Phase.LIVE])
async def test_it_stands_before_the_last_step_alone(make_teller: MakeTeller, *, phase: Phase) -> None:
    """Before that both sides are delivered from, whatever the phase."""
    assert await _gate(await make_teller(phase)) is None


def test_each_service_that_is_moved_has_its_gate() -> None:
    rooms = {entry.name: entry.load() for entry in entry_points(group=ROOMS_GROUP)}
    moved = set(rooms) & set(service_names())
    assert moved >= {"product", "cart", "order"}
    for name in moved:
        assert isinstance(rooms[name], EventRoom)
        assert manager_class(name).messages is rooms[name], name


async def _tell_on_legacy(teller: Teller) -> None:
    """As it was told while legacy had the authority, and the broker was away."""
    outbox = ROOM.tables[Side.LEGACY].outbox
    async with teller.manager.runtime.engines[Side.LEGACY].begin() as connection:
        await connection.execute(outbox.insert().values(queue="messages", payload=b"{}"))


async def _give_up(sql: Sql) -> None:
    """As whoever delivers does with a message that it gives up."""
    await sql(
        "WITH gone AS (DELETE FROM tandem_people.outbox RETURNING *) INSERT INTO tandem_people.outbox_undelivered "
        "(original_id, queue, payload, deliveries_count, created_at, failure_reason) "
        "SELECT id, queue, payload, deliveries_count, created_at, 'rejected' FROM gone"
    )
