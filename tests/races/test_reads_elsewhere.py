"""Reads that the other side answers, by fallback or ramp, and what happens between: no row that comes back."""

from __future__ import annotations

import asyncio

import pytest

from backend.shared import Phase, Side, UnitOfWork
from backend.shared.dual_write_config import ReadFallback
from tests.support.fixtures import BOTH_AUTHORITIES, MakeManager
from tests.support.phases import change
from tests.support.read_stage import staged
from tests.support.reading import (
    Plant,
    add_ann,
    name_of,
    reads,
    renamed,
)
from tests.support.steps import PauseAt

# ---- what is missing on the authoritative side ----


@BOTH_AUTHORITIES
async def test_delete_before_the_read_carried_after_the_other_side_was_asked(
    make_manager: MakeManager, *, phase: Phase
) -> None:
    """Whoever looked at the journal only then would find it empty, and bring the deleted row back: it is not asked at all."""
    stage = await staged(make_manager, phase, dual_read_fallback=ReadFallback.MISSING)
    await stage.remove()
    stage.at("read_missing_asked", stage.carry)
    assert await name_of(stage.manager, stage.key) is None
    assert "read_missing_asked" not in stage.passed


@BOTH_AUTHORITIES
async def test_delete_carried_between_the_read_and_the_look_at_the_journal(
    make_manager: MakeManager, *, phase: Phase
) -> None:
    stage = await staged(make_manager, phase, dual_read_fallback=ReadFallback.MISSING)
    await stage.remove()
    stage.at("read_missing", stage.carry)
    assert await name_of(stage.manager, stage.key) is None


@BOTH_AUTHORITIES
async def test_insert_and_carry_after_the_read(make_manager: MakeManager, *, phase: Phase) -> None:
    """It is there by now: then it is the authoritative side's answer that counts."""
    stage = await staged(make_manager, phase, dual_read_fallback=ReadFallback.MISSING)
    await stage.remove_and_carry()
    stage.at("read_missing_looked", stage.add_and_carry)
    stage.at("read_missing_asked", stage.rename)
    found = await name_of(stage.manager, stage.key)
    assert str(found).startswith("name ")
    assert reads(stage.manager) == {phase.policy.authoritative.value: {"authoritative": 1}}


@BOTH_AUTHORITIES
async def test_insert_carry_and_delete_after_the_look_at_the_journal(
    make_manager: MakeManager, *, phase: Phase
) -> None:
    """The other side has a row that was deleted since, and has not heard of that."""
    stage = await staged(make_manager, phase, dual_read_fallback=ReadFallback.MISSING)
    await stage.remove_and_carry()
    stage.at("read_missing_looked", stage.add_and_carry)
    stage.at("read_missing_asked", stage.remove)
    assert await name_of(stage.manager, stage.key) is None


@BOTH_AUTHORITIES
async def test_insert_carry_delete_and_carry_after_the_look_at_the_journal(
    make_manager: MakeManager, *, phase: Phase
) -> None:
    """The journal is empty at both looks, and the authoritative side has nothing: so the other one is asked once more."""
    stage = await staged(make_manager, phase, dual_read_fallback=ReadFallback.MISSING)
    await stage.remove_and_carry()
    stage.at("read_missing_looked", stage.add_and_carry)
    stage.at("read_missing_asked", stage.remove_and_carry)
    assert await name_of(stage.manager, stage.key) is None


async def test_cutover_while_the_other_side_is_asked(make_manager: MakeManager, plant: Plant) -> None:
    """The authority moves to where the row is: the read is repeated there, and finds it."""
    hook = PauseAt("read_missing_asked")
    manager = await make_manager(
        Phase.DUALWRITE, hook=hook, dual_read_fallback=ReadFallback.MISSING, shadow_read_sample_rate=0.0
    )
    await change(manager, Phase.SHADOW)
    await plant.person(Side.NEW, (77,), "there")
    caller = asyncio.ensure_future(name_of(manager, (77,)))
    await hook.reached.wait()
    await change(manager, Phase.LIVE, force=("lag", "validation", "shadow-reads", "conflicts"))
    hook.resume.set()
    assert await caller == "there"
    assert reads(manager) == {"new": {"authoritative": 1}}


# ---- the ramp ----


async def test_write_while_a_ramped_read_is_under_way(make_manager: MakeManager) -> None:
    """It may see either; the next one sees it."""
    stage = await staged(make_manager, Phase.SHADOW, new_read_share=1.0, shadow_read_sample_rate=0.0)
    stage.at("read_ramp_looked", stage.rename)
    assert await name_of(stage.manager, stage.key) == "Ann"
    assert str(await name_of(stage.manager, stage.key)).startswith("name ")
    assert reads(stage.manager) == {"new": {"ramped": 1}, "legacy": {"ramp_pending": 1}}
    assert stage.passed["read_ramp_looked"] == 1  # the new side was not asked in vain


async def test_own_write_that_is_carried_while_the_new_side_is_asked(make_manager: MakeManager) -> None:
    """Whoever looked at the journal only after the answer would find it empty, and miss what the caller has written."""
    hook = PauseAt("after_claim")
    manager = await make_manager(Phase.SHADOW, new_read_share=1.0, shadow_read_sample_rate=0.0)
    key = await add_ann(manager)
    carrier = await make_manager(Phase.SHADOW, hook=hook)
    await manager.write("change", renamed(key, "own"))
    relay = asyncio.ensure_future(carrier.relay().run_once())
    await hook.reached.wait()

    async def unit(work: UnitOfWork) -> object:
        found = await work.get("person", key)
        hook.resume.set()
        await relay
        return found and found["name"]

    assert await manager.read(unit, entity="person", key=key) == "own"


async def test_rows_that_a_relay_holds_are_open(make_manager: MakeManager) -> None:
    hook = PauseAt("after_claim")
    manager = await make_manager(Phase.SHADOW, new_read_share=1.0, shadow_read_sample_rate=0.0)
    key = await add_ann(manager)
    carrier = await make_manager(Phase.SHADOW, hook=hook)
    await manager.write("change", renamed(key, "own"))
    relay = asyncio.ensure_future(carrier.relay().run_once())
    await hook.reached.wait()
    assert await name_of(manager, key) == "own"
    hook.resume.set()
    await relay
    assert await name_of(manager, key) == "own"
    assert reads(manager) == {"legacy": {"ramp_pending": 1}, "new": {"ramped": 1}}


@pytest.mark.parametrize("to", [Phase.LIVE, Phase.DUALWRITE])
async def test_phase_change_during_a_ramped_read(make_manager: MakeManager, to: Phase) -> None:
    hook = PauseAt("read_ramp_looked")
    manager = await make_manager(Phase.DUALWRITE, hook=hook, new_read_share=1.0, shadow_read_sample_rate=0.0)
    key = await add_ann(manager)
    await change(manager, Phase.SHADOW)
    caller = asyncio.ensure_future(name_of(manager, key))
    await hook.reached.wait()
    await change(manager, to)
    await manager.write("change", renamed(key, "later"))
    hook.resume.set()
    assert await caller in ("Ann", "later")
    assert await name_of(manager, key) == "later"
