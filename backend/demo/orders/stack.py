"""The shop's stack with orders, payments and the message broker beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from backend.demo import steps
from backend.demo.programs import service_process
from backend.demo.registry import DEFAULT_PORTS, RegisteredService, registered_services
from backend.demo.stack import Stack
from backend.shared.testing.brokers import NatsServer
from backend.shared.testing.ports import LOOPBACK, free_port

MEMBERS = frozenset({"auth", "product", "cart", "order"})
PAYMENT = RegisteredService(name="payment", package="backend.payment_service")
"""It has never had another database: there is nothing to install or to carry."""


class OrderStack(Stack):
    """All in phase `dualwrite`, with history moved. Without `ports`, free ones are taken."""

    def __init__(
        self,
        folder: Path,
        *,
        data: Path,
        ports: Mapping[str, int] | None = None,
        members: Sequence[RegisteredService] | None = None,
        settings: Mapping[str, str] | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        super().__init__(
            folder,
            data=data,
            ports=ports,
            members=_members() if members is None else members,
            settings=settings,
            say=say,
        )
        self.broker = NatsServer(data / "broker")
        self._payment_port = (ports or {}).get(PAYMENT.name) or free_port()

    @property
    def payment_url(self) -> str:
        """Where the payment service listens."""
        return f"http://{LOOPBACK}:{self._payment_port}"

    async def start_clusters(self) -> None:
        """The broker with them."""
        await super().start_clusters()
        await asyncio.to_thread(self.broker.start)

    async def create_databases(self) -> None:
        """The payments' too."""
        await super().create_databases()
        await self.services.drop_database(PAYMENT.name)
        await self.services.create_database(PAYMENT.name)

    async def migrate(self) -> None:
        """The payments' too."""
        await super().migrate()
        await steps.migrate(PAYMENT, env=self.child_env(PAYMENT), log=self.logs / "setup.log")

    async def start_services(self) -> None:
        """The payments first: nobody asks them for anything but by message."""
        process = service_process(
            PAYMENT,
            name=PAYMENT.name,
            port=self._payment_port,
            env=self.child_env(PAYMENT),
            logs=self.logs,
        )
        self.processes[PAYMENT.name] = process
        await process.start()
        await super().start_services()

    async def stop(self) -> None:
        """The broker last."""
        await super().stop()
        await asyncio.to_thread(self.broker.stop)

    def detach(self) -> None:
        """The broker too."""
        super().detach()
        self.broker.detach()

    def remove(self) -> None:
        """The broker's messages too."""
        super().remove()
        self.broker.remove()

    def _pids(self) -> dict[str, int | None]:
        return super()._pids() | {"broker": self.broker.pid}

    def _urls(self) -> dict[str, str]:
        return super()._urls() | {PAYMENT.name: self.payment_url}

    def _fill_env(self) -> None:
        super()._fill_env()
        self.env |= {
            "BROKER_URL": self.broker.url,
            "PAYMENT_URL": self.payment_url,
            "PAYMENT_DATABASE_URL": self.services.url(PAYMENT.name),
        }


def order_ports() -> dict[str, int]:
    """The ports that the services are known under."""
    return {name: DEFAULT_PORTS[name] for name in (*(member.name for member in _members()), PAYMENT.name)}


def _members() -> list[RegisteredService]:
    return [member for member in registered_services() if member.name in MEMBERS]
