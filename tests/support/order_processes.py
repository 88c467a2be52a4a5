"""The services of an order as processes of their own, with customers who order over HTTP."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from backend.demo import steps
from backend.demo.orders.stack import OrderStack
from backend.demo.programs import service_process
from backend.demo.steps import ShopSource
from backend.messages.orders import SagaStyle
from backend.shared import Side
from backend.shared.api.tokens import Role, TokenIssuer
from backend.shared.testing.ports import LOOPBACK, free_port
from tests.support.commands import Ended
from tests.support.order_audit import Books, disagreements

CREDIT = Decimal("100000.00")
PIECES = 2
END_SECONDS = 45.0
_POLL_SECONDS = 0.1
SETTINGS = {"SAGA_STEP_SECONDS": "5", "SAGA_SECONDS": "60", "PAYMENT_PROVIDER": "test"}
ACK_SECONDS = 2.0
"""What a killed process had taken comes again so soon: nobody waits half a minute in a test."""


@dataclass
class OrderProcesses:
    """A stack, in which there is one order service for each form of the saga."""

    stack: OrderStack
    client: httpx.AsyncClient = field(default_factory=lambda: httpx.AsyncClient(timeout=20, trust_env=False))
    orders: dict[SagaStyle, str] = field(default_factory=dict)
    """Where to order, by the form of the saga."""
    stocked: dict[int, int] = field(default_factory=dict)
    given: dict[str, Decimal] = field(default_factory=dict)
    _products: list[int] = field(default_factory=list)

    async def start(self, *, seed: int) -> None:
        """Bring up what an order needs."""
        await self.stack.start_clusters()
        await self.stack.fill(ShopSource(seed=seed, size=100))
        await (
            self.stack.start_services()
        )  # no relays: legacy has the authority, and nobody looks at the other side
        await self._start_other_form()
        await self._come_again_soon()
        legacy = self.stack.env["LEGACY_DATABASE_URL"]
        self._products = [
            row["p"]
            for row in await _rows(
                legacy,
                "SELECT prod_no AS p FROM prod WHERE is_disc = 0 AND price_cents > 0 AND qty_on_hand > 20",
            )
        ]
        self.stocked = await self.books().stock()
        self._issuer = TokenIssuer.from_file(Path(self.stack.env["AUTH_SIGNING_KEY_FILE"]))

    async def _start_other_form(self) -> None:
        (order,) = (member for member in self.stack.members if member.name == "order")
        port = free_port()
        process = service_process(
            order,
            name="order-orchestrated",
            port=port,
            env={**self.stack.child_env(order), "SAGA_STYLE": SagaStyle.ORCHESTRATED.value},
            logs=self.stack.logs,
        )
        self.stack.processes[process.name] = process
        await process.start()
        self.orders = {
            SagaStyle.CHOREOGRAPHED: self.stack.env["ORDER_URL"],
            SagaStyle.ORCHESTRATED: f"http://{LOOPBACK}:{port}",
        }

    async def _come_again_soon(self) -> None:
        """What holds of the broker's consumers is kept there: a service that starts takes what it finds."""
        import nats

        client = await nats.connect(self.stack.broker.url)
        stream = client.jetstream()
        for info in await stream.consumers_info("tandem"):
            info.config.ack_wait = ACK_SECONDS
            await stream.add_consumer("tandem", info.config)
        await client.close()

    def books(self) -> Books:
        names = ("order", "product", "cart", "payment")
        own = {name: self.stack.services.url(name) for name in names}
        sides = dict.fromkeys(names, Side.LEGACY) | {"payment": Side.NEW}
        return Books(legacy=self.stack.env["LEGACY_DATABASE_URL"], own=own, sides=sides)

    async def customer(self) -> str:
        """Somebody with credit, and something in her cart."""
        user = f"customer-{len(self.given)}"
        self.given[user] = CREDIT
        await self._ask(
            "PUT",
            f"{self.stack.payment_url}/accounts/{user}",
            token=self._issuer.service_token("test"),
            json={"credit": str(CREDIT)},
        )
        product = self._products[len(self.given) % len(self._products)]
        url = f"{self.stack.env['CART_URL']}/carts/current/items"
        await self._ask(
            "POST", url, token=self._token(user), json={"product_id": product, "quantity": PIECES}
        )
        return user

    async def order(self, style: SagaStyle, user: str) -> int:
        """Her cart is ordered; asked again under the same key it is the same order."""
        headers = {"Idempotency-Key": f"key-{user}"}
        answer = await self._ask(
            "POST", f"{self.orders[style]}/orders", token=self._token(user), headers=headers
        )
        return int(answer["id"])

    async def cancel(self, user: str, order_id: int) -> None:
        url = f"{self.orders[SagaStyle.CHOREOGRAPHED]}/orders/{order_id}/cancel"
        await self._ask("POST", url, token=self._token(user))

    async def fault(self, user: str, step: str, action: str, *, times: int) -> None:
        """Tell the payment provider what to do next for a customer."""
        await self._ask(
            "POST",
            f"{self.stack.payment_url}/provider/faults",
            token=self._issuer.service_token("test"),
            json={"step": step, "action": action, "user_id": user, "times": times},
        )

    async def until(self, orders: Sequence[int], *states: str) -> None:
        """Wait until the sagas of all of `orders` are in one of `states`."""
        query = "SELECT order_id, state FROM tandem_order.sagas"
        async with asyncio.timeout(END_SECONDS):
            while True:
                found = {row["order_id"]: row["state"] for row in await _rows(self._legacy, query)}
                if all(found.get(number) in states for number in orders):
                    return
                await asyncio.sleep(_POLL_SECONDS)

    async def disagreements(self) -> list[str]:
        """What does not hold once everybody has heard everything."""
        deadline = asyncio.get_running_loop().time() + END_SECONDS
        while found := await disagreements(self.books(), stocked=self.stocked, given=self.given):
            under_way = any("outbox" in item or "cart" in item for item in found)
            if not under_way or asyncio.get_running_loop().time() > deadline:
                return found
            await asyncio.sleep(_POLL_SECONDS)  # the last news is on its way to the cart
        return found

    def tandem(self, *arguments: str) -> Ended:
        """A command of the operator's, as a process of its own."""
        done = subprocess.run(
            steps.tandem_argv(*arguments),
            env=self.stack.env_of("order"),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    @property
    def _legacy(self) -> str:
        return self.stack.env["LEGACY_DATABASE_URL"]

    def _token(self, user: str) -> str:
        return self._issuer.issue(user, role=Role.USER)

    async def _ask(
        self, method: str, url: str, *, token: str, headers: dict[str, str] | None = None, json: Any = None
    ) -> Any:
        found = await self.client.request(
            method, url, headers={"Authorization": f"Bearer {token}", **(headers or {})}, json=json
        )
        found.raise_for_status()
        return found.json() if found.content else None


async def _rows(url: str, query: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(query))
    finally:
        await connection.close()


def lines(found: Ended) -> list[dict[str, Any]]:
    """What a command said with `--json`."""
    return [json.loads(line) for line in found.out.splitlines()]
