from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from backend.shared.testing.clusters import Cluster, ClusterError, Databases
from backend.shared.testing.ports import LOOPBACK, free_port
from backend.shared.testing.processes import ProcessError, ServiceProcess


@pytest.fixture
def cluster(worker_directory: Path) -> Iterator[Cluster]:
    own = Cluster(worker_directory / "own")
    own.start()
    yield own
    own.remove()


async def test_committed_rows_outlive_kill_9(cluster: Cluster) -> None:
    url = await cluster.create_database("shop")
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")
    server, port = cluster.pid, cluster.port

    cluster.kill9()
    assert not cluster.is_running
    with pytest.raises((OSError, asyncpg.PostgresError, asyncpg.InterfaceError)):
        await connection.fetchval("SELECT 1")
    cluster.start()

    assert cluster.port == port
    assert cluster.pid != server
    assert await _value(url, "SELECT n FROM kept") == 1


async def test_a_suspended_server_answers_late(cluster: Cluster) -> None:
    connection = await asyncpg.connect(cluster.url())
    cluster.suspend()
    asking = asyncio.create_task(connection.fetchval("SELECT 1"))
    done, _ = await asyncio.wait([asking], timeout=0.3)
    assert not done

    cluster.resume()

    assert await asking == 1
    await connection.close()


async def test_a_suspended_server_can_be_stopped(cluster: Cluster) -> None:
    cluster.suspend()
    cluster.stop("immediate")
    assert not cluster.is_running
    cluster.stop()
    cluster.start()
    assert await _value(cluster.url(), "SELECT 1") == 1


async def test_another_process_finds_the_same_cluster(cluster: Cluster) -> None:
    again = Cluster(cluster.directory)
    assert again.url() == cluster.url()
    assert again.pid == cluster.pid
    again.restart()
    assert await _value(cluster.url(), "SHOW timezone") == "UTC"


async def test_the_password_is_needed_and_random(cluster: Cluster, legacy_cluster: Cluster) -> None:
    assert cluster.password != legacy_cluster.password
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(cluster.url().replace(cluster.password, "wrong"))


def test_a_taken_port_is_said_in_one_line(worker_directory: Path, cluster: Cluster) -> None:
    second = Cluster(worker_directory / "second", port=cluster.port)
    try:
        with pytest.raises(ClusterError, match="could not"):
            second.start()
        assert not second.is_running
    finally:
        second.remove()


async def test_databases_are_fresh_and_on_two_servers(databases: Databases) -> None:
    assert databases.legacy_url != databases.new_url
    for url in (databases.legacy_url, databases.new_url):
        assert await _value(url, "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
        assert await _value(url, "SHOW server_encoding") == "UTF8"


def test_nothing_outlives_a_parent_that_is_killed(worker_directory: Path) -> None:
    program = f"""
        import pathlib, sys, time
        from backend.shared.testing.clusters import Cluster
        cluster = Cluster(pathlib.Path({str(worker_directory / "orphan")!r}))
        cluster.start()
        cluster.suspend()
        print(cluster.pid, flush=True)
        time.sleep(60)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        server = psutil.Process(int(parent.stdout.readline()))
        family = [server, *server.children()]
        parent.send_signal(signal.SIGKILL)

        _, alive = psutil.wait_procs(family, timeout=10)

    assert not alive
    Cluster(worker_directory / "orphan").remove()


async def test_a_process_is_killed_and_started_again(tmp_path: Path) -> None:
    port = free_port()
    service = ServiceProcess(
        [sys.executable, "-m", "http.server", str(port), "--bind", LOOPBACK],
        name="files",
        env=dict(os.environ),
        log=tmp_path / "logs" / "files.log",
        ready_url=f"http://{LOOPBACK}:{port}/",
        cwd=tmp_path,
    )
    await service.start()
    first = psutil.Process(service.pid)
    service.kill9()
    assert not first.is_running()
    await service.restart()
    assert service.pid not in {None, first.pid}
    assert await service.terminate() == -signal.SIGTERM
    assert not service.is_running


async def test_a_process_that_cannot_start_says_why(tmp_path: Path) -> None:
    service = ServiceProcess(
        [sys.executable, "-c", "raise SystemExit('CART_DATABASE_URL: is not set')"],
        name="cart",
        env=dict(os.environ),
        log=tmp_path / "cart.log",
        ready_url=f"http://{LOOPBACK}:1/",
    )
    with pytest.raises(ProcessError, match="cart did not start: CART_DATABASE_URL: is not set"):
        await service.start()


async def _value(url: str, query: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()
