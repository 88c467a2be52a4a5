from __future__ import annotations

import time

import httpx
import pytest

from backend.demo.shop import Outcome, Shop


async def outcome_of(
    answer: httpx.Response | Exception, *, fault: bool = False, held: bool = False
) -> tuple[Outcome, Shop]:
    def handle(_request: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    shop = Shop(
        {"cart": ["http://shop"]},
        connections=1,
        fault_is_on=lambda: fault,
        documents_are_held=lambda: held,
        transport=httpx.MockTransport(handle),
    )
    async with shop:
        return (await shop.call("POST", "cart", "/carts")).outcome, shop


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (httpx.Response(201, json={"id": 1}), Outcome.ACKNOWLEDGED),
        (httpx.Response(204), Outcome.ACKNOWLEDGED),
        (httpx.Response(409, json={}), Outcome.REFUSED),
        (httpx.Response(503, json={}), Outcome.IN_DOUBT),
        (httpx.Response(500, text="oops"), Outcome.IN_DOUBT),
        (httpx.ConnectError("nobody"), Outcome.NOT_SENT),
        (httpx.ReadError("cut"), Outcome.IN_DOUBT),
        (httpx.RemoteProtocolError("cut"), Outcome.IN_DOUBT),
        (httpx.ReadTimeout("late"), Outcome.IN_DOUBT),
    ],
)
async def test_what_the_caller_knows(answer: httpx.Response | Exception, outcome: Outcome) -> None:
    assert (await outcome_of(answer))[0] is outcome


@pytest.mark.parametrize(
    ("status", "fault", "unexcused"),
    [(503, True, 0), (503, False, 1), (504, True, 0), (504, False, 1), (500, True, 1), (500, False, 1)],
)
async def test_only_a_503_or_504_during_a_fault_is_excused(
    status: int, unexcused: int, *, fault: bool
) -> None:
    _, shop = await outcome_of(httpx.Response(status), fault=fault)
    assert shop.tally.server_error_count == 1
    assert shop.tally.unexcused_count == unexcused


@pytest.mark.parametrize(
    ("status", "outage", "held", "unexcused"),
    [
        (503, "contended", True, 0),
        (503, "contended", False, 1),
        (503, "unreachable", True, 1),
        (503, None, True, 1),
        (500, "contended", True, 1),
    ],
)
async def test_of_what_a_killed_process_left_held_only_a_conflict_is_excused(
    status: int, outage: str | None, unexcused: int, *, held: bool
) -> None:
    _, shop = await outcome_of(httpx.Response(status, json={"outage": outage}), held=held)
    assert shop.tally.unexcused_count == unexcused


async def test_requests_go_to_one_replica_after_the_other_and_are_logged() -> None:
    asked: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.host)
        return httpx.Response(503 if request.url.host == "two" else 200)

    shop = Shop({"cart": ["http://one", "http://two"]}, connections=1, transport=httpx.MockTransport(handle))
    began = time.monotonic()
    async with shop:
        for _ in range(4):
            await shop.call("GET", "cart", "/carts")

    assert asked == ["one", "two", "one", "two"]
    seen = shop.log.within(began, time.monotonic(), service="cart")
    assert (seen.requests, seen.failed) == (4, 2)
