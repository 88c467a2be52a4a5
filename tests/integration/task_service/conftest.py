"""The tables of the task service, migrated."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Protocol

import pytest
from alembic import command
from alembic.config import Config

import backend.task_service
from backend.shared import Phase
from backend.shared.testing.clusters import Cluster
from tests.conftest import MakeDatabase, MakeTemplate
from tests.support.task_pair import TaskPair, task_pair


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


class MakePair(Protocol):
    """Makes the task service on both sides, empty."""

    async def __call__(self, phase: Phase = Phase.DUALWRITE, **settings: Any) -> TaskPair: ...


@pytest.fixture
async def make_pair(
    document_url: str, services_cluster: Cluster, make_database: MakeDatabase, new_template: str
) -> AsyncIterator[MakePair]:
    async with AsyncExitStack() as stack:

        async def make(phase: Phase = Phase.DUALWRITE, **settings: Any) -> TaskPair:
            new_url = await make_database(services_cluster, template=new_template)
            return await stack.enter_async_context(
                task_pair(phase=phase, document_url=document_url, new_url=new_url, **settings)
            )

        yield make
