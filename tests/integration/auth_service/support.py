"""What the tests of the auth service share: a running service, and a look behind it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
from alembic import command
from alembic.config import Config
from fastapi import FastAPI

from backend.auth_service.app.core.dual_write_manager import AuthDualWriteManager
from backend.auth_service.app.entities import UserRole
from backend.shared import Phase
from backend.shared.testing.clusters import Databases

PASSWORD = "correct horse battery"
ROOT = Path(__file__).parents[3]
ALEMBIC_INI = ROOT / "backend/auth_service/alembic.ini"
NO_STACK = Path(ROOT.anchor)
"""A folder to start programs in where no running stack has left its variables."""


@dataclass(frozen=True)
class Auth:
    """A running auth service and both its databases."""

    app: FastAPI
    client: httpx.AsyncClient
    manager: AuthDualWriteManager
    databases: Databases
    phase: Phase

    async def register(self, email: str = "ada@example.com", **profile: Any) -> dict[str, Any]:
        body = {"email": email, "password": PASSWORD, **profile}
        registered: dict[str, Any] = expect(await self.client.post("/users", json=body), 201)
        return registered

    async def log_in(self, email: str = "ada@example.com", password: str = PASSWORD) -> dict[str, Any]:
        answer = await self.client.post("/auth/login", json={"email": email, "password": password})
        tokens: dict[str, Any] = expect(answer, 200)
        return tokens

    async def bearer(self, email: str = "ada@example.com", password: str = PASSWORD) -> dict[str, str]:
        return {"Authorization": f"Bearer {(await self.log_in(email, password))['access_token']}"}

    async def registered(self, email: str = "ada@example.com", **profile: Any) -> dict[str, str]:
        """The headers of a user who has just registered."""
        await self.register(email, **profile)
        return await self.bearer(email)

    async def admin(self, email: str = "root@example.com") -> dict[str, str]:
        """The headers of an admin."""
        user = await self.register(email)
        (await self.manager.set_role(user["id"], UserRole.ADMIN)).unwrap()
        return await self.bearer(email)

    async def refresh(self, token: str | None) -> httpx.Response:
        return await self.client.post("/auth/refresh", json={"refresh_token": token})

    async def carry(self) -> None:
        """Let the relay finish."""
        while (await self.manager.relay().run_once()).keys:
            pass

    async def legacy(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        return await run_sql(self.databases.legacy_url, query, *arguments)

    async def new(self, query: str, *arguments: Any) -> list[dict[str, Any]]:
        return await run_sql(self.databases.new_url, query, *arguments)

    async def both(self, user_id: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """The user's rows on the legacy and on the new side, once all is carried."""
        await self.carry()
        old = await self.legacy("SELECT * FROM users WHERE usr_id = $1", user_id)
        new = await self.new("SELECT * FROM users JOIN user_profiles ON user_id = id WHERE id = $1", user_id)
        assert len(old) == len(new) == 1
        return old[0], new[0]


def expect(answer: httpx.Response, status: int) -> Any:
    """The body of an answer that should have this status; a refusal has to be a problem as in RFC 9457."""
    assert answer.status_code == status, answer.text
    if status >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == status
    return answer.json() if answer.content else None


async def run_sql(url: str, query: str, *arguments: Any) -> list[dict[str, Any]]:
    connection = await asyncpg.connect(url)
    try:
        return [dict(row) for row in await connection.fetch(query, *arguments)]
    finally:
        await connection.close()


def alembic_config(url: str) -> Config:
    """What `alembic -c backend/auth_service/alembic.ini` works with, for another database."""
    config = Config(str(ALEMBIC_INI))
    config.attributes["database_url"] = url
    return config


async def migrate(url: str) -> None:
    # In a thread, for the migrations run a loop of their own.
    await asyncio.to_thread(command.upgrade, alembic_config(url), "head")
