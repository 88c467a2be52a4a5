"""What killed servers leave in the kernel's memory is removed with their data; the kernel has room for some thousand."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from backend.shared.testing.clusters import Cluster
from backend.shared.testing.programs import remove_left_overs
from backend.shared.testing.server_memory import (
    Segment,
    remove_with_servers,
    segment_of,
    unused_segments,
)


@pytest.fixture
def cluster(worker_directory: Path) -> Iterator[Cluster]:
    own = Cluster(worker_directory / "remembered" / str(ended_process()) / "own")
    own.start()
    yield own
    own.remove()


def ended_process() -> int:
    """The number of a process that is over."""
    with subprocess.Popen(["true"]) as process:
        process.wait()
    return process.pid


def killed(cluster: Cluster) -> Segment:
    """What the server leaves behind."""
    segment = segment_of(cluster.data)
    assert segment is not None
    cluster.kill9()
    assert segment in unused_segments()
    return segment


def test_it_goes_with_the_server(cluster: Cluster) -> None:
    segment = killed(cluster)
    cluster.remove()
    assert segment not in unused_segments()


def test_a_server_that_runs_is_ended_so_that_it_leaves_nothing(cluster: Cluster) -> None:
    segment = segment_of(cluster.data)
    assert segment is not None
    server = psutil.Process(cluster.pid)
    assert [found.path for found in server.memory_maps() if found.path.startswith("/dev/shm/Postgre")] == []
    cluster.suspend()
    cluster.remove()
    assert not server.is_running()
    assert segment not in unused_segments()
    assert not cluster.directory.exists()


def test_it_goes_with_what_is_left_over_of_a_killed_run(cluster: Cluster) -> None:
    segment = killed(cluster)
    remove_left_overs(cluster.directory.parents[1])
    assert not cluster.directory.exists()
    assert segment not in unused_segments()


def test_what_has_only_the_same_number_is_left_alone(cluster: Cluster, tmp_path: Path) -> None:
    """After the machine was started again its numbers belong to others."""
    segment = killed(cluster)
    written = cluster.data / "postmaster.pid"
    other = tmp_path / "data" / "postmaster.pid"
    other.parent.mkdir()
    other.write_text(written.read_text().replace(str(segment.key), str(segment.key + 1)))
    assert segment_of(other.parent) == Segment(segment.key + 1, segment.number)
    remove_with_servers(tmp_path)
    assert segment in unused_segments()


def test_what_is_in_use_is_left_alone(cluster: Cluster, tmp_path: Path) -> None:
    """Somebody has copied the data of a server that runs."""
    other = tmp_path / "data" / "postmaster.pid"
    other.parent.mkdir()
    other.write_text((cluster.data / "postmaster.pid").read_text())
    remove_with_servers(tmp_path)
    killed(cluster)


def test_a_server_of_which_the_data_outlive_the_machine_leaves_nothing_either(worker_directory: Path) -> None:
    """Its larger segments are files in memory, of which only the server knows the names."""
    durable = Cluster(worker_directory / "durable", fsync=True)
    durable.start()
    try:
        maps = psutil.Process(durable.pid).memory_maps()
        files = [Path(found.path) for found in maps if found.path.startswith("/dev/shm/Postgre")]
        assert files
    finally:
        durable.remove()
    assert not any(file.exists() for file in files)
