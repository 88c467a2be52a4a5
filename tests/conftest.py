"""Real servers for every test: two clusters per worker, fresh databases per test."""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from backend.shared.testing.brokers import NatsServer
from backend.shared.testing.clusters import Cluster, Databases
from backend.shared.testing.document_servers import DocumentServer
from backend.shared.testing.programs import remove_left_overs, scratch_directory
from backend.shared.testing.server_memory import remove_with_servers

pytest_plugins = [
    "tests.support.fixtures",
    "tests.support.note_service",
    "tests.support.boards",
    "tests.support.document_scene",
    "tests.support.telling",
    "tests.support.reading",
    "tests.support.broker_room",
    "tests.support.tracing",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--broker",
        choices=["nats", "rabbitmq", "kafka"],
        default="nats",
        help="the message broker to run over: a server of our own, unless there is --broker-url",
    )
    parser.addoption("--broker-url", help="a broker that runs already; what kills brokers is not for it")


class MakeDatabase(Protocol):
    """Makes a database that is gone after the test; returns its URL."""

    async def __call__(self, cluster: Cluster, *, template: str | None = None) -> str: ...


class MakeTemplate(Protocol):
    """Makes a database once per worker, filled by `build(url)`; returns its name, for `template=`."""

    def __call__(self, cluster: Cluster, name: str, build: Callable[[str], Awaitable[object]]) -> str: ...


def pytest_collection_finish() -> None:
    _settle()


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if nextitem is not None and nextitem.path != item.path:
        _settle()


def _settle() -> None:
    """What is there by now stays: the garbage collector need not walk it again, and stand still for seconds, in a test."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def worker_directory() -> Iterator[Path]:
    """A folder of this worker alone, with which the server's account can work."""
    folder = scratch_directory() / "tests"
    folder.mkdir(mode=0o711, exist_ok=True)
    remove_left_overs(folder)  # of runs that were killed
    own = folder / str(os.getpid())
    own.mkdir(mode=0o711)
    yield own
    remove_with_servers(own)


@pytest.fixture(scope="session")
def legacy_cluster(worker_directory: Path) -> Iterator[Cluster]:
    """The server of the legacy side. A test that stops it starts it again."""
    yield from _running(worker_directory / "legacy")


@pytest.fixture(scope="session")
def services_cluster(worker_directory: Path) -> Iterator[Cluster]:
    """The server of the new side. A test that stops it starts it again."""
    yield from _running(worker_directory / "services")


def _running(directory: Path) -> Iterator[Cluster]:
    cluster = Cluster(directory, fsync=False)
    cluster.start()
    yield cluster
    cluster.remove()


@pytest.fixture(scope="session")
def document_server(worker_directory: Path) -> Iterator[DocumentServer]:
    """The server of documents. A test that stops it starts it again."""
    server = DocumentServer(worker_directory / "documents", durable=False)
    server.start()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def nats_server(worker_directory: Path) -> Iterator[NatsServer]:
    """The message broker. A test that stops it starts it again."""
    server = NatsServer(worker_directory / "nats")
    server.start()
    yield server
    server.remove()


@pytest.fixture
def document_url(document_server: DocumentServer) -> Iterator[str]:
    """A fresh database of documents, as a `mongodb://` URL; gone after the test."""
    name = f"t_{secrets.token_hex(6)}"
    yield document_server.url(name)
    document_server.resume()  # a test that failed may have left it down
    document_server.start()
    document_server.drop_database(name)


@pytest.fixture(scope="session")
def make_template() -> MakeTemplate:
    """For modules that give every test the same tables: the work is done once, then copied."""
    made: set[tuple[Path, str]] = set()

    def make(cluster: Cluster, name: str, build: Callable[[str], Awaitable[object]]) -> str:
        async def create() -> None:
            await cluster.drop_database(name)
            await build(await cluster.create_database(name))

        if (cluster.directory, name) not in made:
            asyncio.run(create())
            made.add((cluster.directory, name))
        return name

    return make


@pytest.fixture
async def make_database() -> AsyncIterator[MakeDatabase]:
    """Databases with random names, removed after the test."""
    made: list[tuple[Cluster, str]] = []

    async def make(cluster: Cluster, *, template: str | None = None) -> str:
        name = f"t_{secrets.token_hex(6)}"
        url = await cluster.create_database(name, template=template)
        made.append((cluster, name))
        return url

    yield make
    for cluster, name in made:
        cluster.start()  # a test that failed may have left it down
        cluster.resume()
        await cluster.drop_database(name)


@pytest.fixture(scope="session")
def legacy_template() -> str | None:
    """The database of `legacy_cluster` that `databases` copies. A module overrides this, with `make_template`."""
    return None


@pytest.fixture(scope="session")
def new_template() -> str | None:
    """The database of `services_cluster` that `databases` copies. A module overrides this, with `make_template`."""
    return None


@pytest.fixture
async def databases(
    legacy_cluster: Cluster,
    services_cluster: Cluster,
    make_database: MakeDatabase,
    legacy_template: str | None,
    new_template: str | None,
) -> Databases:
    """A fresh pair of databases, on two servers, as plain `postgresql://` URLs."""
    legacy_url = await make_database(legacy_cluster, template=legacy_template)
    new_url = await make_database(services_cluster, template=new_template)
    return Databases(legacy_url=legacy_url, new_url=new_url)
