"""What the service tells others. It hears nothing."""

from __future__ import annotations

from backend.messages.users import UserChanged
from backend.shared.events.envelope import Message
from backend.shared.events.message_api import MessageApi

from .models import ROOM

TELLS: frozenset[type[Message]] = frozenset({UserChanged})


def message_api() -> MessageApi:
    """As it is where there is a message broker."""
    return MessageApi.of("auth", ROOM, tells=TELLS, listen=lambda _consumer, _outbox: None)
