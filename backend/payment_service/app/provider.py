"""Who moves the money: a port, the shop's own credit behind it, and one for tests that does as it is told."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Protocol

from backend.shared import AwayError, TandemError, UnitOfWork
from backend.shared.events.consumer import RunUnit

from .entities import Payment, PaymentState
from .repositories import AccountRepository, FaultRepository


class RefusedError(TandemError):
    """The provider will not do it, and asking again does not help."""


class ProviderAwayError(AwayError):
    """The provider does not answer."""


class PaymentProvider(Protocol):
    """Moves money for one order. May be asked again for the same step of the same order: it is then done once.

    All raise `RefusedError` and `ProviderAwayError`. `work` is the unit in which the payment's own row is written: what is kept
    elsewhere is found again by the order's id.
    """

    async def authorise(self, work: UnitOfWork, payment: Payment) -> None:
        """Set the amount aside."""
        ...

    async def capture(self, work: UnitOfWork, payment: Payment) -> None:
        """Take what was set aside."""
        ...

    async def refund(self, work: UnitOfWork, payment: Payment) -> None:
        """Give back what was taken."""
        ...

    async def void(self, work: UnitOfWork, payment: Payment) -> None:
        """Let go of what was set aside."""
        ...

    async def forget(self, work: UnitOfWork, payment: Payment) -> None:
        """Somebody has given back, or let go of, what is of this payment: nothing of it is to be left here. Refuses nothing."""
        ...


class CreditProvider:
    """The customer's credit with the shop, in the service's own database: done with the unit, or not at all."""

    async def authorise(self, work: UnitOfWork, payment: Payment) -> None:
        """Refuses what is more than there is."""
        accounts = AccountRepository(work)
        account = await accounts.hold(payment.user_id)
        if account is None:
            raise RefusedError("there is no credit account")
        if account.available < payment.amount:
            raise RefusedError("the credit does not suffice")
        await accounts.change(payment.user_id, held=payment.amount)

    async def capture(self, work: UnitOfWork, payment: Payment) -> None:
        """What is set aside is spent."""
        await AccountRepository(work).change(payment.user_id, held=-payment.amount, credit=-payment.amount)

    async def refund(self, work: UnitOfWork, payment: Payment) -> None:
        """What was spent is there again."""
        await AccountRepository(work).change(payment.user_id, credit=payment.amount)

    async def void(self, work: UnitOfWork, payment: Payment) -> None:
        """What is set aside may be spent again."""
        await AccountRepository(work).change(payment.user_id, held=-payment.amount)

    async def forget(self, work: UnitOfWork, payment: Payment) -> None:
        """What was spent is given back by other means, so not as credit; what is set aside may be spent again."""
        if payment.state is PaymentState.AUTHORISED:
            await self.void(work, payment)


class ProviderForTests:
    """Does what `provider_faults` says, and otherwise what `inner` does. A fault is used up, whatever becomes of the unit."""

    def __init__(self, inner: PaymentProvider, run: RunUnit) -> None:
        self._inner = inner
        self._run = run

    async def authorise(self, work: UnitOfWork, payment: Payment) -> None:
        """As told."""
        await self._as_told("authorise", payment)
        await self._inner.authorise(work, payment)

    async def capture(self, work: UnitOfWork, payment: Payment) -> None:
        """As told."""
        await self._as_told("capture", payment)
        await self._inner.capture(work, payment)

    async def refund(self, work: UnitOfWork, payment: Payment) -> None:
        """As told."""
        await self._as_told("refund", payment)
        await self._inner.refund(work, payment)

    async def void(self, work: UnitOfWork, payment: Payment) -> None:
        """As told."""
        await self._as_told("void", payment)
        await self._inner.void(work, payment)

    async def forget(self, work: UnitOfWork, payment: Payment) -> None:
        """Never fails."""
        await self._inner.forget(work, payment)

    async def _as_told(self, step: str, payment: Payment) -> None:
        async def unit(work: UnitOfWork) -> tuple[str, Decimal] | None:
            return await FaultRepository(work).take(step, payment.user_id)

        fault = await self._run("take_fault", unit)
        if fault is None:
            return
        action, seconds = fault
        await asyncio.sleep(float(seconds))
        if action == "decline":
            raise RefusedError("the provider was told to decline")
        if action == "fail":
            raise ProviderAwayError("the provider was told to fail")
