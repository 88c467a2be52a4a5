"""Sagas that end are counted, once the unit of work in which they do is committed; not before, and not twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from backend.messages.orders import SagaStyle
from backend.shared.events.saga import SagaState


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A saga that has ended, so many seconds after it began."""

    style: SagaStyle
    state: SagaState
    seconds: float


_noted: ContextVar[list[Ended] | None] = ContextVar("noted", default=None)


def note_ended(ended: Ended) -> None:
    """A saga ends in the unit of work that runs just now."""
    noted = _noted.get()
    if noted is not None:
        noted.append(ended)


@contextmanager
def noting(noted: list[Ended]) -> Iterator[None]:
    """Whatever ends within the body is put into `noted`, and nothing else is there: a unit may be run again."""
    noted.clear()
    token = _noted.set(noted)
    try:
        yield
    finally:
        _noted.reset(token)
