"""What the service tells others, and what it hears."""

from __future__ import annotations

from backend.messages.orders import (
    AuthorisePayment,
    CapturePayment,
    OrderCancelled,
    OrderCancelRequested,
    OrderConfirmed,
    OrderPlaced,
    RefundPayment,
    ReleaseStock,
    ReserveStock,
    SagaStyle,
    VoidPayment,
)
from backend.shared.events.envelope import Message
from backend.shared.events.message_api import MessageApi

from .models import ROOM
from .services.listening import listen
from .services.order_desk import OrderDesk

TELLS: frozenset[type[Message]] = frozenset(
    {
        OrderPlaced,
        OrderConfirmed,
        OrderCancelRequested,
        OrderCancelled,
        AuthorisePayment,
        CapturePayment,
        RefundPayment,
        VoidPayment,
        ReserveStock,
        ReleaseStock,
    }
)


def message_api() -> MessageApi:
    """As it is in both styles of sagas."""
    return MessageApi.of(
        "order",
        ROOM,
        tells=TELLS,
        listen=lambda consumer, outbox: listen(
            consumer, OrderDesk(outbox, {}, style=SagaStyle.CHOREOGRAPHED)
        ),
    )
