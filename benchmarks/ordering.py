"""Orders from prepared carts to their confirmation: how many a second, and after how long, in both forms of the saga.

The services, their relays and the broker are processes of their own, as in `make demo-orders`, in phase `dualwrite`: every write
is captured and carried meanwhile. The forms take turns, with the same processes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

from rich.console import Console

from backend.messages.orders import SagaStyle
from benchmarks.load import Load
from benchmarks.order_stack import Confirmed, OrderShop, order_shop
from benchmarks.report import Result
from benchmarks.stack import Stack

ROUNDS = 3
BUYERS = 16
ORDERS = 48
"""Of one form in one round."""
ALONE = 10
"""More in each round, one after the other."""
WARM_UP = 16


@dataclass(kw_only=True)
class _Taken:
    """What was measured of one form: rates by rounds, and every order."""

    per_second: list[float] = field(default_factory=list)
    together: list[Confirmed] = field(default_factory=list)
    alone: list[Confirmed] = field(default_factory=list)


async def measure_ordering(stack: Stack, console: Console) -> list[Result]:
    """Closed loop: each buyer orders her next cart when her last order is confirmed. Then one order at a time."""
    taken = {style: _Taken() for style in SagaStyle}
    console.print("  bringing the shop up", style="dim")
    async with order_shop(stack) as shop, shop.watching():
        count = len(SagaStyle) * (WARM_UP + ROUNDS * (ORDERS + ALONE))
        console.print(f"  {count} carts", style="dim")
        await shop.prepare(count)
        for style in SagaStyle:
            await _together(shop, style, count=WARM_UP)
        for round_ in range(ROUNDS):
            console.print(f"  round {round_ + 1} of {ROUNDS}", style="dim")
            for style in list(SagaStyle)[:: -1 if round_ % 2 else 1]:
                began = time.perf_counter()
                taken[style].together += await _together(shop, style, count=ORDERS)
                taken[style].per_second.append(ORDERS / (time.perf_counter() - began))
                taken[style].alone += [await shop.order_alone(style) for _ in range(ALONE)]
    return [result for style in SagaStyle for result in _results(style, taken)]


async def _together(shop: OrderShop, style: SagaStyle, *, count: int) -> list[Confirmed]:
    left = iter(range(count))

    async def buyer() -> list[Confirmed]:
        return [await shop.order(style) for _ in left]

    return [order for orders in await asyncio.gather(*(buyer() for _ in range(BUYERS))) for order in orders]


def _results(style: SagaStyle, taken: dict[SagaStyle, _Taken]) -> list[Result]:
    own, other = taken[style], taken[SagaStyle.CHOREOGRAPHED]
    is_peer = style is SagaStyle.CHOREOGRAPHED
    rate = Result(
        name=f"ordering.{style.value}.per_second",
        value=median(own.per_second),
        unit="orders/s",
        peer=None if is_peer else SagaStyle.CHOREOGRAPHED.value,
        peer_value=None if is_peer else median(other.per_second),
        ratio=None
        if is_peer
        else median(one / two for one, two in zip(own.per_second, other.per_second, strict=True)),
    )
    return [
        rate,
        *_times(f"ordering.{style.value}.{BUYERS}_buyers", own.together),
        *_times(f"ordering.{style.value}.alone", own.alone),
    ]


def _times(name: str, orders: Sequence[Confirmed]) -> list[Result]:
    seen = Load(tuple(order.seen for order in orders), 1.0)
    by_saga = Load(tuple(order.by_saga for order in orders), 1.0)
    return [
        Result(name=f"{name}.{what}", value=value * 1000, unit="ms")
        for what, value in (
            ("median", seen.percentile(50)),
            ("p99", seen.percentile(99)),
            ("saga_median", by_saga.percentile(50)),
            ("saga_p99", by_saga.percentile(99)),
        )
    ]
