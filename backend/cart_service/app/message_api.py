"""What the service hears; it tells nothing."""

from __future__ import annotations

from backend.shared.events.message_api import MessageApi

from .models import ROOM
from .services.checkout import Checkout
from .services.listening import listen


def message_api() -> MessageApi:
    """As it is where there is a message broker."""
    return MessageApi.of(
        "cart", ROOM, tells=frozenset(), listen=lambda consumer, _: listen(consumer, Checkout())
    )
