"""What routes ask for: the services, and the caller as the database knows her now."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from backend.shared import PermissionDeniedError
from backend.shared.api.security import DepPrincipal
from backend.shared.api.tokens import Role, TokenIssuer

from ..core.dual_write_manager import AuthDualWriteManager
from ..entities import User, UserRole
from ..services.accounts import AccountService
from ..services.administration import AdministrationService
from ..services.sessions import SessionService


@dataclass(frozen=True, kw_only=True)
class Services:
    """Everything that the routes call. Made by `create_app`."""

    manager: AuthDualWriteManager
    issuer: TokenIssuer
    accounts: AccountService
    sessions: SessionService
    administration: AdministrationService


def services(request: Request) -> Services:
    """The services of the running application."""
    found = request.app.state.services
    if not isinstance(found, Services):
        raise TypeError("the application was not made by create_app")
    return found


DepServices = Annotated[Services, Depends(services)]


async def current_user(principal: DepPrincipal, found: DepServices) -> User:
    """The caller, a user whose account is active: a token outlives a deactivation, so the database is asked."""
    if principal.role is Role.SERVICE:
        raise PermissionDeniedError("this is for users only")
    return await found.accounts.current(principal.subject)


DepUser = Annotated[User, Depends(current_user)]


async def current_admin(user: DepUser) -> User:
    """The caller, who is an admin according to the database, whatever her token still says."""
    if user.role is not UserRole.ADMIN:
        raise PermissionDeniedError("this is for admins only")
    return user


DepAdmin = Annotated[User, Depends(current_admin)]


async def reader(principal: DepPrincipal, found: DepServices) -> None:
    """Lets admins pass, and other services."""
    if principal.role is not Role.SERVICE:
        await current_admin(await current_user(principal, found))
