"""What the service does on which message: the choreography's events, and the orchestrator's commands."""

from __future__ import annotations

from backend.messages.orders import (
    AuthorisePayment,
    CapturePayment,
    OrderCancelRequested,
    OrderPlaced,
    RefundPayment,
    SagaStyle,
    VoidPayment,
)
from backend.messages.stock import StockRejected, StockReleased, StockReserved
from backend.shared import UnitOfWork
from backend.shared.events.consumer import Consumer

from .payment_desk import PaymentDesk


def listen(consumer: Consumer, desk: PaymentDesk) -> None:
    """Register everything that the service hears."""
    _commands(consumer, desk)
    _events(consumer, desk)


def _commands(consumer: Consumer, desk: PaymentDesk) -> None:
    @consumer.on(AuthorisePayment)
    async def _(work: UnitOfWork, message: AuthorisePayment) -> None:
        await desk.authorise(
            work,
            order_id=message.order_id,
            style=message.style,
            user_id=message.user_id,
            amount=message.amount,
        )

    @consumer.on(CapturePayment)
    async def _(work: UnitOfWork, message: CapturePayment) -> None:
        await desk.capture(work, order_id=message.order_id, style=message.style)

    @consumer.on(RefundPayment)
    async def _(work: UnitOfWork, message: RefundPayment) -> None:
        await desk.refund(
            work,
            order_id=message.order_id,
            style=message.style,
            failure=message.failure,
            by_hand=message.by_hand,
        )

    @consumer.on(VoidPayment)
    async def _(work: UnitOfWork, message: VoidPayment) -> None:
        await desk.void(
            work,
            order_id=message.order_id,
            style=message.style,
            failure=message.failure,
            by_hand=message.by_hand,
        )


def _events(consumer: Consumer, desk: PaymentDesk) -> None:
    """Of orders whose saga is choreographed."""

    @consumer.on(OrderPlaced)
    async def _(work: UnitOfWork, event: OrderPlaced) -> None:
        if event.style is SagaStyle.CHOREOGRAPHED:
            await desk.authorise(
                work, order_id=event.order_id, style=event.style, user_id=event.user_id, amount=event.total
            )

    @consumer.on(StockReserved)
    async def _(work: UnitOfWork, event: StockReserved) -> None:
        if event.style is SagaStyle.CHOREOGRAPHED:
            await desk.capture(work, order_id=event.order_id, style=event.style)

    @consumer.on(OrderCancelRequested)
    async def _(work: UnitOfWork, event: OrderCancelRequested) -> None:
        if event.style is SagaStyle.CHOREOGRAPHED:
            await desk.refund(work, order_id=event.order_id, style=event.style, failure=event.failure)

    @consumer.on(StockRejected)
    async def _(work: UnitOfWork, event: StockRejected) -> None:
        if event.style is SagaStyle.CHOREOGRAPHED:
            await desk.void(work, order_id=event.order_id, style=event.style, failure=event.failure)

    @consumer.on(StockReleased)
    async def _(work: UnitOfWork, event: StockReleased) -> None:
        if event.style is SagaStyle.CHOREOGRAPHED:
            await desk.void(work, order_id=event.order_id, style=event.style, failure=event.failure)
