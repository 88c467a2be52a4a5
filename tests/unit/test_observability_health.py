"""Health asks all parts at once, waits for none too long, and tells no secret."""

from __future__ import annotations

import asyncio

from backend.shared.observability.health import ProbeCheck, check_health


async def _fine() -> str | None:
    return "18.1"


async def _down() -> str | None:
    raise ConnectionError("cannot reach postgresql://u:hunter2@h/d\nsecond line")


async def _hangs() -> str | None:
    await asyncio.Event().wait()
    return None


async def test_all_parts_work() -> None:
    health = await check_health([ProbeCheck(name="new", call=_fine)])
    assert health.ok
    assert health.components[0].detail == "18.1"
    assert health.down() == ()


async def test_a_required_part_that_is_down_is_named_without_its_password() -> None:
    health = await check_health([ProbeCheck(name="legacy", call=_down), ProbeCheck(name="new", call=_fine)])
    assert not health.ok
    assert health.down() == ("legacy",)
    detail = health.components[0].detail or ""
    assert "ConnectionError" in detail
    assert "hunter2" not in detail
    assert "second line" not in detail


async def test_a_part_that_hangs_counts_as_down() -> None:
    health = await check_health([ProbeCheck(name="new", call=_hangs)], timeout_seconds=0.01)
    assert not health.ok
    assert "no answer" in (health.components[0].detail or "")


async def test_an_optional_part_does_not_matter() -> None:
    health = await check_health([ProbeCheck(name="legacy", call=_down, required=False)])
    assert health.ok
    assert not health.components[0].ok


async def test_nothing_to_ask() -> None:
    assert (await check_health([])).ok
