"""What is done for one order. Each method is part of one unit of work, which tells of it.

Whatever moves an order holds its row first, then its saga: so messages, deadlines and customers take turns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import structlog

from backend.messages.orders import (
    AboutOrder,
    AboutUndone,
    OrderCancelled,
    OrderConfirmed,
    OrderPlaced,
    SagaStyle,
)
from backend.shared import ConflictError, NotFoundError, UnitOfWork
from backend.shared.events.envelope import Message
from backend.shared.events.outbox import Outbox
from backend.shared.events.saga import Moved, Saga, SagaState
from backend.shared.observability.tracing import Attributes, TraceContext, current_trace, span

from ..conductors import Conductor, failure_of
from ..entities import CartToOrder, Order, OrderSaga, OrderStatus, told
from ..repositories import IdempotencyKeys, OrderRepository, SagaRepository
from .saga_endings import Ended, note_ended

log = structlog.get_logger(__name__)
_STATUS = {
    SagaState.RUNNING: OrderStatus.PLACED,
    SagaState.COMPLETED: OrderStatus.CONFIRMED,
    SagaState.COMPENSATING: OrderStatus.CANCELLING,
    SagaState.NEEDS_REVIEW: OrderStatus.CANCELLING,
    SagaState.COMPENSATED: OrderStatus.CANCELLED,
}
MAX_HISTORY = 200


class OrderDesk:
    """Orders and their sagas; what becomes of them is told through `outbox`. New ones get a saga of `style`."""

    def __init__(
        self,
        outbox: Outbox,
        conductors: Mapping[SagaStyle, Conductor],
        *,
        style: SagaStyle,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._clock = clock
        self._outbox = outbox
        self._conductors = conductors
        self._style = style

    async def place(self, work: UnitOfWork, cart: CartToOrder, *, key: str) -> Order:
        """Order what is in a cart; the order that was placed under this key before, if one was.

        Raises ConflictError for a cart that is in another order.
        """
        keys, orders = IdempotencyKeys(work), OrderRepository(work)
        if (known := await keys.hold(cart.user_id, key)) is not None:
            return await _known(orders, known)
        await work.hold_name(f"order_service.cart:{cart.id}")
        if (other := await orders.live_of_cart(cart.id)) is not None:
            raise ConflictError(f"this cart is in order {other} already")
        order = await orders.insert(cart)
        await keys.keep(cart.user_id, key, order.id)
        now = self._clock()
        moved = self._conductors[self._style].begin(order, now)
        history = [_entry(now, "placed", moved.saga)]
        placed = OrderPlaced(
            order_id=order.id,
            style=self._style,
            user_id=order.user_id,
            cart_id=order.cart_id,
            lines=told(order),
            total=order.total,
        )
        with span(*_named(order.id, moved.saga)):
            trace = current_trace()
            await SagaRepository(work).insert(order.id, self._style, moved.saga, history, trace=trace)
            await self._tell(work, order.id, (placed, *moved.messages), trace=trace)
        return order

    async def placed(self, work: UnitOfWork, user_id: str, key: str) -> Order | None:
        """The order that was placed under a key, if one was."""
        known = await IdempotencyKeys(work).find(user_id, key)
        return None if known is None else await _known(OrderRepository(work), known)

    async def heard(self, work: UnitOfWork, message: AboutOrder) -> None:
        """A participant has told something of an order."""
        order, found = await self._held(work, message.order_id)
        now = self._clock()
        moved = self._conductors[found.style].heard(found.saga, message, order, now)
        what = message.message_type
        if isinstance(message, AboutUndone) and message.by_hand:
            what = f"{what}: noted, it was undone by hand"
        elif isinstance(message, AboutUndone) and _was_waited_for(found.saga, moved.saga):
            # It was asked for twice, refused once, and somebody has undone it by hand before the second request came.
            what = f"{what}: undone by {message.aggregate_type} too, after it was undone by hand"
            log.error("undone_twice", order=order.id, participant=message.aggregate_type)
        await self._keep(work, order, found, moved, what=what)

    async def late(self, work: UnitOfWork, order_id: int) -> None:
        """The deadline of an order's saga may be over."""
        order, found = await self._held(work, order_id)
        now = self._clock()
        moved = self._conductors[found.style].late(found.saga, order, now)
        if moved.saga != found.saga:
            await self._keep(work, order, found, moved, what="deadline")

    async def cancel(self, work: UnitOfWork, order_id: int, *, owner: str | None, why: str) -> None:
        """Take an order back, whatever of it was done; may be repeated. Another `owner`'s order is as unknown as none.

        Raises ConflictError for one that waits for somebody to look at it.
        """
        order, found = await self._held(work, order_id)
        if owner is not None and order.user_id != owner:
            raise NotFoundError(f"there is no order {order_id}")
        if found.saga.state is SagaState.NEEDS_REVIEW:
            raise ConflictError("this order could not be taken back, and somebody will look at it")
        now = self._clock()
        moved = self._conductors[found.style].cancelled(found.saga, order, now, why=why)
        if moved.saga != found.saga:
            await self._keep(work, order, found, moved, what="cancel_requested")

    async def retry(self, work: UnitOfWork, order_id: int, *, by: str) -> OrderSaga:
        """Try again what failed for good. Raises ConflictError for a saga that does not need to be looked at."""
        order, found = await self._held(work, order_id)
        _check_needs_review(found)
        now = self._clock()
        moved = self._conductors[found.style].retried(found.saga, order, now)
        await self._keep(work, order, found, moved, what=f"retried by {by}")
        return await self._saga(work, order_id)

    async def settle(
        self, work: UnitOfWork, order_id: int, *, state: SagaState, by: str, note: str
    ) -> OrderSaga:
        """Say how it ends. `COMPENSATED`: somebody has undone by hand what a participant could not; it notes that, and the rest is
        undone. `COMPLETED`: the order stands.

        Raises ConflictError for a saga that does not need to be looked at, for an order that is to stand though some of it is undone
        or may be, and where no participant has said what it could not undo.
        """
        order, found = await self._held(work, order_id)
        _check_needs_review(found)
        form, now = self._conductors[found.style], self._clock()
        if state is SagaState.COMPLETED:
            moved, why = form.left_standing(found.saga), "some of it is undone already, or may be"
        else:
            moved = form.undone_by_hand(found.saga, order, now)
            why = "no participant has said what it could not undo: try again to undo it"
        if moved.saga == found.saga:
            raise ConflictError(f"order {order_id} cannot be settled as {state.value}: {why}")
        what = f"settled as {state.value} by {by}: {note}"
        await self._keep(work, order, found, moved, what=what)
        return await self._saga(work, order_id)

    async def _held(self, work: UnitOfWork, order_id: int) -> tuple[Order, OrderSaga]:
        order = await OrderRepository(work).hold(order_id)
        if order is None:
            raise NotFoundError(f"there is no order {order_id}")
        return order, await self._saga(work, order_id)

    async def _saga(self, work: UnitOfWork, order_id: int) -> OrderSaga:
        found = await SagaRepository(work).get(order_id)
        if found is None:
            raise NotFoundError(f"order {order_id} has no saga: it is of the time before")
        return found

    async def _keep(
        self, work: UnitOfWork, order: Order, found: OrderSaga, moved: Moved, *, what: str
    ) -> None:
        now = self._clock()
        history = [*found.history, _entry(now, what, moved.saga)][-MAX_HISTORY:]
        # Whoever moves it, a deadline and another request too: its story is one trace.
        with span(*_named(order.id, moved.saga), parent=found.trace):
            await SagaRepository(work).change(order.id, moved.saga, history)
            if moved.saga.state.is_final and not found.saga.state.is_final:
                took = (now - found.started_at).total_seconds()
                note_ended(Ended(style=found.style, state=moved.saga.state, seconds=took))
            told_of: tuple[Message, ...] = moved.messages
            status = _STATUS[moved.saga.state]
            if status is not order.status:
                # An order that stands again, after somebody has looked at it, has no reason why it does not.
                reason = None if status is OrderStatus.CONFIRMED else moved.saga.reason
                await OrderRepository(work).change(order.id, status=status, reason=reason)
                told_of = (*self._news(order, found.style, status, moved.saga), *told_of)
            await self._tell(work, order.id, told_of, trace=found.trace)

    def _news(self, order: Order, style: SagaStyle, status: OrderStatus, saga: Saga) -> Sequence[Message]:
        if status is OrderStatus.CONFIRMED:
            return [
                OrderConfirmed(order_id=order.id, style=style, user_id=order.user_id, cart_id=order.cart_id)
            ]
        if status is OrderStatus.CANCELLED:
            return [
                OrderCancelled(
                    order_id=order.id,
                    style=style,
                    user_id=order.user_id,
                    cart_id=order.cart_id,
                    failure=failure_of(saga),
                )
            ]
        return []

    async def _tell(
        self, work: UnitOfWork, order_id: int, messages: Sequence[Message], *, trace: TraceContext
    ) -> None:
        for message in messages:
            await self._outbox.record(work, message, correlation_id=f"order-{order_id}", trace=trace)


async def _known(orders: OrderRepository, order_id: int) -> Order:
    order = await orders.get(order_id)
    if order is None:
        raise NotFoundError(f"there is no order {order_id}")
    return order


def _was_waited_for(before: Saga, after: Saga) -> bool:
    """Whether what was heard is that something was undone which somebody had undone by hand."""
    return before.by_hand and not after.by_hand


def _check_needs_review(found: OrderSaga) -> None:
    if found.saga.state is not SagaState.NEEDS_REVIEW:
        raise ConflictError(f"the saga of order {found.order_id} is {found.saga.state.value}")


def _named(order_id: int, saga: Saga) -> tuple[str, Attributes]:
    """A span of what moves a saga, by the state that comes of it."""
    told: Attributes = {
        "tandem.order_id": order_id,
        "tandem.saga.step": saga.step,
        "tandem.saga.participant": str(saga.participant or ""),
    }
    return f"saga {saga.state.value}", told


def _entry(now: datetime, what: str, saga: Saga) -> dict[str, Any]:
    return {"at": now.isoformat(), "what": what, "state": saga.state.value, "step": saga.step}
