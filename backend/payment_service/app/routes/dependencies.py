"""What routes ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from ..services.payment_service import PaymentService


@dataclass(frozen=True, kw_only=True)
class Services:
    """Everything that the routes call. Made with the application."""

    payments: PaymentService


def services(request: Request) -> Services:
    """The services of the running application."""
    found = request.app.state.services
    if not isinstance(found, Services):
        raise TypeError("the application was not made by make_app")
    return found


DepServices = Annotated[Services, Depends(services)]
