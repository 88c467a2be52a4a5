"""Starting the task service as a program."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import httpx
import pytest
from asgi_lifespan import LifespanManager

from backend.shared.testing.clusters import Cluster
from backend.shared.testing.ports import free_port
from backend.task_service.app.main import create_app
from tests.conftest import MakeDatabase
from tests.contract.task_service.support import assert_problem
from tests.support.fake_task_store import fake_repositories

SECRET = "s3cr3t"


async def start(folder: Path, **variables: str) -> tuple[int, str]:
    """Serve until it ends, in a folder where no stack has left its variables; answers exit code and stderr."""
    serve = ("uvicorn", "--factory", "backend.task_service.app.main:create_app", "--port", str(free_port()))
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *serve),
        env={"PATH": "", **variables},
        cwd=folder,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(50):
            _, complaint = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()
    return child.returncode or 0, complaint.decode()


async def test_what_keeps_the_service_from_starting_is_one_line(
    services_cluster: Cluster, make_database: MakeDatabase, tmp_path: Path
) -> None:
    """A setting that is missing or wrong, a store that is down, tables that are missing."""
    empty = await make_database(services_cluster)
    away = f"me:{SECRET}@127.0.0.1:{free_port()}/gone"
    cases: list[tuple[dict[str, str], str]] = [
        ({}, "TASK_DATABASE_URL: is not set"),
        ({"ORM": "django"}, "ORM: must be one of sqlalchemy, peewee, mongo, dual"),
        ({"DATABASE_URL": f"postgresql://{away}"}, "PostgreSQL: not reachable"),
        (
            {
                "ORM": "mongo",
                "MONGO_URL": f"mongodb://{away}",
                "MONGO_SERVER_SELECTION_TIMEOUT_MS": "300",
            },
            "MongoDB: not reachable",
        ),
        ({"DATABASE_URL": empty}, "DATABASE_URL: the database has no table"),
        ({"ORM": "peewee", "DATABASE_URL": empty}, "DATABASE_URL: the database has no table"),
        ({"ORM": "peewee", "DATABASE_URL": f"sqlite:///{tmp_path}/no/such/folder"}, "SQLite: could not"),
    ]
    ended = await asyncio.gather(*(start(tmp_path, **variables) for variables, _ in cases))
    for (code, complaint), (_, told) in zip(ended, cases, strict=True):
        assert code == 2, complaint
        assert complaint.startswith(f"task: {told}")
        assert complaint.count("\n") == 1, complaint
        assert SECRET not in complaint


async def test_an_application_on_repositories_made_by_hand(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No store is asked for; and without a key, what needs a token is refused."""
    monkeypatch.chdir(tmp_path)
    for variable in ("ORM", "DATABASE_URL", "TASK_DATABASE_URL", "AUTH_JWKS_URL", "AUTH_PUBLIC_KEY_FILE"):
        monkeypatch.delenv(variable, raising=False)
    app = create_app(repositories=fake_repositories())
    async with LifespanManager(app) as running:
        transport = httpx.ASGITransport(app=running.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://task") as client:
            assert (await client.get("/readyz")).status_code == 200
            header = {"Authorization": "Bearer anything"}
            assert_problem(await client.get("/tasks", headers=header), 503)
            assert_problem(await client.post("/tasks", json={}, headers=header), 503)
