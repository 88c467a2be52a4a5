"""All SQL of the service."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import delete, or_, select, update
from sqlalchemy.dialects.postgresql import insert

from backend.messages.orders import SagaStyle
from backend.shared import Repository, UnitOfWork

from .entities import Account, Payment, PaymentState
from .models import ACCOUNT, PAYMENT, accounts, payments, provider_faults


class PaymentRepository(Repository[Payment]):
    """Payments, one an order, by its id."""

    entity = PAYMENT

    async def hold_or_make(self, order_id: int, *, style: SagaStyle) -> Payment:
        """The payment of an order, made if there is none, held until the unit ends."""
        await self._work.execute(
            insert(payments).values(order_id=order_id, style=style.value).on_conflict_do_nothing()
        )
        found = await self.hold(order_id)
        if found is None:
            raise AssertionError("it was written just now")
        return found

    async def change(self, held: Payment, **values: Any) -> Payment:
        """Give a payment that is held other values; answers it as it is then."""
        values["updated_at"] = datetime.now(UTC)
        await self._change(held.order_id, **values)
        return replace(held, **values)

    def _object(self, row: dict[str, Any]) -> Payment:
        return Payment(**row | {"state": PaymentState(row["state"]), "style": SagaStyle(row["style"])})


class AccountRepository(Repository[Account]):
    """What customers may spend, by their ids."""

    entity = ACCOUNT

    async def change(self, user_id: str, *, credit: Decimal = Decimal(0), held: Decimal = Decimal(0)) -> None:
        """Add to what there is, and to what is set aside; below 0 to take away."""
        await self._change(user_id, credit=accounts.c.credit + credit, held=accounts.c.held + held)

    async def set_credit(self, user_id: str, credit: Decimal) -> Account:
        """Say how much there is, what is set aside included."""
        statement = insert(accounts).values(user_id=user_id, credit=credit)
        await self._work.execute(
            statement.on_conflict_do_update(index_elements=[accounts.c.user_id], set_={"credit": credit})
        )
        found = await self.get(user_id)
        if found is None:
            raise AssertionError("it was written just now")
        return found

    def _object(self, row: dict[str, Any]) -> Account:
        return Account(**row)


class FaultRepository:
    """What the provider for tests is told to do."""

    def __init__(self, work: UnitOfWork) -> None:
        self._work = work

    async def take(self, step: str, user_id: str) -> tuple[str, Decimal] | None:
        """The next fault for a step, which is used up by it: what to do, and for how many seconds."""
        faults = provider_faults.c
        query = (
            select(provider_faults)
            .where(faults.step == step, or_(faults.user_id.is_(None), faults.user_id == user_id))
            .order_by(faults.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        rows = await self._work.rows(query)
        if not rows:
            return None
        fault = rows[0]
        if fault["times"] > 1:
            await self._work.execute(
                update(provider_faults).where(faults.id == fault["id"]).values(times=fault["times"] - 1)
            )
        else:
            await self._work.execute(delete(provider_faults).where(faults.id == fault["id"]))
        return fault["action"], fault["seconds"]

    async def add(self, **values: Any) -> None:
        """Tell the provider something."""
        await self._work.execute(insert(provider_faults).values(**values))
