"""Work in the background outlives what nobody has thought of."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from backend.shared import periodic
from backend.shared.periodic import every, kept_up


class Fails:
    """Fails so many times, then sets `well`."""

    def __init__(self, times: int) -> None:
        self.left = times
        self.well = asyncio.Event()

    async def __call__(self) -> None:
        self.left -= 1
        if self.left >= 0:
            raise RuntimeError("ann@example.org lives in Bath")
        self.well.set()


async def test_what_is_done_every_so_often_goes_on_after_an_error_nobody_thought_of() -> None:
    work = Fails(2)
    with capture_logs() as logs:
        task = asyncio.create_task(every(0.0, work, service="task"))
        async with asyncio.timeout(5):
            await work.well.wait()
        task.cancel()
    assert [line["event"] for line in logs] == ["background_work_failed"] * 2
    assert all(line["log_level"] == "critical" and line["error"] == "RuntimeError" for line in logs)
    assert "Bath" not in str(logs)
    assert logs[0]["at"][-1].startswith("test_periodic.py:")


async def test_work_that_fails_is_begun_again_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(periodic, "BEGUN_AGAIN_SECONDS", 0.0)
    work = Fails(2)
    with capture_logs() as logs:
        async with asyncio.timeout(5):
            await kept_up(work, stop=asyncio.Event(), service="task")
    assert work.well.is_set()
    assert len(logs) == 2


async def test_work_that_fails_does_not_hold_up_the_stop() -> None:
    stop = asyncio.Event()

    async def work() -> None:
        stop.set()
        raise RuntimeError

    with capture_logs():
        async with asyncio.timeout(2):
            await kept_up(work, stop=stop, service="task")
