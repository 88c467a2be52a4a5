"""What is done for the payment of one order. Each method is part of one unit of work, which tells of it.

An order's payment goes one way: new, authorised, captured; and back: refunded, voided. Whoever asks twice, or too late, is told what
there is; whoever asks for it to be undone before it was done has it stopped, so that it will not be done later.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from backend.messages.orders import Failure, Participant, SagaStyle
from backend.messages.payments import (
    PaymentAuthorised,
    PaymentCaptured,
    PaymentCaptureFailed,
    PaymentDeclined,
    PaymentRefunded,
    PaymentUndoFailed,
    PaymentVoided,
)
from backend.shared import ConflictError, UnitOfWork
from backend.shared.events.envelope import Message
from backend.shared.events.outbox import Outbox

from ..entities import Payment, PaymentState
from ..provider import PaymentProvider, RefusedError
from ..repositories import PaymentRepository

_NOTHING = Decimal(0)


class PaymentDesk:
    """Payments, by way of `provider`; what becomes of them is told through `outbox`."""

    def __init__(self, provider: PaymentProvider, outbox: Outbox) -> None:
        self._provider = provider
        self._outbox = outbox

    async def authorise(
        self, work: UnitOfWork, *, order_id: int, style: SagaStyle, user_id: str, amount: Decimal
    ) -> None:
        """Set `amount` aside."""
        payments = PaymentRepository(work)
        payment = await payments.hold_or_make(order_id, style=style)
        if payment.state is PaymentState.NEW and not payment.is_stopped:
            payment = await self._authorised(work, replace(payment, user_id=user_id, amount=amount))
        if payment.state is PaymentState.DECLINED:
            failure = Failure(participant=Participant.PAYMENT, reason=payment.reason or "declined")
            await self._tell(work, PaymentDeclined(order_id=order_id, style=style, failure=failure))
        elif payment.state in (PaymentState.AUTHORISED, PaymentState.CAPTURED):
            await self._tell(work, PaymentAuthorised(order_id=order_id, style=style, amount=payment.amount))

    async def _authorised(self, work: UnitOfWork, payment: Payment) -> Payment:
        state, reason = PaymentState.AUTHORISED, None
        try:
            async with work.savepoint():
                await self._provider.authorise(work, payment)
        except RefusedError as error:
            state, reason = PaymentState.DECLINED, str(error)
        return await PaymentRepository(work).change(
            payment, user_id=payment.user_id, amount=payment.amount, state=state, reason=reason
        )

    async def capture(self, work: UnitOfWork, *, order_id: int, style: SagaStyle) -> None:
        """Take what is set aside. Raises ConflictError where nobody has ever asked for anything to be."""
        payments = PaymentRepository(work)
        payment = await payments.hold_or_make(order_id, style=style)
        if payment.state is PaymentState.AUTHORISED and not payment.is_stopped:
            try:
                async with work.savepoint():
                    await self._provider.capture(work, payment)
            except RefusedError as error:
                failure = Failure(participant=Participant.PAYMENT, reason=str(error))
                await self._tell(work, PaymentCaptureFailed(order_id=order_id, style=style, failure=failure))
                return
            await payments.change(payment, state=PaymentState.CAPTURED)
        elif payment.state is PaymentState.NEW and not payment.is_stopped:
            raise ConflictError(f"nothing is set aside for order {order_id}")
        elif payment.state is not PaymentState.CAPTURED:
            return
        await self._tell(work, PaymentCaptured(order_id=order_id, style=style, amount=payment.amount))

    async def refund(
        self,
        work: UnitOfWork,
        *,
        order_id: int,
        style: SagaStyle,
        failure: Failure | None,
        by_hand: bool = False,
    ) -> None:
        """Give back what was captured, if it was and was not given back `by_hand`; from now on nothing is captured."""
        payments = PaymentRepository(work)
        payment = await payments.hold_or_make(order_id, style=style)
        amount = payment.amount if payment.state is PaymentState.REFUNDED else _NOTHING
        if payment.state is PaymentState.CAPTURED:
            undone = await self._undo(work, payment, "refund", failure, by_hand=by_hand)
            if undone is None:
                return
            payment, amount = undone, payment.amount
        await payments.change(payment, is_stopped=True)
        await self._tell(
            work,
            PaymentRefunded(
                order_id=order_id, style=style, amount=amount, failure=failure, by_hand=payment.is_by_hand
            ),
        )

    async def void(
        self,
        work: UnitOfWork,
        *,
        order_id: int,
        style: SagaStyle,
        failure: Failure | None,
        by_hand: bool = False,
    ) -> None:
        """Let go of what is set aside, if anything is; from now on nothing will be. What was captured is given back.

        `by_hand`: it was done elsewhere, and is noted.
        """
        payments = PaymentRepository(work)
        payment = await payments.hold_or_make(order_id, style=style)
        amount = payment.amount if payment.state is PaymentState.VOIDED else _NOTHING
        if payment.state in (PaymentState.AUTHORISED, PaymentState.CAPTURED):
            undone = await self._undo(work, payment, "void", failure, by_hand=by_hand)
            if undone is None:
                return
            payment, amount = undone, payment.amount
        await payments.change(payment, is_stopped=True)
        await self._tell(
            work,
            PaymentVoided(
                order_id=order_id, style=style, amount=amount, failure=failure, by_hand=payment.is_by_hand
            ),
        )

    async def _undo(
        self, work: UnitOfWork, payment: Payment, asked: str, failure: Failure | None, *, by_hand: bool
    ) -> Payment | None:
        """The payment as it is then; None if it could not be done, which is told. `asked` is the step that was asked for."""
        refund = payment.state is PaymentState.CAPTURED
        provider = self._provider
        try:
            async with work.savepoint():
                if by_hand:
                    await provider.forget(work, payment)
                else:
                    await (provider.refund if refund else provider.void)(work, payment)
        except RefusedError as error:
            await self._tell(
                work,
                PaymentUndoFailed(
                    order_id=payment.order_id,
                    style=payment.style,
                    step=asked,
                    failure=failure,
                    trouble=Failure(participant=Participant.PAYMENT, reason=str(error)),
                ),
            )
            return None
        after = PaymentState.REFUNDED if refund else PaymentState.VOIDED
        return await PaymentRepository(work).change(payment, state=after, is_by_hand=by_hand)

    async def _tell(self, work: UnitOfWork, message: Message) -> None:
        await self._outbox.record(work, message)
