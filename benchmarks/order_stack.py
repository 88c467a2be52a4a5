"""The shop with orders as processes, with a door for either form of the saga, and carts that wait to be ordered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from backend.demo.orders.stack import OrderStack
from backend.demo.programs import service_process
from backend.demo.steps import ShopSource
from backend.messages.orders import SagaStyle
from backend.shared.api.tokens import Role, TokenIssuer
from backend.shared.testing.ports import LOOPBACK, free_port
from benchmarks.stack import Stack

SHOP_LINES = 15_000
"""Of the generated shop: about 1,500 customers."""
CREDIT = "1000000.00"
PREPARED_AT_ONCE = 8
LOOK_SECONDS = 0.01
PATIENCE_SECONDS = 60.0


class TwoDoors(OrderStack):
    """The order service twice: orders that come in by the second are orchestrated. Messages go to whichever has time."""

    def __init__(self, folder: Path) -> None:
        super().__init__(
            folder,
            data=folder / "data",
            settings={"SAGA_STYLE": SagaStyle.CHOREOGRAPHED.value, "LOG_LEVEL": "WARNING"},
            say=lambda _: None,
        )
        self._second_port = free_port()

    @property
    def doors(self) -> dict[SagaStyle, str]:
        """Where to order, by what becomes of it."""
        return {
            SagaStyle.CHOREOGRAPHED: self.env["ORDER_URL"],
            SagaStyle.ORCHESTRATED: f"http://{LOOPBACK}:{self._second_port}",
        }

    async def start_services(self) -> None:
        """The second door last."""
        await super().start_services()
        order = next(member for member in self.members if member.name == "order")
        second = service_process(
            order,
            name="order-2",
            port=self._second_port,
            env={**self.child_env(order), "SAGA_STYLE": SagaStyle.ORCHESTRATED.value},
            logs=self.logs,
        )
        self.processes[second.name] = second
        await second.start()


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """One order: seconds from the asking to the confirmation as its buyer saw it, and by the saga's own clock."""

    seen: float
    by_saga: float


@dataclass(kw_only=True)
class OrderShop:
    """A running shop, and what its customers do."""

    stack: TwoDoors
    client: httpx.AsyncClient
    database: Any
    """A connection to the legacy database, which has the authority."""
    issuer: TokenIssuer
    _users: list[str] = field(default_factory=list)
    _products: Iterator[int] = field(default_factory=lambda: iter(()))
    _ready: list[str] = field(default_factory=list)
    _waiting: dict[int, asyncio.Future[float]] = field(default_factory=dict)

    async def prepare(self, count: int) -> None:
        """So many carts of one product each, of customers who can pay for them."""
        if not self._users:
            self._users = await self._column(
                "SELECT usr_id FROM users u WHERE is_active = 1 AND role_cd = 'U' AND NOT EXISTS "
                "(SELECT FROM carts WHERE cust = u.usr_id AND state = 'O') ORDER BY usr_id"
            )
            products = await self._column(
                "SELECT prod_no FROM prod WHERE is_disc = 0 AND price_cents > 0 AND qty_on_hand > 20 ORDER BY prod_no"
            )
            self._products = cycle(products)
        if len(self._users) < count:
            raise RuntimeError(f"there are {len(self._users)} customers without a cart, not {count}")
        wanted = [(self._users.pop(), next(self._products)) for _ in range(count)]

        async def worker() -> None:
            while wanted:
                user, product = wanted.pop()
                await self._fill_cart(user, product)
                self._ready.append(user)

        await asyncio.gather(*(worker() for _ in range(PREPARED_AT_ONCE)))

    async def order(self, style: SagaStyle) -> Confirmed:
        """One customer orders her cart by a door and waits for the confirmation; others may do so meanwhile.

        What she sees is what the database says, looked at a hundred times a second for all who wait.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        number, _ = await self._place(style)
        self._waiting[number] = loop.create_future()
        async with asyncio.timeout(PATIENCE_SECONDS):
            by_saga = await self._waiting[number]
        return Confirmed(seen=loop.time() - began, by_saga=by_saga)

    async def order_alone(self, style: SagaStyle) -> Confirmed:
        """The same, while nobody else does; she asks the service again and again."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        number, token = await self._place(style)
        url = f"{self.stack.doors[style]}/orders/{number}"
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (order := await self._call("GET", url, token))["status"] == "placed":  # noqa: ASYNC110
                await asyncio.sleep(LOOK_SECONDS)
        seen = loop.time() - began
        if order["status"] != "confirmed":
            raise RuntimeError(f"order {number} is {order['status']}")
        (by_saga,) = (await self._over([number])).values()
        return Confirmed(seen=seen, by_saga=by_saga)

    @asynccontextmanager
    async def watching(self) -> AsyncIterator[None]:
        """Tell who waits in `order` of her confirmation. What ends the watch ends the waiting too."""
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(self._watch())
            yield
            watch.cancel()

    async def _watch(self) -> None:
        while True:
            if self._waiting:
                for number, seconds in (await self._over(list(self._waiting))).items():
                    self._waiting.pop(number).set_result(seconds)
            await asyncio.sleep(LOOK_SECONDS)

    async def _over(self, numbers: Sequence[int]) -> dict[int, float]:
        """Which of some sagas are over, and how long each took. Raises where one did not end as it should."""
        rows = await self.database.fetch(
            "SELECT order_id, state, extract(epoch FROM updated_at - started_at)::float8 AS seconds "
            "FROM tandem_order.sagas WHERE order_id = ANY ($1) AND state <> 'running'",
            numbers,
        )
        for row in rows:
            if row["state"] != "completed":
                raise RuntimeError(f"the saga of order {row['order_id']} is {row['state']}")
        return {row["order_id"]: row["seconds"] for row in rows}

    async def _place(self, style: SagaStyle) -> tuple[int, str]:
        user = self._ready.pop()
        token = self.issuer.issue(user, role=Role.USER)
        url = f"{self.stack.doors[style]}/orders"
        found = await self._call("POST", url, token, headers={"Idempotency-Key": f"bench-{user}"})
        return int(found["id"]), token

    async def _fill_cart(self, user: str, product: int) -> None:
        env, service = self.stack.env, self.issuer.service_token("bench")
        account = f"{self.stack.payment_url}/accounts/{user}"
        await self._call("PUT", account, service, json={"credit": CREDIT})
        item = {"product_id": product, "quantity": 1}
        token = self.issuer.issue(user, role=Role.USER)
        await self._call("POST", f"{env['CART_URL']}/carts/current/items", token, json=item)

    async def _call(self, method: str, url: str, token: str, **how: Any) -> Any:
        headers = {"Authorization": f"Bearer {token}", **how.pop("headers", {})}
        answer = await self.client.request(method, url, headers=headers, **how)
        if not answer.is_success:
            raise RuntimeError(f"{method} {url}: {answer.status_code} {answer.text}")
        return answer.json() if answer.content else None

    async def _column(self, query: str) -> list[Any]:
        return [row[0] for row in await self.database.fetch(query)]


@asynccontextmanager
async def order_shop(stack: Stack) -> AsyncIterator[OrderShop]:
    """Everything that an order needs, on servers of its own, with history moved; all is gone afterwards."""
    running = TwoDoors(stack.directory / "orders")
    async with running:
        await running.setup(ShopSource(size=SHOP_LINES))
        database = await asyncpg.connect(running.env["LEGACY_DATABASE_URL"])
        async with httpx.AsyncClient(timeout=15.0, trust_env=False) as client:
            try:
                issuer = TokenIssuer.from_file(Path(running.env["AUTH_SIGNING_KEY_FILE"]))
                yield OrderShop(stack=running, client=client, database=database, issuer=issuer)
            finally:
                await database.close()
