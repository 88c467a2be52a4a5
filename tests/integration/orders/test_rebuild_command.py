"""`tandem events rebuild` and `views`: what is printed, and how they end."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import pytest

from backend.messages.orders import SagaStyle
from tests.integration.orders.conftest import MakeWorld
from tests.integration.orders.test_product_view import delivered, kept
from tests.support.commands import Ended
from tests.support.order_world import OrderUrls


async def events(urls: OrderUrls, *arguments: str) -> Ended:
    """`tandem events`, where no running stack has left its variables."""
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "backend.shared.cli.main", "events", *arguments),
        cwd=Path(Path.cwd().anchor),
        env=os.environ
        | {
            "LEGACY_DATABASE_URL": urls.legacy,
            "ORDER_DATABASE_URL": urls.order,
            "PRODUCT_DATABASE_URL": urls.product,
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await child.communicate()
    assert child.returncode is not None
    return Ended(code=child.returncode, out=out.decode(), err=err.decode())


async def test_a_view_is_built_anew(make_world: MakeWorld, order_urls: OrderUrls) -> None:
    world = await make_world(SagaStyle.CHOREOGRAPHED)
    await world.stocked(cup=1, plate=1)
    await world.order.run_unit("plant", kept(9_001, "a ghost", (0, 1)))
    async with delivered(world):
        ended = await events(order_urls, "rebuild", "order", "products", "--json")
        assert (ended.code, ended.err) == (0, "")
        done = json.loads(ended.out)
        as_of = done.pop("as_of")
        assert done == {
            "service": "order",
            "model": "products",
            "owner": "product",
            "told": 2,
            "taken_in": 2,
            "removed": 1,
            "rows": 2,
        }
        again = await events(order_urls, "rebuild", "order")
        assert again.code == 0
        assert again.out.startswith("order products: product told of 2, 0 removed; 2 rows as of ")
    listed = await events(order_urls, "views", "order", "--json")
    shown = json.loads(listed.out)
    assert (listed.code, shown["rows"], shown["owner"]) == (0, 2, "product")
    assert shown["as_of"] > as_of


async def test_when_nobody_listens_it_is_given_up(make_world: MakeWorld, order_urls: OrderUrls) -> None:
    world = await make_world(SagaStyle.CHOREOGRAPHED)
    await world.stocked(cup=1)
    ended = await events(order_urls, "rebuild", "order", "--give-up", "1")
    assert (ended.code, ended.out, len(ended.err.splitlines())) == (2, "", 1)
    assert "1 of 1 messages that product told were not taken in by order within 1 s" in ended.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["payment"], "'payment' keeps nothing of other services; these do: cart, order"),
        (["nobody"], "'nobody' keeps nothing of other services; these do: cart, order"),
        (["order", "users"], "order keeps no 'users'; it keeps: products"),
    ],
)
async def test_bad_names_are_one_clear_line(order_urls: OrderUrls, arguments: list[str], said: str) -> None:
    for command in ("rebuild", "views"):
        ended = await events(order_urls, command, *arguments)
        assert (ended.code, ended.out, ended.err) == (2, "", f"tandem: {said}\n")
