"""The auth service's pair of databases for tests of commands, and how a command ended."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config

import backend.auth_service


@dataclass(frozen=True)
class Ended:
    """How a run of a command ended."""

    code: int
    out: str
    err: str


async def migrate_auth(url: str) -> None:
    """Bring the auth service's own database to its newest migration."""
    config = Config(str(Path(backend.auth_service.__path__[0]) / "alembic.ini"))
    config.attributes["database_url"] = url
    await asyncio.to_thread(command.upgrade, config, "head")
