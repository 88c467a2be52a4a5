"""The embedded stack of the task service: a document server, a PostgreSQL server, two replicas and a relay."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from pymongo import AsyncMongoClient

from backend.demo import steps
from backend.demo.programs import relay_process, service_process
from backend.demo.registry import RegisteredService, registered_services
from backend.demo.waiting import all_to_the_end, to_the_end
from backend.legacy_documents import DocumentLoadError, DocumentLoadReport, load
from backend.shared.api.tokens import TokenIssuer
from backend.shared.domain.errors import ConfigurationError
from backend.shared.domain.phases import Phase
from backend.shared.dual_write_config import DualWriteSettings
from backend.shared.testing.clusters import Cluster
from backend.shared.testing.document_servers import DocumentServer
from backend.shared.testing.ports import LOOPBACK, free_port
from backend.shared.testing.processes import ServiceProcess

SERVICE = "task"
REPLICAS = (SERVICE, f"{SERVICE}-2")
RELAY = f"{SERVICE}-relay"
LEGACY_DATABASE = "todo"
INDEXED = {
    "users": ("email_id",),
    "teams": ("created_by",),
    "labels": ("name",),
    "tasks": ("created_by", "labels"),
    "task_assignments": ("task_id", "user_id"),
    "watchlists": ("user_id",),
}
"""What the old programs look things up by. No index is unique: history has doubles."""


class TaskStack:
    """MongoDB's stand-in with the ten collections, an empty PostgreSQL database, the service in phase `off`.

    Everything lies in `folder`, which must be a place that the servers' account can reach, and listens on free ports. `stop()`
    ends what this object has started, and so does the end of this process. `settings` are further variables for all processes.
    """

    def __init__(
        self, folder: Path, *, settings: Mapping[str, str], say: Callable[[str], None] = lambda _: None
    ) -> None:
        self.folder = folder
        self.processes: dict[str, ServiceProcess] = {}
        self.documents = DocumentServer(folder / "documents")
        self.cluster = Cluster(folder / "services", fsync=True)
        self.env: dict[str, str] = {}
        self._ports = {name: free_port() for name in REPLICAS}
        self._settings = dict(settings)
        self._say = say

    @property
    def logs(self) -> Path:
        """Where the processes' logs lie."""
        return self.folder / "logs"

    @property
    def urls(self) -> tuple[str, ...]:
        """Where the replicas listen."""
        return tuple(f"http://{LOOPBACK}:{port}" for port in self._ports.values())

    def env_of(self, service: str) -> dict[str, str]:
        """The environment of a process that works for the service. The stack's own values win over the shell's."""
        if service != SERVICE:
            raise ConfigurationError(f"there is no service {service!r} in this stack")
        return {**os.environ, **self.env, "PYTHONUNBUFFERED": "1"}

    def token(self) -> str:
        """A token of another service, which may do anything here."""
        return TokenIssuer.from_file(self.folder / "signing_key.pem").service_token("demo")

    def dual_write_settings(self) -> DualWriteSettings:
        """What the service's processes go by."""
        return DualWriteSettings.from_env(SERVICE, self.env_of(SERVICE))

    async def setup(self, *, seed: int, size: int | None) -> DocumentLoadReport:
        """Bring everything up. If anything goes wrong, or this is cancelled, all that was started is stopped again."""
        try:
            self._say("starting a document server and a PostgreSQL server")
            await self._start_servers()
            self._say("loading ten collections")
            report = await self._load(seed=seed, size=size)
            self._say("migrating the service's database")
            await steps.migrate(self._member, env=self.env_of(SERVICE), log=self.logs / "setup.log")
            self._say("installing journal, guards and fence")
            await steps.install(self._member, env=self.env_of(SERVICE))
            self._say("starting the service twice, and its relay")
            await self._start_processes()
        except BaseException:
            # To the end: a second Ctrl-C must not leave half of it running.
            await to_the_end(self.stop())
            raise
        return report

    async def stop(self) -> None:
        """End the relay, the service, then the servers. What does not run is passed over. Data stays."""
        for names in ((RELAY,), REPLICAS):
            ending = [process for name, process in self.processes.items() if name in names]
            await asyncio.gather(*(process.terminate() for process in ending))
        self.processes.clear()
        await all_to_the_end(asyncio.to_thread(stop) for stop in (self.documents.stop, self.cluster.stop))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await to_the_end(self.stop())

    @property
    def _member(self) -> RegisteredService:
        for member in registered_services():
            if member.name == SERVICE:
                return member
        raise ConfigurationError(f"the demo needs a service that is not installed: {SERVICE}")

    async def _start_servers(self) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        await all_to_the_end(asyncio.to_thread(start) for start in (self.documents.start, self.cluster.start))
        await self.cluster.create_database(SERVICE)
        self._fill_env()

    async def _load(self, *, seed: int, size: int | None) -> DocumentLoadReport:
        url = self.documents.url(LEGACY_DATABASE)
        async with AsyncMongoClient[dict[str, Any]](url) as client:
            for collection, fields in INDEXED.items():
                for field in fields:
                    await client.get_default_database()[collection].create_index(field)
        try:
            return await load(url, seed=seed, size=size)
        except DocumentLoadError as error:
            raise ConfigurationError(str(error), variable="--size") from error

    async def _start_processes(self) -> None:
        env = self.env_of(SERVICE)
        for name, port in self._ports.items():
            self.processes[name] = service_process(
                self._member, name=name, port=port, env=env, logs=self.logs
            )
        metrics = f"http://{LOOPBACK}:{free_port()}/metrics"
        self.processes[RELAY] = relay_process(self._member, metrics_url=metrics, env=env, logs=self.logs)
        await asyncio.gather(*(process.start() for process in self.processes.values()))

    def _fill_env(self) -> None:
        legacy, new = self.documents.url(LEGACY_DATABASE), self.cluster.url(SERVICE)
        prefix = SERVICE.upper()
        self.env = {
            "ORM": "dual",
            "LEGACY_DATABASE_URL": legacy,
            f"{prefix}_LEGACY_DATABASE_URL": legacy,
            "DATABASE_URL": new,
            f"{prefix}_DATABASE_URL": new,
            f"{prefix}_DUAL_WRITE_PHASE": Phase.OFF.value,
            # The relay is a process of its own here; that it is gone is to be seen.
            f"{prefix}_RUN_RELAY": "false",
            "AUTH_JWKS_URL": "",
            "AUTH_PUBLIC_KEY_FILE": str(self._public_key()),
            **self._settings,
        }

    def _public_key(self) -> Path:
        private, public = self.folder / "signing_key.pem", self.folder / "public_key.pem"
        steps.write_signing_key(private)
        key = load_pem_private_key(private.read_bytes(), password=None).public_key()
        public.write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        return public
