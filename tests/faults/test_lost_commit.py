"""A COMMIT whose answer is lost: ask, don't guess (R4, I1)."""

from __future__ import annotations

import pytest

from backend.shared import Phase, Side, UnitOfWork
from backend.shared.testing.clusters import Databases
from tests.support.fixtures import BOTH_AUTHORITIES, MakeManager
from tests.support.people import people
from tests.support.proxy import cuttable_wire
from tests.support.state import assert_equal_sides


@pytest.mark.invariant("I1")
@BOTH_AUTHORITIES
@pytest.mark.parametrize("cut", ["before", "after"])
async def test_i1_answer_of_commit_lost(
    make_manager: MakeManager, people_databases: Databases, *, phase: Phase, cut: str
) -> None:
    """The wire is cut before or after the server gets COMMIT: the caller is told the truth, and it is done once."""
    side = phase.policy.authoritative
    url = people_databases.legacy_url if side is Side.LEGACY else people_databases.new_url
    runs = 0

    async def unit(work: UnitOfWork) -> int:
        nonlocal runs
        runs += 1
        (key,) = await work.insert(
            "person", {people.c.name: "Ann", people.c.email: f"run-{runs}@example.org"}
        )
        return int(key)

    async with cuttable_wire(url) as wire:
        manager = await make_manager(phase, url={side: wire.url})
        wire.cut = cut
        result = await manager.write("add", unit)
        assert wire.cuts == 1
        assert result.success, result.to_dict()
        assert runs == (1 if cut == "after" else 2)
        assert await manager.relay().drain(timeout_seconds=10)
        await manager.close()
    rows = await assert_equal_sides(people_databases)
    assert [row[1] for row in rows] == [f"run-{runs}@example.org"]
