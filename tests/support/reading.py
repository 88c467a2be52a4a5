"""Helpers of the tests of reads: where rows are planted, what was counted, and units to read with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from backend.shared import DualWriteManager, Key, NotFoundError, Side, Unit, UnitOfWork
from backend.shared.testing.clusters import Databases
from tests.support.fixtures import Sql
from tests.support.people import PeopleManager, people

ANN = {people.c.email: "ann@example.org", people.c.name: "Ann"}


async def add_ann(manager: PeopleManager) -> Key:
    """A person on both sides."""
    key = (await manager.write("add", lambda work: work.insert("person", ANN))).unwrap()
    assert await manager.relay().drain(timeout_seconds=10)
    return key


def person(key: Key) -> Unit[dict[str, Any] | None]:
    """Reads one person."""

    async def unit(work: UnitOfWork) -> dict[str, Any] | None:
        return await work.get("person", key)

    return unit


def known_person(key: Key) -> Unit[dict[str, Any]]:
    """Reads one person who must be there."""

    async def unit(work: UnitOfWork) -> dict[str, Any]:
        found = await work.get("person", key)
        if found is None:
            raise NotFoundError(f"there is no person {key}")
        return found

    return unit


async def name_of(manager: PeopleManager, key: Key) -> object:
    """The name of a person, read as one key; None if there is no such person."""
    found = await manager.read(person(key), entity="person", key=key)
    return found["name"] if found else None


def renamed(key: Key, name: str) -> Unit[bool]:
    """Gives a person another name."""
    return lambda work: work.update("person", key, {people.c.name: name})


class Plant:
    """Changes one side by hand, as a stranger would."""

    def __init__(self, databases: Databases) -> None:
        self._sql = {Side.LEGACY: Sql(databases.legacy_url), Side.NEW: Sql(databases.new_url)}

    async def name(self, side: Side, key: Key, name: str) -> None:
        """Another name for a person who is there."""
        statement = {
            Side.LEGACY: "UPDATE folk SET nm = $2 WHERE folk_no = $1",
            Side.NEW: "UPDATE people SET name = $2 WHERE id = $1",
        }[side]
        await self._sql[side](statement, key[0], name)

    async def person(self, side: Side, key: Key, name: str) -> None:
        """A person who was not there."""
        statement = {
            Side.LEGACY: "INSERT INTO folk (folk_no, mail, nm) VALUES ($1, $2, $2)",
            Side.NEW: "INSERT INTO people (id, email, name) VALUES ($1, $2, $2)",
        }[side]
        await self._sql[side](statement, key[0], name)

    async def remove(self, side: Side, key: Key) -> None:
        """Nobody any more."""
        statement = {
            Side.LEGACY: "DELETE FROM folk WHERE folk_no = $1",
            Side.NEW: "DELETE FROM people WHERE id = $1",
        }[side]
        await self._sql[side](statement, key[0])

    async def breakage(self, side: Side) -> None:
        """No unit can read people there any more."""
        statement = {
            Side.LEGACY: "ALTER TABLE folk RENAME TO folk_away",
            Side.NEW: "ALTER TABLE people RENAME TO people_away",
        }[side]
        await self._sql[side](statement)


def reads(manager: DualWriteManager) -> dict[str, dict[str, int]]:
    """Reads counted, by side and outcome."""
    return {side: dict(counts) for side, counts in manager.metrics_snapshot().reads.items()}


def shadow_reads(manager: DualWriteManager) -> dict[str, int]:
    """Comparisons counted, by outcome."""
    return dict(manager.metrics_snapshot().shadow_reads)


async def compared(manager: DualWriteManager) -> dict[str, int]:
    """The same, once none is under way."""
    async with asyncio.timeout(20):
        while tasks := set(manager._reads._shadow._tasks):
            await asyncio.wait(tasks)
    return shadow_reads(manager)


class DoAt:
    """A hook that does something at the `passing`th passing of a step, and nothing at the others."""

    def __init__(self) -> None:
        self._work: dict[tuple[str, int], Callable[[], Awaitable[object]]] = {}
        self.passed: dict[str, int] = {}

    def at(self, step: str, work: Callable[[], Awaitable[object]], *, passing: int = 1) -> None:
        """Have `work` done there, by whoever passes."""
        self._work[step, passing] = work

    async def __call__(self, step: str) -> None:
        number = self.passed[step] = self.passed.get(step, 0) + 1
        if work := self._work.get((step, number)):
            await work()


@pytest.fixture
def plant(people_databases: Databases) -> Plant:
    """Rows put on one side behind the engine's back."""
    return Plant(people_databases)
