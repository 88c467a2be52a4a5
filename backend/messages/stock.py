"""What the product service tells of the stock of an order."""

from __future__ import annotations

from typing import ClassVar

from backend.shared.events.envelope import DomainEvent

from .orders import AboutOrder, AboutUndoing, AboutUndone, Failure


class StockReserved(AboutOrder, DomainEvent):
    """All that was ordered is off the shelves."""

    message_type: ClassVar[str] = "StockReserved"
    aggregate_type: ClassVar[str] = "stock"


class StockRejected(AboutUndoing, DomainEvent):
    """Something is missing, and nothing was taken; there is nothing to undo."""

    message_type: ClassVar[str] = "StockRejected"
    aggregate_type: ClassVar[str] = "stock"

    failure: Failure


class StockReleased(AboutUndone, DomainEvent):
    """What was reserved is back: so many `pieces`, 0 where nothing was."""

    message_type: ClassVar[str] = "StockReleased"
    aggregate_type: ClassVar[str] = "stock"

    pieces: int


class StockReleaseFailed(AboutUndoing, DomainEvent):
    """What was reserved cannot be put back any more, such as what has left the house."""

    message_type: ClassVar[str] = "StockReleaseFailed"
    aggregate_type: ClassVar[str] = "stock"

    trouble: Failure
