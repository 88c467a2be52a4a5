"""What the service tells others, and what it hears."""

from __future__ import annotations

from backend.messages.products import ProductChanged
from backend.messages.stock import StockRejected, StockReleased, StockReleaseFailed, StockReserved
from backend.shared.events.envelope import Message
from backend.shared.events.message_api import MessageApi

from .models import ROOM
from .services.listening import listen
from .services.stock_desk import StockDesk

TELLS: frozenset[type[Message]] = frozenset(
    {ProductChanged, StockReserved, StockRejected, StockReleased, StockReleaseFailed}
)


def message_api() -> MessageApi:
    """As it is where there is a message broker."""
    return MessageApi.of(
        "product",
        ROOM,
        tells=TELLS,
        listen=lambda consumer, outbox: listen(consumer, StockDesk(outbox)),
    )
