"""What the order service keeps of products: the later word counts, and a rebuild mends whatever was done to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Any

import pytest

from backend.messages.orders import SagaStyle
from backend.messages.products import ProductChanged
from backend.order_service.app.models import product_view
from backend.order_service.app.read_models import PRODUCTS
from backend.order_service.app.repositories import ProductViews
from backend.product_service.app.entities import ProductChanges
from backend.product_service.app.message_api import TELLS
from backend.product_service.app.models import ROOM
from backend.product_service.app.services.telling import AGGREGATES
from backend.shared import Phase, Unit, UnitOfWork
from backend.shared.events import rebuild as rebuilding
from backend.shared.events.aggregates import Aggregates
from backend.shared.events.outbox import Outbox
from backend.shared.events.read_models import Position
from backend.shared.events.rebuild import Rebuild, RebuildStalledError, Rebuilt
from backend.shared.journal.carrier import Hook, no_hook
from backend.shared.pausing import pause
from tests.integration.orders.conftest import MakeWorld
from tests.support.fixtures import BOTH_AUTHORITIES, Sql
from tests.support.order_world import OrderWorld
from tests.support.phases import change

(ALL_PRODUCTS,) = AGGREGATES
ENTITY = PRODUCTS.entity
BLOCKED = "SELECT 1 FROM pg_locks WHERE NOT granted AND pid <> pg_backend_pid()"
QUICKLY = ("lag", "validation", "shadow-reads", "backfill")


def changed(product_id: int, name: str) -> ProductChanged:
    return ProductChanged(
        product_id=product_id, sku=f"sku{product_id}", name=name, price=Decimal(1), is_active=True
    )


def kept(product_id: int, name: str, position: Position) -> Unit[bool]:
    return lambda work: PRODUCTS.keep(work, changed(product_id, name), position)


async def names(world: OrderWorld, *ids: int) -> dict[int, str | None]:
    async def unit(work: UnitOfWork) -> dict[int, str | None]:
        return {number: seen.name for number, seen in (await ProductViews(work).by_ids(ids)).items()}

    return await world.order.read(unit)


async def rename(world: OrderWorld, product_id: int, name: str) -> None:
    (await world.product.update_product(product_id, ProductChanges(name=name))).unwrap()


@asynccontextmanager
async def delivered(world: OrderWorld, *, last_first: bool = False) -> AsyncIterator[None]:
    """What is told is taken in, meanwhile."""
    over = asyncio.Event()

    async def deliver() -> None:
        while not over.is_set():
            await world.post.collect()
            while world.post.waiting:
                await world.post.bring(-1 if last_first else 0)
            await pause(over, 0.01)

    delivering = asyncio.create_task(deliver())
    try:
        yield
    finally:
        over.set()
        await delivering


async def rebuilt(
    world: OrderWorld,
    *,
    aggregates: Aggregates = ALL_PRODUCTS,
    give_up_seconds: float = 20.0,
    hook: Hook = no_hook,
) -> Rebuilt:
    return await Rebuild(
        PRODUCTS,
        aggregates,
        owner=world.product.run_unit,
        reader=world.order.run_unit,
        give_up_seconds=give_up_seconds,
        hook=hook,
    ).run()


def at(step: str, act: Any) -> Hook:
    """Does `act` the first time that `step` is reached."""
    left = [act]

    async def hook(reached: str) -> None:
        if reached == step and left:
            await left.pop()()

    return hook


@BOTH_AUTHORITIES
@pytest.mark.parametrize(
    ("heard", "ends_as"),
    [
        ([(1, 5), (1, 4)], 0),
        ([(1, 4), (1, 5)], 1),
        ([(1, 5), (1, 5)], 0),
        # A clock of another server may be far behind: the epoch says which came later.
        ([(1, 900), (2, 1)], 1),
        ([(2, 1), (1, 900)], 0),
    ],
)
async def test_the_later_position_counts_also_across_epochs(
    make_world: MakeWorld, *, phase: Phase, heard: Sequence[Position], ends_as: int
) -> None:
    world = await make_world(SagaStyle.CHOREOGRAPHED, phase=phase)
    news = [
        await world.order.run_unit("keep", kept(7, str(number), position))
        for number, position in enumerate(heard)
    ]
    assert news == [True, ends_as == 1]
    assert await names(world, 7) == {7: str(ends_as)}


@BOTH_AUTHORITIES
async def test_what_is_told_is_seen(make_world: MakeWorld, *, phase: Phase) -> None:
    world = await make_world(SagaStyle.CHOREOGRAPHED, phase=phase)
    world.product.outbox = Outbox(ROOM, tells=TELLS)
    ids = await world.stocked(cup=1)
    await rename(world, ids["cup"], "Cup")
    await rename(world, ids["cup"], "Mug")
    await world.post.collect()
    await world.post.bring(1)  # the later one comes first
    await world.post.bring_all()
    assert await names(world, ids["cup"]) == {ids["cup"]: "Mug"}


@BOTH_AUTHORITIES
async def test_a_rebuild_mends_whatever_was_done(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, *, phase: Phase
) -> None:
    monkeypatch.setattr(rebuilding, "AT_ONCE", 2)
    world = await make_world(SagaStyle.CHOREOGRAPHED, phase=phase)
    ids = await world.stocked(cup=1, plate=1, bowl=1, lamp=1, mat=1)  # history: nobody was told
    right = {number: name for name, number in ids.items()}
    async with delivered(world):
        assert await rebuilt(world) == Rebuilt(told=5, taken_in=5, removed=0)
        assert await names(world, *ids.values()) == right

        async def damage(work: UnitOfWork) -> None:
            await work.delete(ENTITY, (ids["cup"],))
            await work.update(ENTITY, (ids["plate"],), {product_view.c.name: "saucer"})
            for number in (9_001, 9_002, 9_003):
                await PRODUCTS.keep(work, changed(number, "a ghost"), (0, number))

        await world.order.run_unit("damage", damage)
        assert await rebuilt(world) == Rebuilt(told=5, taken_in=5, removed=3)
    assert await names(world, *ids.values(), 9_001, 9_002, 9_003) == right


@BOTH_AUTHORITIES
@pytest.mark.parametrize("last_first", [False, True])
async def test_update_while_its_state_is_told_anew(
    make_world: MakeWorld, *, phase: Phase, last_first: bool
) -> None:
    """Whichever message comes first, the view ends with the change."""
    world = await make_world(SagaStyle.CHOREOGRAPHED, phase=phase)
    world.product.outbox = Outbox(ROOM, tells=TELLS)
    ids = await world.stocked(cup=1)
    waiting = Sql(world.urls.legacy if phase is Phase.DUALWRITE else world.urls.product)
    changes: list[asyncio.Task[None]] = []
    began = asyncio.Event()

    async def hold(work: UnitOfWork, keys: Sequence[Any]) -> Mapping[Any, ProductChanged]:
        found = await ALL_PRODUCTS.hold(work, keys)
        if not changes:  # what was found is the state of before
            changes.append(asyncio.create_task(rename(world, ids["cup"], "Mug")))
            while not changes[0].done() and not await waiting(BLOCKED):  # noqa: ASYNC110 - a server decides
                await asyncio.sleep(0.01)
            began.set()
        return {key: message for key, message in found.items() if isinstance(message, ProductChanged)}

    result = asyncio.create_task(rebuilt(world, aggregates=replace(ALL_PRODUCTS, hold=hold)))
    await began.wait()
    await changes[0]
    async with delivered(world, last_first=last_first):
        assert (await result).told == 1
    await world.post.bring_all()
    assert world.post.log.count("ProductChanged") == 2
    assert await names(world, ids["cup"]) == {ids["cup"]: "Mug"}


async def test_a_row_that_arrives_while_old_ones_are_removed(make_world: MakeWorld) -> None:
    """The owner was asked before the product was made."""
    world = await make_world(SagaStyle.CHOREOGRAPHED)
    await world.stocked(cup=1)
    await world.order.run_unit("plant", kept(9_001, "of old", (0, 1)))
    arrives = partial(world.order.run_unit, "hear", kept(9_001, "newly made", (10**6, 1)))
    async with delivered(world):
        assert (await rebuilt(world, hook=at("rebuild_asked_owner", arrives))).removed == 0
    assert await names(world, 9_001) == {9_001: "newly made"}


async def test_a_row_older_than_the_rebuild_whose_owner_still_has_it_stays(make_world: MakeWorld) -> None:
    world = await make_world(SagaStyle.CHOREOGRAPHED)
    ids = await world.stocked(cup=1)

    async def set_back() -> None:
        values = {product_view.c.epoch: 0, product_view.c.at: 1}
        await world.order.run_unit("set_back", lambda work: work.update(ENTITY, (ids["cup"],), values))

    async with delivered(world):
        assert (await rebuilt(world, hook=at("rebuild_taken_in", set_back))).removed == 0
    assert await names(world, ids["cup"]) == {ids["cup"]: "cup"}


async def test_nothing_is_removed_before_all_is_taken_in(make_world: MakeWorld) -> None:
    """A rebuild whose messages nobody brings ends with an error, and may be begun again."""
    world = await make_world(SagaStyle.CHOREOGRAPHED)
    await world.stocked(cup=1)
    await world.order.run_unit("plant", kept(9_001, "a ghost", (0, 1)))
    with pytest.raises(
        RebuildStalledError, match="1 of 1 messages that product told were not taken in by order"
    ):
        await rebuilt(world, give_up_seconds=0.2)
    assert await names(world, 9_001) == {9_001: "a ghost"}
    async with delivered(world):
        assert await rebuilt(world) == Rebuilt(told=1, taken_in=1, removed=1)


@pytest.mark.parametrize("step", ["rebuild_told", "rebuild_taken_in"])
@pytest.mark.parametrize("who", ["product", "order"])
async def test_cutover_during_a_rebuild(
    make_world: MakeWorld, monkeypatch: pytest.MonkeyPatch, *, who: str, step: str
) -> None:
    """Of the one who tells, or of the one who listens: all is there in the end, on the new side."""
    monkeypatch.setattr(rebuilding, "AT_ONCE", 2)
    world = await make_world(SagaStyle.CHOREOGRAPHED, phase=Phase.SHADOW)
    ids = await world.stocked(cup=1, plate=1, bowl=1, lamp=1, mat=1)
    await world.order.run_unit("plant", kept(9_001, "a ghost", (0, 1)))
    manager: Any = getattr(world, who)
    cut_over = partial(change, manager, Phase.LIVE, force=QUICKLY)
    async with delivered(world):
        done = await rebuilt(world, hook=at(step, cut_over))
    assert (done.removed, done.taken_in) == (1, done.told if step == "rebuild_taken_in" else done.taken_in)
    assert manager.phase is Phase.LIVE
    assert await names(world, *ids.values(), 9_001) == {number: name for name, number in ids.items()}
