"""Why something is done: the message that is being taken in. What is recorded meanwhile belongs to the same story."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from .envelope import Envelope

_cause: ContextVar[Envelope | None] = ContextVar("cause", default=None)


def current_cause() -> Envelope | None:
    """The message that is being taken in just now, if there is one."""
    return _cause.get()


@contextmanager
def caused_by(envelope: Envelope) -> Iterator[None]:
    """Within the body everything is done because of this message."""
    token = _cause.set(envelope)
    try:
        yield
    finally:
        _cause.reset(token)
