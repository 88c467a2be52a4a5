from __future__ import annotations

import asyncio

import pytest

from backend.demo.request_log import Request, RequestLog
from backend.demo.turnstile import Turnstile


def log_of(*requests: tuple[str, float, float, bool]) -> RequestLog:
    log = RequestLog()
    for service, began, ended, failed in requests:
        log.note(Request(service=service, began=began, ended=ended, failed=failed))
    return log


@pytest.mark.parametrize(("began", "ended"), [(9, 10.5), (10.5, 11), (11.5, 30), (9, 30)])
def test_a_request_that_failed_and_was_under_way_at_any_moment_of_it_counts(
    began: float, ended: float
) -> None:
    seen = log_of(("cart", began, ended, True)).within(10, 12, service="cart")
    assert (seen.requests, seen.failed, seen.longest_seconds) == (1, 1, ended - began)


@pytest.mark.parametrize(("began", "ended"), [(8, 9), (13, 14)])
def test_one_before_or_after_does_not(began: float, ended: float) -> None:
    seen = log_of(("cart", began, ended, True)).within(10, 12, service="cart")
    assert (seen.requests, seen.failed, seen.longest_seconds) == (0, 0, 0)


def test_requests_are_those_of_the_service_and_failures_those_of_all() -> None:
    log = log_of(("cart", 10, 11, False), ("product", 10, 15, True), ("auth", 10, 11, False))
    seen = log.within(10, 12, service="cart")
    assert (seen.requests, seen.failed, seen.longest_seconds) == (1, 1, 1)


def test_a_wrong_answer_is_a_failure() -> None:
    log = log_of(("cart", 11, 12.1, False))
    for at in (9.0, 12.2, 14.0):
        log.note_wrong_answer(at)
    assert log.within(10, 12, service="cart").failed == 1


async def test_a_turnstile_lets_finish_who_is_inside_and_nobody_in() -> None:
    turnstile, acts, may_finish = Turnstile(), list[str](), asyncio.Event()

    async def act(name: str) -> None:
        async with turnstile:
            acts.append(f"{name} in")
            await may_finish.wait()
            acts.append(f"{name} out")

    first = asyncio.create_task(act("first"))
    await asyncio.sleep(0)
    closing = asyncio.create_task(turnstile.close())
    await asyncio.sleep(0)
    second = asyncio.create_task(act("second"))
    await asyncio.sleep(0)
    assert not closing.done()
    may_finish.set()
    await closing
    assert acts == ["first in", "first out"]

    turnstile.open()
    await asyncio.gather(first, second)
    assert acts == ["first in", "first out", "second in", "second out"]
