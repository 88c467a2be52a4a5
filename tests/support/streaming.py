"""What tests of a change stream ask of its reader."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from bson import ObjectId

from tests.support.task_pair import TaskPair


def subject_of(number: ObjectId, entity: str = "users") -> str:
    return f'{entity}:["{number}"]'


async def listen(pair: TaskPair, *, passes: int = 3) -> None:
    """Read what there is."""
    for _ in range(passes):
        assert await pair.stream().pump()


async def conflicts(pair: TaskPair) -> list[tuple[str, str]]:
    found = await pair.documents.tandem_task_conflict.find().sort("number", 1).to_list()
    return [(conflict["operation"], conflict["key"]) for conflict in found]


async def until(look: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await look():
            pass
