from __future__ import annotations

import os
import stat
from pathlib import Path

import asyncpg
import pytest

from backend.demo.record import RecordedProcess, StackRecord
from backend.demo.stack import Stack
from backend.demo.steps import ShopSource
from backend.shared.domain.errors import ConfigurationError, TandemError
from backend.shared.environment import load_environment, parse_env_file
from backend.shared.testing.clusters import Cluster


async def test_two_servers_with_a_loaded_shop(tmp_path: Path, worker_directory: Path) -> None:
    folder = tmp_path / ".tandem"
    folder.mkdir()
    made = Stack(
        folder,
        data=worker_directory / "stack",
        replicas={"cart": 2},
        settings={"DUAL_WRITE_LAG_WINDOW": "3"},
    )
    async with made as stack:
        await stack.start_clusters()
        await stack.create_databases()
        report = await stack.load_shop(ShopSource(size=200))

        env = load_environment(tmp_path, environ={})
        connection = await asyncpg.connect(env["LEGACY_DATABASE_URL"])
        assert await connection.fetchval("SELECT count(*) FROM cart_lines") == report.lines_loaded > 0
        admin = await connection.fetchrow("SELECT * FROM users WHERE role_cd = 'A' AND usr_id = 'admin'")
        await connection.close()
        assert admin["login_email"] == env["TANDEM_ADMIN_EMAIL"]
        for name in ("AUTH", "PRODUCT", "CART"):
            own = await asyncpg.connect(env[f"{name}_DATABASE_URL"])
            await own.close()
        assert env["DUAL_WRITE_LAG_WINDOW"] == "3"
        for member in stack.members:
            names, urls = stack.replicas_of(member), stack.urls_of(member)
            assert names == (("cart", "cart-2") if member.name == "cart" else (member.name,))
            assert len(set(urls)) == len(names)
            assert urls[0] == env[f"{member.name.upper()}_URL"]
        for secret in ("stack.env", "signing_key.pem", "admin_password"):
            assert stat.S_IMODE((folder / secret).stat().st_mode) == 0o600

    assert not stack.legacy.is_running
    assert not stack.services.is_running
    assert not (folder / "stack.env").exists()
    stack.remove()


async def test_a_step_that_fails_leaves_nothing_running(
    tmp_path: Path, worker_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object, **__: object) -> None:
        raise ConfigurationError("planted")

    monkeypatch.setattr("backend.demo.steps.load_shop", fail)
    stack = Stack(tmp_path, data=worker_directory / "failing")

    with pytest.raises(ConfigurationError, match="planted"):
        await stack.setup(ShopSource(size=10))

    assert not stack.legacy.is_running
    assert not stack.services.is_running
    assert not stack.is_seeded
    stack.remove()


async def test_a_taken_port_stops_all_before_it_starts(
    tmp_path: Path, worker_directory: Path, legacy_cluster: Cluster
) -> None:
    stack = Stack(tmp_path, data=worker_directory / "never", ports={"cart": legacy_cluster.port})
    with pytest.raises(TandemError, match=f"port {legacy_cluster.port}, for the service 'cart', is taken"):
        await stack.setup()
    assert not (worker_directory / "never").exists()


async def test_a_file_that_is_not_there_stops_all_before_it_starts(
    tmp_path: Path, worker_directory: Path
) -> None:
    stack = Stack(tmp_path, data=worker_directory / "never")
    with pytest.raises(ConfigurationError, match="is not a file that can be read"):
        await stack.setup(ShopSource(data=tmp_path / "none.csv"))
    assert not (worker_directory / "never").exists()


def test_a_record_knows_a_process_from_another_under_its_number(tmp_path: Path) -> None:
    here = RecordedProcess.of(os.getpid())
    earlier = RecordedProcess(pid=here.pid, started_at=here.started_at - 60)
    path = tmp_path / "stack.json"

    StackRecord(processes={"cart": here}, urls={"cart": "http://127.0.0.1:8003"}).save(path)
    again = StackRecord.load(path)

    assert again is not None
    assert again.is_running
    assert not StackRecord(processes={"cart": here, "auth": earlier}).is_running
    path.write_text("{")
    assert StackRecord.load(path) is None


def test_stack_env_is_plain_lines(tmp_path: Path) -> None:
    path = tmp_path / "stack.env"
    path.write_text("A=1\nB=x=y\n")
    assert parse_env_file(path) == {"A": "1", "B": "x=y"}
