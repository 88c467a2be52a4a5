"""What the payment service tells."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

from backend.shared.events.envelope import DomainEvent

from .orders import AboutOrder, AboutUndoing, AboutUndone, Failure


class PaymentAuthorised(AboutOrder, DomainEvent):
    """Money is set aside."""

    message_type: ClassVar[str] = "PaymentAuthorised"
    aggregate_type: ClassVar[str] = "payment"

    amount: Decimal


class PaymentDeclined(AboutUndoing, DomainEvent):
    """No money was set aside; there is nothing to undo."""

    message_type: ClassVar[str] = "PaymentDeclined"
    aggregate_type: ClassVar[str] = "payment"

    failure: Failure


class PaymentCaptured(AboutOrder, DomainEvent):
    """The money is taken."""

    message_type: ClassVar[str] = "PaymentCaptured"
    aggregate_type: ClassVar[str] = "payment"

    amount: Decimal


class PaymentCaptureFailed(AboutUndoing, DomainEvent):
    """The money that was set aside could not be taken; it is still set aside."""

    message_type: ClassVar[str] = "PaymentCaptureFailed"
    aggregate_type: ClassVar[str] = "payment"

    failure: Failure


class PaymentRefunded(AboutUndone, DomainEvent):
    """What was captured is given back: `amount`, which is 0 where nothing was."""

    message_type: ClassVar[str] = "PaymentRefunded"
    aggregate_type: ClassVar[str] = "payment"

    amount: Decimal


class PaymentVoided(AboutUndone, DomainEvent):
    """What was set aside is let go of: `amount`, which is 0 where nothing was."""

    message_type: ClassVar[str] = "PaymentVoided"
    aggregate_type: ClassVar[str] = "payment"

    amount: Decimal


class PaymentUndoFailed(AboutUndoing, DomainEvent):
    """A compensation could not be done, and trying again will not help."""

    message_type: ClassVar[str] = "PaymentUndoFailed"
    aggregate_type: ClassVar[str] = "payment"

    step: str
    """What was asked for: `refund` or `void`."""
    trouble: Failure
