"""What routes ask for: the services, and for whom they are to work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials

from backend.shared import UnauthenticatedError
from backend.shared.api.security import BEARER, current_principal
from backend.shared.api.tokens import Principal, Role

from ..core.dual_write_manager import OrderDualWriteManager
from ..services.order_service import OrderService

_Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]


@dataclass(frozen=True, kw_only=True)
class Services:
    """Everything that the routes call. Made with the application."""

    manager: OrderDualWriteManager
    orders: OrderService


@dataclass(frozen=True, kw_only=True)
class Caller:
    """Who calls, and the token that she showed: other services are asked in her name."""

    principal: Principal
    token: str

    @property
    def owner(self) -> str | None:
        """Whose orders she reaches; None: everybody's."""
        return None if self.principal.role in (Role.ADMIN, Role.SERVICE) else self.principal.subject


def services(request: Request) -> Services:
    """The services of the running application."""
    found = request.app.state.services
    if not isinstance(found, Services):
        raise TypeError("the application was not made by make_app")
    return found


def get_manager(request: Request) -> OrderDualWriteManager:
    """The manager that the application was made with."""
    return services(request).manager


async def current_caller(request: Request, credentials: _Credentials) -> Caller:
    """The caller."""
    principal = await current_principal(request, credentials)
    if credentials is None:
        raise UnauthenticatedError("a token is needed")
    return Caller(principal=principal, token=credentials.credentials)


DepServices = Annotated[Services, Depends(services)]
DepCaller = Annotated[Caller, Depends(current_caller)]
