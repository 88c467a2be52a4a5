"""However it goes, messages are asked for once in a fetch time, and FastStream's loop hears of nothing but that time's end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from nats.errors import OutboundBufferLimitError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js.errors import NotFoundError, ServiceUnavailableError

from backend.shared.events.nats_pulling import PatientPull

FETCH_SECONDS = 0.1
TICK_SECONDS = 0.01
"""A clock may be so coarse."""


class Driver:
    """A subscription of the driver's and its client, in one."""

    def __init__(self, *, outcome: BaseException | Sequence[object], is_connected: bool = True) -> None:
        self.is_connected = is_connected
        self.asked = 0
        self._outcome = outcome

    async def fetch(self, batch: int, timeout: float) -> list[Any]:  # noqa: ASYNC109 - the driver's
        assert (batch, timeout) == (4, FETCH_SECONDS)
        self.asked += 1
        if isinstance(self._outcome, BaseException):
            raise self._outcome
        return list(self._outcome)


async def fetch(driver: Driver) -> list[Any]:
    return await PatientPull(driver, driver).fetch(batch=4, timeout=FETCH_SECONDS)  # type: ignore[arg-type]


async def seconds_without_a_message(driver: Driver) -> float:
    clock = asyncio.get_running_loop()
    began_at = clock.time()
    with pytest.raises(NatsTimeoutError):
        await fetch(driver)
    return clock.time() - began_at


@pytest.mark.parametrize(
    "error",
    [
        pytest.param(ServiceUnavailableError(), id="no-such-consumer"),
        pytest.param(NotFoundError(), id="not-found"),
        pytest.param(OutboundBufferLimitError(), id="no-room"),
        pytest.param(TimeoutError(), id="not-the-drivers-own"),
    ],
)
async def test_an_error_takes_its_time(error: Exception) -> None:
    driver = Driver(outcome=error)
    assert await seconds_without_a_message(driver) >= FETCH_SECONDS - TICK_SECONDS
    assert driver.asked == 1


async def test_nothing_is_asked_without_a_connection() -> None:
    driver = Driver(outcome=["a message"], is_connected=False)
    assert await seconds_without_a_message(driver) >= FETCH_SECONDS - TICK_SECONDS
    assert driver.asked == 0


async def test_messages_come_at_once() -> None:
    assert await fetch(Driver(outcome=["a message"])) == ["a message"]


async def test_what_the_driver_does_not_say_itself_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        await fetch(Driver(outcome=ZeroDivisionError()))
