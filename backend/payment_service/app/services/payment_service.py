"""Use cases round accounts and payments, for people; what orders ask for is `payment_desk`."""

from __future__ import annotations

from decimal import Decimal

from backend.shared import NotFoundError, UnitOfWork
from backend.shared.local_units import LocalUnits

from ..entities import Account, Payment, check_amount
from ..repositories import AccountRepository, FaultRepository, PaymentRepository


class PaymentService:
    """Each method is one unit of work; raises SideError when the database does not answer."""

    def __init__(self, units: LocalUnits) -> None:
        self._units = units

    async def payment(self, order_id: int, *, owner: str | None) -> Payment:
        """The payment of an order. With an `owner`, another user's is as unknown as one that does not exist."""

        async def unit(work: UnitOfWork) -> Payment | None:
            return await PaymentRepository(work).get(order_id)

        found = await self._units("get_payment", unit)
        if found is None or (owner is not None and found.user_id != owner):
            raise NotFoundError(f"there is no payment of order {order_id}")
        return found

    async def account(self, user_id: str) -> Account:
        """What a customer may spend: nothing, if nobody has given her any credit."""

        async def unit(work: UnitOfWork) -> Account | None:
            return await AccountRepository(work).get(user_id)

        nothing = Account(user_id=user_id, credit=Decimal(0), held=Decimal(0))
        return await self._units("get_account", unit) or nothing

    async def set_credit(self, user_id: str, credit: Decimal) -> Account:
        """Say how much there is. Raises SideError where that is less than what is set aside."""
        amount = check_amount(credit)

        async def unit(work: UnitOfWork) -> Account:
            return await AccountRepository(work).set_credit(user_id, amount)

        return await self._units("set_credit", unit)

    async def add_fault(
        self, *, step: str, action: str, user_id: str | None, seconds: Decimal, times: int
    ) -> None:
        """Tell the provider for tests what to do next."""

        async def unit(work: UnitOfWork) -> None:
            await FaultRepository(work).add(
                step=step, action=action, user_id=user_id, seconds=seconds, times=times
            )

        await self._units("add_fault", unit)
