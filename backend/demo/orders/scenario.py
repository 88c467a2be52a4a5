"""The demo of orders from end to end: a private stack, buyers under faults, one service moved meanwhile, everything held together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import asyncpg

from backend.demo.display import Display
from backend.demo.frame import GATE_SETTINGS
from backend.demo.operator import Operator
from backend.demo.phase_walk import PhaseWalk
from backend.demo.shop import Shop
from backend.demo.steps import ShopSource
from backend.demo.waiting import all_at_once, background
from backend.shared.api.tokens import TokenIssuer
from backend.shared.domain.phases import Phase

from . import audit
from .buyers import AT_ONCE, Buyers, cast_buyers, look_around
from .faults import OrderFaults
from .report import OrdersReport
from .stack import OrderStack

MOVED = "product"
"""The service that is cut over to its own database while orders are under way."""
ORDERS = 2000
SETTLE_SECONDS = 300.0
SAGA_SETTINGS = {"SAGA_STEP_SECONDS": "10", "SAGA_SECONDS": "60"}
"""Shorter than anybody would have them, so that those that a killed participant forgot are moved on within the demo."""
_LOOK_SECONDS = 0.5


async def _nothing(_stack: OrderStack) -> None:
    """Tests spoil something here."""


@dataclass(frozen=True, kw_only=True)
class OrdersOptions:
    """What to run."""

    source: ShopSource = field(default_factory=ShopSource)
    orders: int = ORDERS
    style: str = "choreographed"
    customers: int = AT_ONCE
    before_audit: Callable[[OrderStack], Awaitable[None]] = _nothing


class OrdersDemo:
    """One run. Everything lies under `folder`, which must be a place that the servers' account can reach."""

    def __init__(self, options: OrdersOptions, *, folder: Path, display: Display) -> None:
        self._options = options
        self._display = display
        self._stack = OrderStack(
            folder,
            data=folder / "data",
            settings={**GATE_SETTINGS, **SAGA_SETTINGS, "SAGA_STYLE": options.style},
            say=display.step,
        )
        self.logs = self._stack.logs

    async def run(self) -> OrdersReport:
        """Run from end to end. Whatever happens, nothing runs afterwards; the folder is left to the caller."""
        started = time.monotonic()
        stack, options, display = self._stack, self._options, self._display
        with display.open():
            async with stack:
                await stack.setup(options.source)
                display.steps_done()
                report = await self._trade(started)
                display.step("stopping everything")
            display.steps_done()
        return report

    async def _trade(self, started: float) -> OrdersReport:
        stack, options, display = self._stack, self._options, self._display
        before = await audit.stock(stack.env["LEGACY_DATABASE_URL"])
        users, products = await self._what_there_is()
        people = cast_buyers(users, products, orders=options.orders, seed=options.source.seed)
        faults, operator = OrderFaults(stack, say=display.say), Operator(stack)
        walk = PhaseWalk(
            [MOVED], first=Phase.DUALWRITE, run=operator.run, quiet=faults.quiet, say=display.say
        )
        urls = {member.name: stack.urls_of(member) for member in stack.members}
        shop = Shop(
            {**urls, "payment": [stack.payment_url]},
            connections=2 * options.customers,
            fault_is_on=lambda: faults.is_on,
        )
        issuer = TokenIssuer.from_file(Path(stack.env["AUTH_SIGNING_KEY_FILE"]))
        buyers = Buyers(shop, issuer, people, at_once=options.customers)
        began = time.monotonic()
        faults.begin()
        async with shop, background(self._watch(buyers, began, faults)):
            looks = look_around(shop, products, seed=options.source.seed)
            story = self._story(buyers, faults, walk, operator, shop)
            async with background(looks):
                await all_at_once(buyers.place_all(), story)
            placed = time.monotonic()
            display.say("all orders are placed: waiting until every saga is over")
            await self._settled()
            settled = time.monotonic()
            await options.before_audit(stack)
        display.step("holding money, stock, carts and orders against each other")
        findings = await audit.findings(self._databases, buyers.bought, before=before)
        differing = [
            member.name
            for member in stack.members
            if (await operator.run("validate", member.name, "--json", within_seconds=300)).code
        ]
        return OrdersReport(
            seed=options.source.seed,
            style=options.style,
            asked_for=options.orders,
            bought=buyers.bought,
            http=shop.tally,
            findings=findings,
            faults=faults.done,
            phase_changes=walk.seen(shop.log, traffic_began=began),
            stuck=walk.stuck,
            differing=differing,
            placing_seconds=placed - began,
            settling_seconds=settled - placed,
            duration_seconds=time.monotonic() - started,
        )

    async def _story(
        self, buyers: Buyers, faults: OrderFaults, walk: PhaseWalk, operator: Operator, shop: Shop
    ) -> None:
        """Faults at their share of the orders, and the product service on its way meanwhile."""
        plan: tuple[tuple[float, Callable[[], Awaitable[object]]], ...] = (
            (0.05, partial(faults.participant, "payment")),
            (0.15, partial(faults.participant, "order")),
            (0.25, faults.broker),
            (0.35, partial(walk.to, MOVED, Phase.SHADOW)),
            (0.40, partial(operator.run, "validate", MOVED, "--json", within_seconds=300)),
            (0.45, partial(walk.to, MOVED, Phase.LIVE)),
            (0.45, shop.answered),  # or what the next fault does to them would be put down to the change
            (0.60, partial(faults.participant, "product")),
            (0.70, partial(faults.participant, "cart")),
            (0.80, faults.broker),
            (0.90, partial(faults.participant, "order-relay")),
        )
        for share, act in plan:
            while buyers.begun < share * self._options.orders:  # noqa: ASYNC110 - buyers ring no bell
                await asyncio.sleep(_LOOK_SECONDS)
            await act()

    async def _watch(self, buyers: Buyers, began: float, faults: OrderFaults) -> None:
        while True:
            self._display.progress(
                seconds=time.monotonic() - began,
                act="orders are placed",
                figures={
                    "orders placed": f"{len(buyers.bought.orders):,} of {self._options.orders:,}",
                    "fault": faults.current or "",
                },
                bars={},
            )
            await asyncio.sleep(_LOOK_SECONDS)

    async def _settled(self) -> None:
        """Until every saga is over; whatever is not in time is told by the audit."""
        url = self._stack.env["LEGACY_DATABASE_URL"]
        deadline = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < deadline and await audit.open_sagas(url):  # noqa: ASYNC110 - a database rings no bell
            await asyncio.sleep(_LOOK_SECONDS)

    async def _what_there_is(self) -> tuple[dict[str, bool], list[int]]:
        connection = await asyncpg.connect(self._stack.env["LEGACY_DATABASE_URL"])
        try:
            users = await connection.fetch(
                "SELECT usr_id, EXISTS (SELECT FROM carts JOIN cart_lines USING (cart_no) WHERE cust = usr_id AND state = 'O') AS has_cart "
                "FROM users WHERE is_active = 1 AND role_cd = 'U' ORDER BY usr_id"
            )
            products = await connection.fetch(
                "SELECT prod_no FROM prod WHERE is_disc = 0 AND price_cents > 0 AND qty_on_hand BETWEEN 20 AND 5000 "
                "ORDER BY prod_no"
            )
        finally:
            await connection.close()
        return {row["usr_id"]: row["has_cart"] for row in users}, [row["prod_no"] for row in products]

    @property
    def _databases(self) -> audit.Databases:
        env = self._stack.env
        return audit.Databases(
            legacy=env["LEGACY_DATABASE_URL"],
            product=env["PRODUCT_DATABASE_URL"],
            payment=env["PAYMENT_DATABASE_URL"],
        )
