"""The two servers that everything is measured on, and the relay as a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
from prometheus_client import CollectorRegistry

from backend.shared import DualWriteManager, DualWriteSettings, Phase
from backend.shared.database import DatabaseLimits
from backend.shared.observability.metrics import Metrics
from backend.shared.testing.clusters import Cluster
from backend.shared.testing.processes import ServiceProcess
from backend.shared.testing.programs import REPOSITORY, remove_left_overs, state_directory
from benchmarks.service import CUTOVER, MANAGED, PLAIN, RAMPDOWN, READ, ItemService

POOL_SIZE = 20
_ENTRY_POINTS = """[tandem.services]
bench_drained = benchmarks.service:DrainedManager
bench_backlog = benchmarks.service:BacklogManager
bench_history = benchmarks.backfilling:HistoryManager
"""


@dataclass(frozen=True, kw_only=True)
class Stack:
    """Both databases, as `postgresql://` URLs, and a folder for what is made on the way."""

    directory: Path
    legacy_url: str
    new_url: str
    programs: Path
    """The folder with `psql` and its kin."""

    def manager(
        self,
        service: ItemService,
        *,
        phase: Phase = Phase.DUALWRITE,
        async_legacy: bool = True,
        batch_size: int = 100,
        urls: tuple[str, str] | None = None,
    ) -> DualWriteManager:
        """A manager for one copy of the service; whoever asks for it closes it."""
        return self.manager_of(
            service.manager, phase=phase, async_legacy=async_legacy, batch_size=batch_size, urls=urls
        )

    def manager_of(
        self,
        kind: type[DualWriteManager],
        *,
        phase: Phase = Phase.DUALWRITE,
        async_legacy: bool = True,
        batch_size: int = 100,
        urls: tuple[str, str] | None = None,
    ) -> DualWriteManager:
        """The same for any service."""
        legacy_url, new_url = urls or (self.legacy_url, self.new_url)
        settings = DualWriteSettings(
            legacy_database_url=legacy_url,
            database_url=new_url,
            phase=phase,
            async_legacy=async_legacy,
            batch_size=batch_size,
        )
        return kind(
            settings=settings,
            metrics=Metrics(CollectorRegistry()),
            limits=DatabaseLimits(pool_size=POOL_SIZE),
        )

    def env_of(self, service: str, *, batch_size: int = 100) -> dict[str, str]:
        """The environment in which the `tandem` command finds a service of this stack."""
        prefix = service.upper()
        env = {key: value for key, value in os.environ.items() if "DUAL_WRITE" not in key}
        return env | {
            f"{prefix}_LEGACY_DATABASE_URL": self.legacy_url,
            f"{prefix}_DATABASE_URL": self.new_url,
            f"{prefix}_DUAL_WRITE_PHASE": Phase.DUALWRITE.value,
            f"{prefix}_DUAL_WRITE_BATCH_SIZE": str(batch_size),
            # An installed package is a folder with its entry points: that is how `tandem` finds the service.
            "PYTHONPATH": os.pathsep.join([str(self.directory / "packages"), str(REPOSITORY)]),
        }

    def relay(self, service: ItemService, *, batch_size: int = 100) -> RelayProcess:
        """`tandem relay` for one copy of the service, not started."""
        return RelayProcess(self, service, batch_size=batch_size)


class RelayProcess:
    """A relay as users run it, which can be held still while something else is measured."""

    def __init__(self, stack: Stack, service: ItemService, *, batch_size: int) -> None:
        name = service.manager.service
        self._journal = f"tandem_{name}.journal"
        self._log = stack.directory / f"{name}-relay.log"
        self._url = stack.legacy_url
        self._process = ServiceProcess(
            [sys.executable, "-m", "backend.shared.cli.main", "relay", name],
            name=f"relay of {name}",
            env=stack.env_of(name, batch_size=batch_size),
            log=self._log,
            cwd=stack.directory,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[RelayProcess]:
        """Started, and idle; ended afterwards."""
        await self._process.start()
        try:
            async with asyncio.timeout(20):
                while b"relay_started" not in self._log.read_bytes():
                    await self._process.wait_ready()
                    await asyncio.sleep(0.05)
            yield self
        finally:
            self.resume()
            await self._process.terminate()

    def hold(self) -> None:
        """Let it do nothing at all until `resume`."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    async def drained(self, *, timeout_seconds: float) -> bool:
        """Wait until the journal is empty; False if it is not by then."""
        connection = await asyncpg.connect(self._url)
        try:
            async with asyncio.timeout(timeout_seconds):
                await until_false(connection, f"SELECT EXISTS (SELECT FROM {self._journal})")
        except TimeoutError:
            return False
        finally:
            await connection.close()
        return True

    def _signal(self, number: signal.Signals) -> None:
        if self._process.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)


async def run_sql(url: str, *statements: str, settings: Mapping[str, str] | None = None) -> None:
    """Run statements one after the other."""
    connection = await asyncpg.connect(url, server_settings=dict(settings or {}))
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()


async def until_false(connection: Any, query: str, *arguments: object) -> None:
    """Ask until the answer is no, a hundred times a second."""
    while await connection.fetchval(query, *arguments):  # noqa: ASYNC110 - a database raises no asyncio.Event
        await asyncio.sleep(0.01)


@contextmanager
def running_stack() -> Iterator[Stack]:
    """Two servers that sync every commit to disk; everything is gone afterwards."""
    base = state_directory() / "bench"
    base.mkdir(mode=0o711, exist_ok=True)
    remove_left_overs(base)  # of runs that were killed
    directory = base / str(os.getpid())
    clusters = [Cluster(directory / name, fsync=True) for name in ("legacy", "new")]
    try:
        for cluster in clusters:
            cluster.start()
        urls = [asyncio.run(cluster.create_database("bench")) for cluster in clusters]
        stack = Stack(directory=directory, legacy_url=urls[0], new_url=urls[1], programs=clusters[0].programs)
        _make_package(directory / "packages")
        asyncio.run(_fill(stack))
        yield stack
    finally:
        for cluster in clusters:
            cluster.remove()
        shutil.rmtree(directory, ignore_errors=True)


def _make_package(folder: Path) -> None:
    info = folder / "tandem_bench-0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tandem-bench\nVersion: 0\n")
    (info / "entry_points.txt").write_text(_ENTRY_POINTS)


async def _fill(stack: Stack) -> None:
    for service in (PLAIN, *MANAGED):
        legacy_ddl, new_ddl = service.ddl
        await run_sql(stack.legacy_url, legacy_ddl)
        await run_sql(stack.new_url, new_ddl)
    for service in MANAGED:
        first = {RAMPDOWN.name: Phase.RAMPDOWN, CUTOVER.name: Phase.SHADOW, READ.name: Phase.SHADOW}
        manager = stack.manager(service, phase=first.get(service.name, Phase.DUALWRITE))
        await manager.install()
        await manager.close()
