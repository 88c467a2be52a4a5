"""The embedded stack: two clusters, the services and their relays, on this machine."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from backend.legacy_shop.report import LoadReport
from backend.shared.domain.errors import ConfigurationError
from backend.shared.dual_write_config import DualWriteSettings
from backend.shared.testing.clusters import Cluster
from backend.shared.testing.ports import LOOPBACK, free_port, is_free
from backend.shared.testing.processes import ServiceProcess

from . import steps
from .programs import relay_process, service_process
from .record import RecordedProcess, StackRecord, write_private
from .registry import RegisteredService, shop_services
from .steps import ShopSource
from .waiting import all_to_the_end, to_the_end

LEGACY_DATABASE = "poc"
ADMIN_EMAIL = "admin@shop.example"
FIRST_PHASE = "dualwrite"


class Stack:
    """Two clusters (legacy; services), a process per service and a relay per service.

    `folder` takes the logs, the key and what tells others about the stack; `data` the clusters, and it must be a place that
    the servers' account can reach. Without `ports`, free ones are taken; without `members`, all services that are installed.
    `setup()` brings everything up step by step, each of which can also be called alone; `stop()` ends what this object has
    started, and so does the end of this process, unless `detach()` was called. `replicas` says of which service more than
    one process is to run, `settings` are further variables for all of them.

    `legacy` and `services` are the clusters; `processes` holds the services by name, their second replicas as `NAME-2`, and
    the relays as `NAME-relay`; `env` is what `stack.env` says.
    """

    def __init__(
        self,
        folder: Path,
        *,
        data: Path,
        ports: Mapping[str, int] | None = None,
        phase: str = FIRST_PHASE,
        members: Sequence[RegisteredService] | None = None,
        replicas: Mapping[str, int] | None = None,
        settings: Mapping[str, str] | None = None,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.data = data
        self.members = tuple(shop_services() if members is None else members)
        self.processes: dict[str, ServiceProcess] = {}
        self.env: dict[str, str] = {}
        self._ports = dict(ports) if ports is not None else {}
        self._replicas = dict(replicas or {})
        self._replica_ports: dict[str, int] = {}
        self._settings = dict(settings or {})
        self._phase = phase
        self._say = say
        self.legacy = Cluster(data / "legacy", fsync=True)
        self.services = Cluster(data / "services", fsync=True)

    async def setup(self, source: ShopSource | None = None, *, backfill: bool = True) -> LoadReport | None:
        """Bring everything up, and history over unless `backfill` is false. Returns the load's report, or None where the data of an earlier run was kept.

        If anything goes wrong, or this is cancelled, all that was started is stopped again.
        """
        source = source or ShopSource()
        self.check_ports()
        self.check_settings()
        source.check()
        try:
            self._say("starting two PostgreSQL servers")
            await self.start_clusters()
            report = await self.fill(source)
            self._say("starting services and relays")
            await self.start_services()
            await self.start_relays()
            if backfill:
                self._say("moving history")
                await self.backfill()
        except BaseException:
            # To the end: a second Ctrl-C must not leave half of it running.
            await to_the_end(self.stop())
            raise
        return report

    async def fill(self, source: ShopSource) -> LoadReport | None:
        """Databases with tables, journal and rows. Rows are loaded once; an attempt that was broken off counts for nothing.

        Returns the load's report, or None where the rows were there.
        """
        report = None
        fresh = not self.is_seeded
        if fresh:
            await self.create_databases()
            self._say("loading the legacy shop")
            report = await self.load_shop(source)
        self._say("migrating the services' databases")
        await self.migrate()
        self._say("installing capture and guards")
        await self.install()
        if fresh:
            self._seeded_mark.touch()
        return report

    @property
    def is_seeded(self) -> bool:
        """Whether the clusters hold a shop that was loaded to the end."""
        return self._seeded_mark.exists()

    def check_ports(self) -> None:
        """Raises ConfigurationError if somebody listens on a port that a service is to have."""
        for name, port in self._ports.items():
            if not is_free(port):
                raise ConfigurationError(
                    f"port {port}, for the service '{name}', is taken by another program"
                )

    def check_settings(self) -> None:
        """Raises ConfigurationError for dual-write settings of the shell that cannot be."""
        for member in self.members:
            phase = {f"{member.variable_prefix}_DUAL_WRITE_PHASE": self._phase}
            DualWriteSettings.from_env(member.name, {**os.environ, **self._settings, **phase})

    async def start_clusters(self) -> None:
        """Start both servers, and write down how to reach everything."""
        self.data.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        await all_to_the_end(asyncio.to_thread(cluster.start) for cluster in (self.legacy, self.services))
        self._fill_env()
        lines = "".join(f"{key}={value}\n" for key, value in self.env.items())
        write_private(self.folder / "stack.env", lines)

    async def create_databases(self) -> None:
        """Make the databases anew, empty."""
        await self.legacy.drop_database(LEGACY_DATABASE)
        await self.legacy.create_database(LEGACY_DATABASE)
        for member in self.members:
            await self.services.drop_database(member.name)
            await self.services.create_database(member.name)

    async def load_shop(self, source: ShopSource) -> LoadReport:
        """The legacy tables, their rows, and the administrator among the users."""
        legacy_url = self.env["LEGACY_DATABASE_URL"]
        report = await steps.load_shop(legacy_url, source=source)
        await steps.add_admin(
            legacy_url, email=self.env["TANDEM_ADMIN_EMAIL"], password=self.env["TANDEM_ADMIN_PASSWORD"]
        )
        return report

    async def migrate(self) -> None:
        """Bring every service's own database to its newest migration."""
        log = self.logs / "setup.log"
        await asyncio.gather(
            *(steps.migrate(member, env=self.child_env(member), log=log) for member in self.members)
        )

    async def install(self) -> None:
        """Journal, capture and guards. One service after the other: they share the legacy database."""
        for member in self.members:
            await steps.install(member, env=self.child_env(member))

    async def backfill(self) -> None:
        """Copy the legacy rows to each service's database, unless that was done. The shop may be open meanwhile."""
        for member in self.members:
            await steps.backfill(member, env=self.child_env(member))
        await steps.checkpoint(self.services.url())

    async def start_services(self) -> None:
        """Start the services and wait until each is ready."""
        services = [
            self._service_process(member, name)
            for member in self.members
            for name in self.replicas_of(member)
        ]
        self.processes |= {service.name: service for service in services}
        await asyncio.gather(*(service.start() for service in services))

    async def start_relays(self) -> None:
        """Start one relay process per service, and wait until each is ready."""
        relays = [self._relay_process(member) for member in self.members]
        self.processes |= {relay.name: relay for relay in relays}
        await asyncio.gather(*(relay.start() for relay in relays))

    async def stop(self) -> None:
        """End the processes, the services last, then the servers. What does not run is passed over. Data stays."""
        services = {name for member in self.members for name in self.replicas_of(member)}
        for last in (False, True):
            ending = [process for name, process in self.processes.items() if (name in services) is last]
            await asyncio.gather(*(process.terminate() for process in ending))
        self.processes.clear()
        await all_to_the_end(asyncio.to_thread(cluster.stop) for cluster in (self.legacy, self.services))
        for name in ("stack.env", "stack.json"):
            (self.folder / name).unlink(missing_ok=True)

    def detach(self) -> None:
        """Let everything outlive this process, and write down what runs, for `stop_recorded`."""
        record = StackRecord(
            processes={name: RecordedProcess.of(pid) for name, pid in self._pids().items() if pid},
            urls=self._urls(),
        )
        record.save(self._record_path)
        for process in self.processes.values():
            process.detach()
        for cluster in (self.legacy, self.services):
            cluster.detach()

    def recorded(self) -> StackRecord | None:
        """What another process has left running here; None if any part of it has ended."""
        record = StackRecord.load(self._record_path)
        clusters_run = self.legacy.is_running and self.services.is_running
        return record if record and record.is_running and clusters_run else None

    async def stop_recorded(self) -> bool:
        """End what another process has left running here. Returns whether there was anything."""
        record = StackRecord.load(self._record_path)
        if record is not None:
            await asyncio.to_thread(record.stop)
        found = record is not None or self.legacy.is_running or self.services.is_running
        await self.stop()
        return found

    def remove(self) -> None:
        """Delete all data, logs and keys of a stack that is stopped."""
        self.legacy.remove()
        self.services.remove()
        self._seeded_mark.unlink(missing_ok=True)
        shutil.rmtree(self.logs, ignore_errors=True)
        for name in ("signing_key.pem", "admin_password"):
            (self.folder / name).unlink(missing_ok=True)

    def replicas_of(self, member: RegisteredService) -> tuple[str, ...]:
        """The names of a service's processes: that of the service, then `NAME-2` and so on."""
        more = range(2, self._replicas.get(member.name, 1) + 1)
        return (member.name, *(f"{member.name}-{number}" for number in more))

    def urls_of(self, member: RegisteredService) -> tuple[str, ...]:
        """Where the processes of a service listen."""
        return tuple(f"http://{LOOPBACK}:{self._port(member, name)}" for name in self.replicas_of(member))

    def child_env(self, member: RegisteredService) -> dict[str, str]:
        """The environment of a process that works for one service. The stack's own values win over the shell's."""
        own = {"DATABASE_URL": self.env[f"{member.variable_prefix}_DATABASE_URL"], "PYTHONUNBUFFERED": "1"}
        return {**os.environ, **self.env, **own}

    def env_of(self, service: str) -> dict[str, str]:
        """`child_env` of the service of that name."""
        return self.child_env(next(member for member in self.members if member.name == service))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await to_the_end(self.stop())

    def _pids(self) -> dict[str, int | None]:
        """Of everything but the clusters."""
        return {name: process.pid for name, process in self.processes.items()}

    def _urls(self) -> dict[str, str]:
        """Where each service is reached."""
        return {member.name: self.env[f"{member.variable_prefix}_URL"] for member in self.members}

    @property
    def _record_path(self) -> Path:
        return self.folder / "stack.json"

    @property
    def _seeded_mark(self) -> Path:
        return self.data / "seeded"

    def _port(self, member: RegisteredService, name: str) -> int:
        return self._ports[name] if name == member.name else self._replica_ports[name]

    def _service_process(self, member: RegisteredService, name: str) -> ServiceProcess:
        port = self._port(member, name)
        return service_process(member, name=name, port=port, env=self.child_env(member), logs=self.logs)

    def _relay_process(self, member: RegisteredService) -> ServiceProcess:
        metrics = self.env[f"{member.variable_prefix}_RELAY_METRICS_URL"]
        return relay_process(member, metrics_url=metrics, env=self.child_env(member), logs=self.logs)

    def _fill_env(self) -> None:
        self.env["LEGACY_DATABASE_URL"] = self.legacy.url(LEGACY_DATABASE)
        self.env |= self._settings
        for member in self.members:
            port = self._ports.setdefault(member.name, free_port())
            for name in self.replicas_of(member)[1:]:
                self._replica_ports[name] = free_port()
            self.env[f"{member.variable_prefix}_DATABASE_URL"] = self.services.url(member.name)
            self.env[f"{member.variable_prefix}_URL"] = f"http://{LOOPBACK}:{port}"
            self.env[f"{member.variable_prefix}_DUAL_WRITE_PHASE"] = self._phase
            # The relays are processes of their own here; that a relay is gone is to be seen.
            self.env[f"{member.variable_prefix}_RUN_RELAY"] = "false"
            self.env[f"{member.variable_prefix}_RELAY_METRICS_URL"] = (
                f"http://{LOOPBACK}:{free_port()}/metrics"
            )
        key = self.folder / "signing_key.pem"
        steps.write_signing_key(key)
        self.env["AUTH_SIGNING_KEY_FILE"] = str(key)
        if "AUTH_URL" in self.env:
            self.env["AUTH_JWKS_URL"] = f"{self.env['AUTH_URL']}/.well-known/jwks.json"
        self.env["TANDEM_ADMIN_EMAIL"] = ADMIN_EMAIL
        self.env["TANDEM_ADMIN_PASSWORD"] = self._admin_password()

    def _admin_password(self) -> str:
        path = self.folder / "admin_password"
        if not path.exists():
            write_private(path, secrets.token_urlsafe(18))
        return path.read_text(encoding="utf-8").strip()
