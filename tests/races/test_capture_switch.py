"""Capture is switched, and a side taken up again, while others hold locks there."""

from __future__ import annotations

import asyncio

import pytest

from backend.shared import ConflictError, Phase, Side, UnitOfWork
from backend.shared.migration import restored
from tests.support.fixtures import MakeManager, Sql
from tests.support.phases import added, controller
from tests.support.steps import PauseAt


async def test_capture_goes_off_when_the_relay_has_let_go(make_manager: MakeManager, legacy_sql: Sql) -> None:
    operator = await make_manager(Phase.DUALWRITE)
    pause = PauseAt("after_claim")
    relay = await make_manager(Phase.DUALWRITE, hook=pause)
    assert (await relay.write("add", added("one@example.org"))).success
    passing = asyncio.ensure_future(relay.relay().run_once())
    await pause.reached.wait()
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        pause.resume.set()

    await controller(operator, say=say).change(Phase.OFF, reason="a test")
    await passing
    assert said
    assert "not yet" in said[0]
    assert operator.phase is Phase.OFF
    assert await legacy_sql("SELECT 1 FROM tandem_people.journal") == []


async def test_a_side_that_is_held_is_not_taken_up_and_says_so(
    make_manager: MakeManager, legacy_sql: Sql, *, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(restored, "_LOCK_FACTOR", 1)
    operator, writer = await make_manager(Phase.DUALWRITE), await make_manager(Phase.DUALWRITE)
    wrote, go_on = asyncio.Event(), asyncio.Event()

    async def slow(work: UnitOfWork) -> None:
        await added("one@example.org")(work)
        wrote.set()
        await go_on.wait()

    writing = asyncio.ensure_future(writer.write("add", slow))
    await wrote.wait()
    before = await legacy_sql("SELECT state, epoch FROM tandem_people.mark")
    with pytest.raises(ConflictError, match="call this again"):
        await operator.take_up_restored(Side.LEGACY, by="test", reason="a test")
    assert await legacy_sql("SELECT state, epoch FROM tandem_people.mark") == before
    go_on.set()
    assert (await writing).success
    done = await operator.take_up_restored(Side.LEGACY, by="test", reason="a test")
    assert done.epoch > before[0]["epoch"]
