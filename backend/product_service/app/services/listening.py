"""What the service does on which message: the choreography's events, and the orchestrator's commands."""

from __future__ import annotations

from backend.messages.orders import OrderPlaced, ReleaseStock, ReserveStock, SagaStyle
from backend.messages.payments import PaymentAuthorised, PaymentCaptureFailed, PaymentRefunded
from backend.shared import UnitOfWork
from backend.shared.events.consumer import Consumer

from ..reservations import pieces_of
from .stock_desk import StockDesk


def listen(consumer: Consumer, desk: StockDesk) -> None:
    """Register everything that the service hears."""
    _commands(consumer, desk)
    _events(consumer, desk)


def _commands(consumer: Consumer, desk: StockDesk) -> None:
    @consumer.on(ReserveStock)
    async def _(work: UnitOfWork, message: ReserveStock) -> None:
        pieces = pieces_of(message.lines)
        await desk.reserve(work, order_id=message.order_id, style=message.style, pieces=pieces)

    @consumer.on(ReleaseStock)
    async def _(work: UnitOfWork, message: ReleaseStock) -> None:
        await desk.release(
            work,
            order_id=message.order_id,
            style=message.style,
            failure=message.failure,
            by_hand=message.by_hand,
        )


def _events(consumer: Consumer, desk: StockDesk) -> None:
    """Of orders whose saga is choreographed."""

    @consumer.on(OrderPlaced)
    async def _(work: UnitOfWork, event: OrderPlaced) -> None:
        if event.style is SagaStyle.CHOREOGRAPHED:
            pieces = pieces_of(event.lines)
            await desk.note(work, order_id=event.order_id, style=event.style, pieces=pieces)

    @consumer.on(PaymentAuthorised)
    async def _(work: UnitOfWork, event: PaymentAuthorised) -> None:
        if event.style is SagaStyle.CHOREOGRAPHED:
            await desk.reserve(work, order_id=event.order_id, style=event.style)

    @consumer.on(PaymentCaptureFailed)
    async def _(work: UnitOfWork, event: PaymentCaptureFailed) -> None:
        if event.style is SagaStyle.CHOREOGRAPHED:
            await desk.release(work, order_id=event.order_id, style=event.style, failure=event.failure)

    @consumer.on(PaymentRefunded)
    async def _(work: UnitOfWork, event: PaymentRefunded) -> None:
        if event.style is SagaStyle.CHOREOGRAPHED:
            await desk.release(work, order_id=event.order_id, style=event.style, failure=event.failure)
