"""The services and the databases that an order crosses, with messages that a test brings, in whatever order it likes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import alembic.command
import asyncpg
from alembic.config import Config
from prometheus_client import CollectorRegistry

from backend.cart_service.app.core.dual_write_manager import CartDualWriteManager
from backend.cart_service.app.models import ROOM as CART_ROOM
from backend.cart_service.app.repositories import CartRepository
from backend.cart_service.app.services import listening as cart_listening
from backend.cart_service.app.services.checkout import Checkout
from backend.legacy_shop.schema import create_schema
from backend.messages.orders import SagaStyle
from backend.order_service.app.conductors import conductors
from backend.order_service.app.core.dual_write_manager import OrderDualWriteManager
from backend.order_service.app.entities import CartToOrder, Order, OrderLine, OrderSaga
from backend.order_service.app.message_api import TELLS as ORDER_TELLS
from backend.order_service.app.models import ROOM as ORDER_ROOM
from backend.order_service.app.repositories import OrderRepository, Overdue, SagaRepository
from backend.order_service.app.services import listening as order_listening
from backend.order_service.app.services.order_desk import OrderDesk
from backend.payment_service.app.message_api import TELLS as PAYMENT_TELLS
from backend.payment_service.app.models import ROOM as PAYMENT_ROOM
from backend.payment_service.app.provider import CreditProvider, ProviderForTests
from backend.payment_service.app.services import listening as payment_listening
from backend.payment_service.app.services.payment_desk import PaymentDesk
from backend.product_service.app.core.dual_write_manager import ProductDualWriteManager
from backend.product_service.app.entities import NewProduct
from backend.product_service.app.message_api import TELLS as PRODUCT_TELLS
from backend.product_service.app.models import ROOM as PRODUCT_ROOM
from backend.product_service.app.repositories import ProductRepository
from backend.product_service.app.services import listening as product_listening
from backend.product_service.app.services.stock_desk import StockDesk
from backend.shared import DualWriteManager, DualWriteSettings, Phase, Side, Unit, UnitOfWork
from backend.shared.database import create_side_engine
from backend.shared.events.consumer import Consumer, RunUnit
from backend.shared.events.outbox import Outbox
from backend.shared.events.saga import SagaState
from backend.shared.local_units import LocalUnits
from backend.shared.observability.metrics import Metrics
from backend.shared.testing.clusters import Cluster
from tests.support.order_audit import Books
from tests.support.order_post import Post
from tests.support.steps import Crash

T = TypeVar("T")
ROOT = Path(__file__).parents[2]
SERVICES = ("order", "product", "payment", "cart")
USER = "ann"
PRICE = Decimal("2.50")


@dataclass(frozen=True, kw_only=True)
class OrderUrls:
    """The databases: the shared legacy one, and each service's own."""

    legacy: str
    order: str
    product: str
    payment: str
    cart: str


async def migrate(service: str, url: str) -> None:
    """`alembic upgrade head` of a service's own database."""
    config = Config(str(ROOT / f"backend/{service}_service/alembic.ini"))
    config.attributes["database_url"] = url
    await asyncio.to_thread(alembic.command.upgrade, config, "head")


class OrderWorld:
    """The services, of one process each."""

    def __init__(
        self,
        urls: OrderUrls,
        *,
        style: SagaStyle,
        order: OrderDualWriteManager,
        product: ProductDualWriteManager,
        cart: CartDualWriteManager,
        payment: LocalUnits,
    ) -> None:
        self.urls = urls
        self.order, self.product, self.cart, self.payment = order, product, cart, payment
        self.style = style
        outboxes = [
            Outbox(ORDER_ROOM, tells=ORDER_TELLS),
            Outbox(PRODUCT_ROOM, tells=PRODUCT_TELLS),
            Outbox(PAYMENT_ROOM, tells=PAYMENT_TELLS),
        ]
        self.now_at = datetime.now(UTC)
        forms = conductors(step_seconds=30, saga_seconds=60)
        self.desks = {
            form: OrderDesk(outboxes[0], forms, style=form, clock=lambda: self.now_at) for form in SagaStyle
        }
        self.desk = self.desks[style]
        self.stock = StockDesk(outboxes[1])
        self.provider = ProviderForTests(CreditProvider(), payment)
        self.till = PaymentDesk(self.provider, outboxes[2])
        consumers = {
            "order": Consumer("order", ORDER_ROOM, self.dying(order.run_unit)),
            "product": Consumer("product", PRODUCT_ROOM, self.dying(product.run_unit)),
            "payment": Consumer("payment", PAYMENT_ROOM, self.dying(payment)),
            "cart": Consumer("cart", CART_ROOM, self.dying(cart.run_unit)),
        }
        order_listening.listen(consumers["order"], self.desk)
        product_listening.listen(consumers["product"], self.stock)
        payment_listening.listen(consumers["payment"], self.till)
        cart_listening.listen(consumers["cart"], Checkout())
        self.post = Post(_outboxes(urls), consumers)
        self._orders = 0
        self.dies = 0

    def dying(self, run: RunUnit) -> RunUnit:
        """Runs units; while `dies` says so, one dies before its commit, and is begun again."""

        async def run_or_die(operation: str, unit: Unit[T]) -> T:
            async def dies(work: UnitOfWork) -> T:
                found = await unit(work)
                if self.dies > 0:
                    self.dies -= 1
                    raise Crash
                return found

            return await run(operation, dies)

        return run_or_die

    async def late(self, seconds: float = 10_000.0) -> None:
        """So much time goes by without anything being heard."""
        self.now_at += timedelta(seconds=seconds)

        async def overdue(work: UnitOfWork) -> list[Overdue]:
            return await SagaRepository(work).overdue(self.now_at, limit=1000)

        for late in await self.order.read(overdue):
            await self.order.run_unit("late", partial(self._late, late.order_id))
        await self.post.collect()

    async def _late(self, number: int, work: UnitOfWork) -> None:
        await self.desk.late(work, number)

    async def place(self, *lines: tuple[int, int], user: str = USER, style: SagaStyle | None = None) -> Order:
        """Order so many of each product, from a cart of its own, in the form of `style`."""
        self._orders += 1
        cart = await self.filled(f"{user}/{self._orders}", *lines)
        return await self.ordered(replace(cart, user_id=user), key=f"key-{self._orders}", style=style)

    async def filled(self, user: str, *lines: tuple[int, int]) -> CartToOrder:
        """The open cart of a user with these lines in it, as the order service is told of it."""

        async def unit(work: UnitOfWork) -> int:
            carts = CartRepository(work)
            cart = await carts.get_open(user) or await carts.insert(user)
            for number, count in lines:
                await carts.insert_line(cart.id, product_id=number, quantity=count, unit_price=PRICE)
            return cart.id

        number = await self.cart.run_unit("fill", unit)
        return CartToOrder(
            id=number,
            user_id=user,
            lines=tuple(
                OrderLine(product_id=product, quantity=count, unit_price=PRICE) for product, count in lines
            ),
        )

    async def ordered(self, cart: CartToOrder, *, key: str, style: SagaStyle | None = None) -> Order:
        """Order what is in `cart`."""
        desk = self.desks[style or self.style]
        return await self.order.run_unit("place", lambda work: desk.place(work, cart, key=key))

    async def cancel(self, order: Order) -> None:
        await self.order.run_unit(
            "cancel", lambda work: self.desk.cancel(work, order.id, owner=None, why="changed her mind")
        )

    async def retry(self, order: Order) -> OrderSaga:
        """Somebody has what could not be undone tried again."""
        return await self.order.run_unit("retry", lambda work: self.desk.retry(work, order.id, by="ada"))

    async def settle(self, order: Order, state: SagaState) -> OrderSaga:
        """Somebody says how an order ends."""
        return await self.order.run_unit(
            "settle",
            lambda work: self.desk.settle(work, order.id, state=state, by="ada", note="done by hand"),
        )

    async def saga(self, order: Order) -> OrderSaga:
        async def unit(work: UnitOfWork) -> OrderSaga | None:
            return await SagaRepository(work).get(order.id)

        found = await self.order.read(unit)
        assert found is not None
        return found

    async def now(self, order: Order) -> Order:
        async def unit(work: UnitOfWork) -> Order | None:
            return await OrderRepository(work).get(order.id)

        found = await self.order.read(unit)
        assert found is not None
        return found

    async def stocked(self, **counts: int) -> dict[str, int]:
        """Put products on the shelves; answers their ids."""

        async def unit(work: UnitOfWork) -> dict[str, int]:
            products = ProductRepository(work)
            return {
                name: await products.insert(NewProduct(sku=name, name=name, price=PRICE, quantity=count))
                for name, count in counts.items()
            }

        return await self.product.run_unit("stock", unit)

    async def credit(self, amount: str, user: str = USER) -> None:
        await self._sql(
            self.urls.payment,
            "INSERT INTO accounts (user_id, credit) VALUES ($1, $2) "
            "ON CONFLICT (user_id) DO UPDATE SET credit = excluded.credit",
            user,
            Decimal(amount),
        )

    async def fault(self, step: str, action: str, *, times: int = 1) -> None:
        await self._sql(
            self.urls.payment,
            "INSERT INTO provider_faults (step, action, times) VALUES ($1, $2, $3)",
            step,
            action,
            times,
        )

    async def forget_faults(self) -> None:
        await self._sql(self.urls.payment, "DELETE FROM provider_faults")

    async def reserved(self, order_id: int) -> bool:
        """Whether goods are off the shelves for an order, as far as anybody knows."""
        rows = await self._stock_sql("stock_reservations", "state", f"order_id = {order_id}")
        return bool(rows) and rows[0]["state"] in ("reserved", "used")

    async def by_hand(self, order_id: int) -> tuple[bool, Decimal]:
        """What was undone by hand of an order: whether its goods were, and how much money."""
        goods = await self._stock_sql("stock_reservations", "1", f"order_id = {order_id} AND is_by_hand")
        money = await self._sql(
            self.urls.payment,
            "SELECT amount FROM payments WHERE order_id = $1 AND state = 'refunded' AND is_by_hand",
            order_id,
        )
        return bool(goods), money[0]["amount"] if money else Decimal(0)

    async def use(self, order: Order) -> None:
        """The goods leave the house. Raises where none are reserved."""
        await self.product.run_unit("use", lambda work: self.stock.use(work, order.id))

    async def captured(self, order_id: int) -> Decimal:
        """What was taken for an order and not given back."""
        rows = await self._sql(
            self.urls.payment,
            "SELECT amount FROM payments WHERE order_id = $1 AND state = 'captured'",
            order_id,
        )
        return rows[0]["amount"] if rows else Decimal(0)

    async def stock_of(self, products: Sequence[int]) -> dict[int, int]:
        """What is on the shelves."""

        async def unit(work: UnitOfWork) -> dict[int, int]:
            found = await ProductRepository(work).get_many(products)
            return {product.id: product.quantity for product in found}

        return await self.product.read(unit)

    async def cart_status(self, cart_id: int) -> str:
        async def unit(work: UnitOfWork) -> str:
            cart = await CartRepository(work).get(cart_id)
            assert cart is not None
            assert cart.status is not None
            return cart.status.value

        return await self.cart.read(unit)

    def books(self) -> Books:
        """The databases, as they are looked at from outside."""
        managers = {"order": self.order, "product": self.product, "cart": self.cart}
        own = {name: getattr(self.urls, name) for name in SERVICES}
        sides = {name: manager.phase.policy.authoritative for name, manager in managers.items()}
        return Books(legacy=self.urls.legacy, own=own, sides={**sides, "payment": Side.NEW})

    async def account(self, user: str) -> tuple[Decimal, Decimal]:
        """Credit, and what is held of it."""
        (row,) = await self._sql(
            self.urls.payment, "SELECT credit, held FROM accounts WHERE user_id = $1", user
        )
        return row["credit"], row["held"]

    async def _stock_sql(self, table: str, columns: str, where: str) -> list[asyncpg.Record]:
        on_new = self.product.phase.policy.authoritative is Side.NEW
        url, schema = (self.urls.product, "public") if on_new else (self.urls.legacy, "tandem_product")
        return await self._sql(url, f"SELECT {columns} FROM {schema}.{table} WHERE {where}")

    async def figures(self) -> dict[str, Any]:
        """Money, stock and orders, as their databases have them."""
        side = self.product.phase.policy.authoritative
        stock_url, stock_query = {
            Side.LEGACY: (self.urls.legacy, "SELECT stock_code AS name, qty_on_hand AS n FROM prod"),
            Side.NEW: (
                self.urls.product,
                "SELECT sku AS name, quantity AS n FROM products JOIN product_stock ON product_id = id",
            ),
        }[side]
        stock = await self._sql(stock_url, stock_query)
        (account,) = await self._sql(
            self.urls.payment, "SELECT sum(credit) AS credit, sum(held) AS held FROM accounts"
        )
        return {
            "stock": {row["name"]: row["n"] for row in stock},
            "credit": str(account["credit"]),
            "held": str(account["held"]),
        }

    async def _sql(self, url: str, query: str, *arguments: Any) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(url)
        try:
            return list(await connection.fetch(query, *arguments))
        finally:
            await connection.close()


async def open_world(
    urls: OrderUrls, stack: AsyncExitStack, *, style: SagaStyle, phase: Phase = Phase.DUALWRITE
) -> OrderWorld:
    """The services over `urls`, installed in `phase`; closed with `stack`."""

    async def manager(kind: type[DualWriteManager], url: str) -> Any:
        settings = DualWriteSettings(service=kind.service, phase=phase, retry_delay_seconds=0.05)
        made = kind(url, urls.legacy, settings, metrics=Metrics(CollectorRegistry()))
        stack.push_async_callback(made.close)
        await made.install()
        await made.start()
        return made

    engine = create_side_engine(urls.payment, application_name="test")
    stack.push_async_callback(engine.dispose)
    world = OrderWorld(
        urls,
        style=style,
        order=await manager(OrderDualWriteManager, urls.order),
        product=await manager(ProductDualWriteManager, urls.product),
        cart=await manager(CartDualWriteManager, urls.cart),
        payment=LocalUnits(engine),
    )
    stack.push_async_callback(world.post.connections.aclose)
    return world


async def fresh_urls(stack: AsyncExitStack, name: str, *, legacy: Cluster, services: Cluster) -> OrderUrls:
    """The databases of one world for many tests, gone with `stack`."""
    urls = {}
    for service in SERVICES:
        database = f"{name}_{service}"
        urls[service] = await services.create_database(database)
        stack.push_async_callback(partial(services.drop_database, database))
        await migrate(service, urls[service])
    url = await legacy.create_database(name)
    stack.push_async_callback(partial(legacy.drop_database, name))
    await create_schema(url)
    return OrderUrls(legacy=url, **urls)


def _outboxes(urls: OrderUrls) -> dict[str, list[str]]:
    own = {getattr(urls, service): ["outbox"] for service in SERVICES}
    return own | {urls.legacy: [f"tandem_{service}.outbox" for service in ("order", "product", "cart")]}
