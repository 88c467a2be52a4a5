"""The hot queries keep their indexes, on whichever side they run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from sqlalchemy import Select
from sqlalchemy.dialects import postgresql

from backend.auth_service.app.entities import UserRole
from backend.auth_service.app.repositories import UserFilter, UserRepository
from backend.shared import Phase, UnitOfWork
from tests.integration.auth_service.support import Auth

USERS = 4_000
LIMIT = 51


async def _fill(auth: Auth) -> None:
    if auth.phase is Phase.DUALWRITE:
        await auth.legacy(
            "INSERT INTO users (usr_id, login_email, reg_date) SELECT 'c' || g, 'Customer.' || g || '@example.com', "
            f"'2024-01-01 00:00:00' FROM generate_series(10001, {10_000 + USERS}) AS g"
        )
        await auth.legacy("ANALYZE users")
        return
    await auth.new(
        "INSERT INTO users SELECT 'c' || g, 'Customer.' || g || '@example.com', NULL, 'user', true, now() "
        f"FROM generate_series(10001, {10_000 + USERS}) AS g"
    )
    await auth.new("INSERT INTO user_profiles (user_id, newsletter) SELECT id, false FROM users")
    await auth.new("ANALYZE users, user_profiles")


class Explaining:
    """Stands before a unit of work and asks what its queries read."""

    def __init__(self, uow: UnitOfWork) -> None:
        self._uow = uow
        self.rows_read: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._uow, name)

    async def rows(self, query: Select[Any]) -> list[dict[str, Any]]:
        dialect = postgresql.asyncpg.dialect()  # type: ignore[no-untyped-call]
        text = str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
        connection = await self._uow.session.connection()
        found = await connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {text}")
        plan = found.scalar_one()
        tree = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]
        self.rows_read.append(sum(_rows(node) for node in _scans(tree)))
        return await self._uow.rows(query)


def _scans(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if "Relation Name" in node:
        yield node
    for child in node.get("Plans", ()):
        yield from _scans(child)


def _rows(node: dict[str, Any]) -> float:
    each: float = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
    return each * float(node["Actual Loops"])


async def test_what_is_asked_often_reads_what_it_answers(auth: Auth) -> None:
    await _fill(auth)

    async def unit(uow: UnitOfWork) -> list[float]:
        explaining = Explaining(uow)
        repository = UserRepository(explaining)  # type: ignore[arg-type]  # it passes on all but `rows`
        assert await repository.get("c10007") is not None
        found = await repository.list(UserFilter(), after_id="c13000", limit=LIMIT)
        assert [found[0].id, found[-1].id] == ["c13001", "c13051"]
        wanted = UserFilter(role=UserRole.USER, is_active=True)
        assert len(await repository.list(wanted, after_id="c13000", limit=LIMIT)) == LIMIT
        user = await repository.find_by_email("customer.10009@EXAMPLE.com")
        assert user is not None
        return explaining.rows_read

    by_id, page, narrowed, by_email = await auth.manager.read(unit)
    assert by_id <= 2
    assert max(page, narrowed) <= 3 * LIMIT
    # Legacy has no index for an address in any letter case: its one table is read, but only once.
    assert by_email <= (USERS + 1 if auth.phase is Phase.DUALWRITE else 2)
