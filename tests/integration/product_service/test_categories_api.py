"""The tree of categories over HTTP, the same whichever side is authoritative."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import httpx
import pytest

from backend.product_service.app.category_tree import Category
from backend.product_service.app.entities import CategoryChanges
from backend.product_service.app.services import units
from backend.shared import Phase, Unit, UnitOfWork
from tests.integration.product_service.support import BOTH_AUTHORITIES, Api, assert_problem

pytestmark = BOTH_AUTHORITIES


@pytest.fixture
async def tree(api: Api) -> Api:
    """Ids: Home 1, Kitchen 2, Mugs 3, Kitchenware 4, Garden 5."""
    for path in ("Home/Kitchen/Mugs", "Home/Kitchenware", "Garden"):
        await api.shop.add_path(path)
    return api


async def test_the_tree(tree: Api, phase: Phase) -> None:
    made = await tree.admin.post("/categories", json={"name": "100% Café & _Co", "parent_id": 5})
    assert made.status_code == 201, made.text
    assert made.json() == {
        "id": 6,
        "parent_id": 5,
        "name": "100% Café & _Co",
        "path": "Garden/100% Café & _Co",
    }
    forest = (await tree.anyone.get("/categories")).json()["items"]
    assert [root["name"] for root in forest] == ["Garden", "Home"]
    home = forest[1]
    assert [child["path"] for child in home["children"]] == ["Home/Kitchen", "Home/Kitchenware"]
    assert home["children"][0]["children"][0] == {
        "id": 3,
        "parent_id": 2,
        "name": "Mugs",
        "path": "Home/Kitchen/Mugs",
        "children": [],
    }
    await tree.shop.carried()


async def test_a_rename_carries_all_the_descendants(tree: Api, phase: Phase) -> None:
    await tree.shop.carried()
    renamed = await tree.admin.patch("/categories/2", json={"name": "Küche"})
    assert renamed.json() == {"id": 2, "parent_id": 1, "name": "Küche", "path": "Home/Küche"}
    assert await tree.shop.paths() == {
        1: "Home",
        2: "Home/Küche",
        3: "Home/Küche/Mugs",
        4: "Home/Kitchenware",
        5: "Garden",
    }
    await tree.shop.carried()
    await tree.admin.patch("/categories/1", json={"name": "H"})
    await tree.shop.carried()
    assert (await tree.shop.legacy_paths())[3] == "H/Küche/Mugs"


async def test_a_move_carries_all_the_descendants(tree: Api, phase: Phase) -> None:
    await tree.shop.carried()
    moved = await tree.admin.patch("/categories/2", json={"parent_id": 5, "name": "Grill"})
    assert moved.json() == {"id": 2, "parent_id": 5, "name": "Grill", "path": "Garden/Grill"}
    await tree.shop.carried()
    root = await tree.admin.patch("/categories/2", json={"parent_id": None})
    assert root.json()["path"] == "Grill"
    assert (await tree.shop.paths())[3] == "Grill/Mugs"
    await tree.shop.carried()


async def test_names_may_be_swapped_in_three_steps(tree: Api, phase: Phase) -> None:
    for category, name in ((2, "tmp"), (4, "Kitchen"), (2, "Kitchenware")):
        assert (await tree.admin.patch(f"/categories/{category}", json={"name": name})).status_code == 200
    await tree.shop.carried()
    assert (await tree.shop.paths())[3] == "Home/Kitchenware/Mugs"


async def test_what_the_tree_has_no_room_for(tree: Api, phase: Phase) -> None:
    before = await tree.shop.paths()
    refused: list[tuple[str, str, Any]] = [
        ("POST", "/categories", {"name": "Home"}),
        ("POST", "/categories", {"name": "Kitchen", "parent_id": 1}),
        ("POST", "/categories", {"name": "X", "parent_id": 99}),
        ("PATCH", "/categories/4", {"name": "Kitchen"}),
        ("PATCH", "/categories/5", {"name": "Kitchen", "parent_id": 1}),
        ("PATCH", "/categories/3", {"parent_id": 99}),
        ("PATCH", "/categories/1", {"parent_id": 1}),
        ("PATCH", "/categories/1", {"parent_id": 3}),
        ("PATCH", "/categories/1", {"parent_id": 3, "name": "X"}),
        ("DELETE", "/categories/2", None),
    ]
    for method, path, body in refused:
        response = await tree.admin.request(method, path, json=body)
        assert response.status_code == 409, (method, path, body, response.text)
        assert_problem(response, 409)
    assert await tree.shop.paths() == before
    for method, body in (("PATCH", {"name": "X"}), ("DELETE", None)):
        assert_problem(await tree.admin.request(method, "/categories/99", json=body), 404)


async def test_bad_names_are_refused(tree: Api, phase: Phase) -> None:
    bad: tuple[Any, ...] = (
        *("", " ", "A/B", "/", " A", "A ", "A\n", "\tA", "A\u00a0", "A\x00", "A\x1fB", "x" * 101),
        *(None, 5, ["A"]),
    )
    for name in bad:
        for method, path in (("POST", "/categories"), ("PATCH", "/categories/1")):
            response = await tree.admin.request(method, path, json={"name": name})
            assert response.status_code == 422, (name, response.text)
    for body in (
        {},
        {"parent_id": 0},
        {"parent_id": "1"},
        {"parent_id": 2**31},
        {"path": "A"},
        {"name": "A", "id": 1},
    ):
        assert_problem(await tree.admin.patch("/categories/1", json=body), 422)
    assert_problem(await tree.admin.post("/categories", json={"parent_id": 1}), 422)


async def test_depth_and_length_have_limits(api: Api, phase: Phase) -> None:
    deepest = await api.shop.add_path("/".join("abcdefghij"))
    assert_problem(await api.admin.post("/categories", json={"name": "k", "parent_id": deepest}), 409)
    low = await api.shop.add_path("x/y")
    # y has nothing below it, so it may stand on level 10; with a child it may not.
    ninth = deepest - 1
    assert (await api.admin.patch(f"/categories/{low}", json={"parent_id": ninth})).status_code == 200
    assert (await api.admin.patch(f"/categories/{low}", json={"parent_id": low - 1})).status_code == 200
    await api.shop.add_path("x/y/z")
    assert_problem(await api.admin.patch(f"/categories/{low}", json={"parent_id": ninth}), 409)

    long = await api.shop.add_path("/".join([name * 99 for name in "pqr"]))
    assert len((await api.shop.paths())[long]) == 299
    assert_problem(await api.admin.post("/categories", json={"name": "s", "parent_id": long}), 409)
    parent = long - 2
    renamed = await api.admin.patch(f"/categories/{parent}", json={"name": "p" * 100})
    assert len((await api.shop.paths())[long]) == 300
    assert renamed.status_code == 200
    assert_problem(await api.admin.patch(f"/categories/{parent}", json={"parent_id": 1}), 409)
    await api.shop.carried()


async def test_only_empty_categories_are_deleted(tree: Api, phase: Phase) -> None:
    await tree.shop.carried()
    product_id = await tree.shop.add_product("A", category_id=3)
    assert_problem(await tree.admin.delete("/categories/3"), 409)
    await tree.admin.patch(f"/products/{product_id}", json={"category_id": None})
    for category in (3, 2):
        assert (await tree.admin.delete(f"/categories/{category}")).status_code == 204
    assert_problem(await tree.admin.delete("/categories/3"), 404)
    await tree.shop.carried()
    assert (await tree.shop.paths()) == {1: "Home", 4: "Home/Kitchenware", 5: "Garden"}


async def with_one_uncommitted(
    api: Api, first: Unit[Category], second: Awaitable[httpx.Response]
) -> httpx.Response:
    """Answers what comes of `second` when it starts while `first` has done everything but commit."""
    done, go_on = asyncio.Event(), asyncio.Event()

    async def held(work: UnitOfWork) -> Category:
        value = await first(work)
        done.set()
        await go_on.wait()
        return value

    holding = asyncio.create_task(api.shop.manager.write("held", held))
    await done.wait()
    following = asyncio.ensure_future(second)
    await api.shop.until_blocked(following)
    go_on.set()
    (await holding).unwrap()
    return await following


async def test_moves_at_the_same_time_make_no_circle(tree: Api, phase: Phase) -> None:
    """`a_goes_below_b_while_b_goes_below_a`: each alone is allowed, both together would cut the branch off."""
    answer = await with_one_uncommitted(
        tree,
        units.update_category(2, CategoryChanges(parent_id=4)),
        tree.admin.patch("/categories/4", json={"parent_id": 2}),
    )
    assert_problem(answer, 409)
    assert len(await tree.shop.paths()) == 5
    await tree.shop.carried()


async def test_a_leaf_added_while_its_branch_is_renamed_bears_the_new_name(tree: Api, phase: Phase) -> None:
    """`child_added_between_rename_and_commit`."""
    answer = await with_one_uncommitted(
        tree,
        units.update_category(1, CategoryChanges(name="H")),
        tree.admin.post("/categories", json={"name": "leaf", "parent_id": 3}),
    )
    assert answer.json()["path"] == "H/Kitchen/Mugs/leaf"
    await tree.shop.carried()


async def test_a_category_deleted_while_it_gets_a_child_stays_away(tree: Api, phase: Phase) -> None:
    """`child_added_between_delete_and_commit`."""
    answer = await with_one_uncommitted(
        tree,
        units.delete_category(5),
        tree.admin.post("/categories", json={"name": "leaf", "parent_id": 5}),
    )
    assert_problem(answer, 409)
    await tree.shop.carried()


async def test_a_product_put_into_a_category_that_is_being_deleted(tree: Api, phase: Phase) -> None:
    """`product_added_between_delete_and_commit`: the foreign key says no, and that is a conflict."""
    answer = await with_one_uncommitted(
        tree,
        units.delete_category(5),
        tree.admin.post("/products", json={"sku": "A", "price": "1", "category_id": 5}),
    )
    assert_problem(answer, 409)
    await tree.shop.carried()


async def test_one_of_several_new_ones_of_a_name_wins(tree: Api, phase: Phase) -> None:
    answers = await asyncio.gather(
        *(tree.admin.post("/categories", json={"name": "Lamps", "parent_id": 1}) for _ in range(5))
    )
    assert sorted(answer.status_code for answer in answers) == [201, 409, 409, 409, 409]
    await tree.shop.carried()
