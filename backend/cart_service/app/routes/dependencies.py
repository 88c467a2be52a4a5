"""What routes ask for: the services, and for whom they are to work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials

from backend.shared import PermissionDeniedError, UnauthenticatedError, ValidationError
from backend.shared.api.security import BEARER, current_principal
from backend.shared.api.tokens import Principal, Role, TokenVerifier

from ..core.dual_write_manager import CartDualWriteManager
from ..entities import MAX_USER_ID_LENGTH, USER_ID_PATTERN, Customer, check_user_id
from ..services.cart_service import CartService
from ..services.customer_service import CustomerService
from ..services.wish_list_service import WishListService

_Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]
UserId = Annotated[str, Query(min_length=1, max_length=MAX_USER_ID_LENGTH, pattern=USER_ID_PATTERN)]


@dataclass(frozen=True, kw_only=True)
class Services:
    """Everything that the routes call. Made with the application."""

    manager: CartDualWriteManager
    carts: CartService
    wishes: WishListService
    customers: CustomerService


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who calls. `customer` is what is known of a user or an admin, None for another service."""

    principal: Principal
    customer: Customer | None

    @property
    def is_operator(self) -> bool:
        """Whether she may work for others."""
        return self.principal.role in (Role.ADMIN, Role.SERVICE)


@dataclass(frozen=True, kw_only=True)
class Owner:
    """Whose cart and wishes a request is about; `customer` is known if it is the caller's own."""

    user_id: str
    customer: Customer | None


def services(request: Request) -> Services:
    """The services of the running application."""
    found = request.app.state.services
    if not isinstance(found, Services):
        raise TypeError("the application was not made by make_app")
    return found


def get_manager(request: Request) -> CartDualWriteManager:
    """The manager that the application was made with."""
    return services(request).manager


DepServices = Annotated[Services, Depends(services)]


async def current_caller(request: Request, credentials: _Credentials, found: DepServices) -> Caller:
    """The caller, whom the cache knows from now on. 403 when her token, or a later one, says that she is not active."""
    try:
        principal = await current_principal(request, credentials)
    except UnauthenticatedError:
        raise
    except PermissionDeniedError:
        # Her token is in order and says that she is not active: that is news, too.
        verifier: TokenVerifier = request.app.state.token_verifier
        if credentials is not None:
            await found.customers.see(_told(await verifier.verify(credentials.credentials)))
        raise
    if principal.role is Role.SERVICE:
        return Caller(principal=principal, customer=None)
    return Caller(principal=principal, customer=await found.customers.see(_told(principal)))


DepCaller = Annotated[Caller, Depends(current_caller)]


async def current_owner(
    caller: DepCaller,
    user_id: Annotated[
        UserId | None, Query(description="For whom; admins and services only, who reach everybody's.")
    ] = None,
) -> Owner:
    """Whose things the request is about: the caller's own, or those of the user that an operator names."""
    own = caller.principal.subject
    if user_id is None and caller.principal.role is Role.SERVICE:
        raise ValidationError("say for which user, with user_id")
    if user_id is None or user_id == own:
        return Owner(user_id=own, customer=caller.customer)
    if not caller.is_operator:
        raise PermissionDeniedError("you reach your own cart and wishes only")
    return Owner(user_id=check_user_id(user_id), customer=None)


DepOwner = Annotated[Owner, Depends(current_owner)]


def _told(principal: Principal) -> Customer:
    try:
        user_id = check_user_id(principal.subject)
    except ValidationError as error:
        raise PermissionDeniedError("this account has an id that no cart can have") from error
    return Customer(
        user_id=user_id,
        display_name=principal.name,
        is_active=principal.is_active,
        refreshed_at=principal.issued_at,
    )
