"""All SQL of the service, written against the shape of its own tables, whichever side a unit runs on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, NamedTuple

from sqlalchemy import literal, select, tuple_

from backend.messages.orders import SagaStyle
from backend.shared import Repository, UnitOfWork
from backend.shared.events.saga import Saga, SagaState

from .entities import CartToOrder, Order, OrderLine, OrderSaga, OrderStatus, ProductSeen
from .legacy import IDEMPOTENCY_KEY, ORDER, ORDER_LINE, SAGA
from .models import idempotency_keys, order_lines, product_view

MAX_REASON = 200
"""As much as legacy holds."""


class OrderRepository(Repository[Order]):
    """Orders with their lines."""

    entity = ORDER

    async def get(self, *key: int) -> Order | None:
        """The order with its lines."""
        order = await super().get(*key)
        return None if order is None else replace(order, lines=await self._lines_of(order.id))

    async def live_of_cart(self, cart_id: int) -> int | None:
        """The id of the order that a cart is in, unless nothing came of that."""
        query = select(self._root.c.id).where(
            self._root.c.cart_id == cart_id, self._root.c.status != OrderStatus.CANCELLED.value
        )
        rows = await self._work.rows(query)
        return int(rows[0]["id"]) if rows else None

    async def insert(self, cart: CartToOrder) -> Order:
        """A new order of what is in a cart."""
        placed_at = datetime.now(UTC)
        (number,) = await self._insert(
            user_id=cart.user_id,
            cart_id=cart.id,
            status=OrderStatus.PLACED.value,
            total=cart.total,
            placed_at=placed_at,
        )
        for line in cart.lines:
            await self._work.insert(
                ORDER_LINE,
                {
                    order_lines.c.order_id: number,
                    order_lines.c.product_id: line.product_id,
                    order_lines.c.quantity: line.quantity,
                    order_lines.c.unit_price: line.unit_price,
                },
            )
        return Order(
            id=int(number),
            user_id=cart.user_id,
            cart_id=cart.id,
            status=OrderStatus.PLACED,
            total=cart.total,
            reason=None,
            placed_at=placed_at,
            updated_at=None,
            lines=cart.lines,
            is_new=True,
        )

    async def change(self, order_id: int, *, status: OrderStatus, reason: str | None) -> None:
        """Say what has become of an order."""
        await self._change(
            order_id,
            status=status.value,
            reason=None if reason is None else reason[:MAX_REASON],
            updated_at=datetime.now(UTC),
        )

    async def page(self, user_id: str, *, before_id: int | None, limit: int) -> list[Order]:
        """Up to `limit` orders of a user with ids below `before_id`, the latest first, without their lines."""
        return await self._latest(self._root.c.user_id == user_id, before_id=before_id, limit=limit)

    async def _lines_of(self, order_id: int) -> tuple[OrderLine, ...]:
        lines = self._work.shape(order_lines).c
        query = (
            select(lines.product_id, lines.quantity, lines.unit_price)
            .where(lines.order_id == order_id)
            .order_by(lines.id)
        )
        return tuple(OrderLine(**row) for row in await self._work.rows(query))

    def _object(self, row: dict[str, Any]) -> Order:
        return Order(**row | {"status": OrderStatus(row["status"])})


class Overdue(NamedTuple):
    """A saga that has waited too long, and since when."""

    deadline: datetime
    order_id: int


class SagaRepository(Repository[OrderSaga]):
    """Sagas, one an order, by its id."""

    entity = SAGA

    async def insert(
        self,
        order_id: int,
        style: SagaStyle,
        saga: Saga,
        history: Sequence[Any],
        *,
        trace: Mapping[str, str],
    ) -> None:
        """A saga that begins, in the trace context that its order was placed in."""
        now = datetime.now(UTC)
        await self._insert(
            order_id=order_id,
            style=style.value,
            started_at=now,
            updated_at=now,
            trace=dict(trace),
            **_values(saga, history),
        )

    async def change(self, order_id: int, saga: Saga, history: Sequence[Any]) -> None:
        """A saga that has moved, or heard something. Its order is held."""
        await self._change(order_id, updated_at=datetime.now(UTC), **_values(saga, history))

    async def overdue(self, now: datetime, *, after: Overdue | None = None, limit: int) -> list[Overdue]:
        """Up to `limit` whose saga has waited too long, past `after`; those that waited longest first."""
        columns = (self._root.c.deadline, self._root.c.order_id)
        query = select(*columns).where(self._root.c.deadline < now).order_by(*columns).limit(limit)
        if after is not None:
            query = query.where(
                tuple_(*columns)
                > tuple_(*(literal(value, column.type) for value, column in zip(after, columns, strict=True)))
            )
        return [Overdue(**row) for row in await self._work.rows(query)]

    async def page(
        self, *, states: Sequence[SagaState], began_before: datetime, limit: int
    ) -> list[OrderSaga]:
        """Up to `limit` sagas in one of `states` that began before then, the oldest first."""
        query = (
            self._query()
            .where(
                self._root.c.state.in_([state.value for state in states]),
                self._root.c.started_at <= began_before,
            )
            .order_by(self._root.c.started_at, self._root.c.order_id)
            .limit(limit)
        )
        return await self._all(query)

    def _object(self, row: dict[str, Any]) -> OrderSaga:
        return OrderSaga(
            order_id=row["order_id"],
            style=SagaStyle(row["style"]),
            saga=Saga(
                state=SagaState(row["state"]),
                step=row["step"],
                tries=row["tries"],
                deadline=row["deadline"],
                participant=row["participant"],
                reason=row["reason"],
                by_hand=row["by_hand"],
            ),
            history=tuple(_json(row["history"])),
            trace=_json(row["trace"]),
            started_at=row["started_at"],
            updated_at=row["updated_at"],
        )


class IdempotencyKeys:
    """What was asked for under which key."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work

    async def hold(self, user_id: str, key: str) -> int | None:
        """The order that was placed under a key, if one was; until the unit ends nobody else places one under it."""
        await self._work.hold_name(f"order_service.idempotency:{user_id}:{key}")
        return await self.find(user_id, key)

    async def find(self, user_id: str, key: str) -> int | None:
        """The order that was placed under a key, if one was."""
        row = await self._work.get(IDEMPOTENCY_KEY, (user_id, key))
        return int(row["order_id"]) if row else None

    async def keep(self, user_id: str, key: str, order_id: int) -> None:
        """From now on this key stands for this order."""
        column = idempotency_keys.c
        await self._work.insert(
            IDEMPOTENCY_KEY,
            {
                column.user_id: user_id,
                column.key: key,
                column.order_id: order_id,
                column.asked_at: datetime.now(UTC),
            },
        )


class ProductViews:
    """What was heard of products."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work
        self._views = work.shape(product_view)

    async def by_ids(self, ids: Sequence[int]) -> dict[int, ProductSeen]:
        """What is known of products."""
        rows = await self._work.rows(select(self._views).where(self._views.c.product_id.in_(ids)))
        return {row["product_id"]: ProductSeen(**row) for row in rows}


def _json(found: Any) -> Any:
    """A JSON column: the relation of the other side's shape gives it as text."""
    return json.loads(found) if isinstance(found, str) else found


def _values(saga: Saga, history: Sequence[Any]) -> dict[str, Any]:
    return {**vars(saga), "state": saga.state.value, "history": list(history)}
