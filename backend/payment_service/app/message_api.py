"""What the service tells others, and what it hears."""

from __future__ import annotations

from backend.messages.payments import (
    PaymentAuthorised,
    PaymentCaptured,
    PaymentCaptureFailed,
    PaymentDeclined,
    PaymentRefunded,
    PaymentUndoFailed,
    PaymentVoided,
)
from backend.shared.events.envelope import Message
from backend.shared.events.message_api import MessageApi

from .models import ROOM
from .provider import CreditProvider
from .services.listening import listen
from .services.payment_desk import PaymentDesk

TELLS: frozenset[type[Message]] = frozenset(
    {
        PaymentAuthorised,
        PaymentDeclined,
        PaymentCaptured,
        PaymentCaptureFailed,
        PaymentRefunded,
        PaymentVoided,
        PaymentUndoFailed,
    }
)


def message_api() -> MessageApi:
    """As it is with every provider."""
    return MessageApi.of(
        "payment",
        ROOM,
        tells=TELLS,
        listen=lambda consumer, outbox: listen(consumer, PaymentDesk(CreditProvider(), outbox)),
    )
