"""The tables of the task service, migrated."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config

import backend.task_service
from backend.shared.testing.clusters import Cluster
from tests.conftest import MakeTemplate


def alembic_config(url: str) -> Config:
    """What `alembic -c backend/task_service/alembic.ini` works with, for another database."""
    config = Config(str(Path(backend.task_service.__path__[0]) / "alembic.ini"))
    config.attributes["database_url"] = url
    return config


async def migrate(url: str, *, to: str = "head") -> None:
    # In a thread, for the migrations run a loop of their own.
    await asyncio.to_thread(command.upgrade, alembic_config(url), to)


@pytest.fixture(scope="session")
def new_template(make_template: MakeTemplate, services_cluster: Cluster) -> str:
    return make_template(services_cluster, "task_new_template", migrate)
