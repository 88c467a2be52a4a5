"""Payments of orders, and what customers may spend."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends
from fastapi import Path as PathParameter

from backend.shared.api.fields import DatabaseId
from backend.shared.api.security import DepPrincipal, require_role
from backend.shared.api.tokens import Role

from ..entities import USER_ID_PATTERN
from ..schemas import AccountOut, CreditSet, FaultAdd, PaymentOut
from .dependencies import DepServices

router = APIRouter()
faults = APIRouter()
_OPERATORS = [Depends(require_role(Role.ADMIN, Role.SERVICE))]
UserId = Annotated[str, PathParameter(pattern=USER_ID_PATTERN)]
OrderId = Annotated[DatabaseId, PathParameter(description="The id of an order.")]


@router.get("/payments/{order_id}", summary="The payment of an order", tags=["payments"])
async def read_payment(found: DepServices, principal: DepPrincipal, order_id: OrderId) -> PaymentOut:
    """404 also for another user's; admins and services read everybody's."""
    owner = None if principal.role in (Role.ADMIN, Role.SERVICE) else principal.subject
    return PaymentOut.of(await found.payments.payment(order_id, owner=owner))


@router.get("/accounts/me", summary="What one may spend", tags=["accounts"])
async def read_own_account(found: DepServices, principal: DepPrincipal) -> AccountOut:
    """Nothing, if nobody has given her any credit."""
    return AccountOut.of(await found.payments.account(principal.subject))


@router.get(
    "/accounts/{user_id}", summary="What a customer may spend", tags=["accounts"], dependencies=_OPERATORS
)
async def read_account(found: DepServices, user_id: UserId) -> AccountOut:
    """Nothing, if nobody has given her any credit."""
    return AccountOut.of(await found.payments.account(user_id))


@router.put(
    "/accounts/{user_id}", summary="Say what a customer may spend", tags=["accounts"], dependencies=_OPERATORS
)
async def set_credit(found: DepServices, user_id: UserId, body: CreditSet) -> AccountOut:
    """409: more than that is set aside."""
    return AccountOut.of(await found.payments.set_credit(user_id, body.credit))


@faults.post(
    "/provider/faults",
    summary="Tell the provider for tests what to do",
    tags=["tests"],
    status_code=204,
    dependencies=_OPERATORS,
)
async def add_fault(found: DepServices, body: FaultAdd) -> None:
    """Only where `PAYMENT_PROVIDER` is `test`."""
    await found.payments.add_fault(
        step=body.step, action=body.action, user_id=body.user_id, seconds=body.seconds, times=body.times
    )
