"""One person on both sides, and what is done to her at the steps of a read."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import Any

from backend.shared import Key, Phase
from tests.support.fixtures import MakeManager
from tests.support.people import PeopleManager, people
from tests.support.reading import DoAt, add_ann, renamed

NAMES: Iterator[str] = (f"name {number}" for number in count())


async def carry(manager: PeopleManager) -> None:
    """All that is on its way arrives."""
    assert await manager.relay().drain(timeout_seconds=10)


class Stage(DoAt):
    """The steps of one manager, and what can be done at them."""

    manager: PeopleManager
    key: Key

    async def rename(self) -> None:
        """Committed on the authoritative side, and on its way."""
        assert (await self.manager.write("change", renamed(self.key, next(NAMES)))).success

    async def rename_and_carry(self) -> None:
        await self.rename()
        await carry(self.manager)

    async def carry(self) -> None:
        await carry(self.manager)

    async def remove(self) -> None:
        assert (await self.manager.write("remove", lambda work: work.delete("person", self.key))).value

    async def remove_and_carry(self) -> None:
        await self.remove()
        await carry(self.manager)

    async def add(self) -> None:
        values = {people.c.id: self.key[0], people.c.email: "again@example.org", people.c.name: "again"}
        assert (await self.manager.write("add", lambda work: work.insert("person", values))).success

    async def add_and_carry(self) -> None:
        await self.add()
        await carry(self.manager)


async def staged(make_manager: MakeManager, phase: Phase, **settings: Any) -> Stage:
    """One person on both sides; steps are counted from here on."""
    stage = Stage()
    stage.manager = await make_manager(
        phase, hook=stage, **{"shadow_read_sample_rate": 1.0, "max_lag_seconds": 5.0} | settings
    )
    stage.key = await add_ann(stage.manager)
    return stage
