"""Which services are installed, and where their parts lie. Nothing of them is imported."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path

from backend.shared.domain.errors import ConfigurationError

SERVICES_GROUP = "tandem.services"
# The order is that of starting: the others check auth's tokens, and the cart asks for products.
DEFAULT_PORTS = {"auth": 8001, "product": 8002, "cart": 8003, "order": 8004, "task": 8005, "payment": 8006}


@dataclass(frozen=True)
class RegisteredService:
    """A service by its name, with the package that holds it."""

    name: str
    package: str

    @property
    def app_factory(self) -> str:
        """What uvicorn is told to serve."""
        return f"{self.package}.app.main:create_app"

    @property
    def folder(self) -> Path:
        """The folder of the package, with `alembic.ini`."""
        spec = importlib.util.find_spec(self.package)
        if spec is None or spec.origin is None:
            raise ConfigurationError(
                f"the service '{self.name}' is registered as {self.package}, which is not there"
            )
        return Path(spec.origin).parent

    @property
    def variable_prefix(self) -> str:
        return self.name.upper()


SHOP = frozenset({"auth", "product", "cart"})
"""The services of the shop, which share its legacy database."""


def shop_services() -> tuple[RegisteredService, ...]:
    """The services of the shop that are installed, in the order in which to start them."""
    return tuple(member for member in registered_services() if member.name in SHOP)


def registered_services() -> tuple[RegisteredService, ...]:
    """All services that are installed, in the order in which to start them."""
    found = {
        entry.name: RegisteredService(name=entry.name, package=entry.module.partition(".app.")[0])
        for entry in entry_points(group=SERVICES_GROUP)
    }
    rank = {name: position for position, name in enumerate(DEFAULT_PORTS)}
    return tuple(found[name] for name in sorted(found, key=lambda name: (rank.get(name, len(rank)), name)))
