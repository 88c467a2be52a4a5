"""The demos with something wrong planted in them. A program of its own: a test worker with thousands of tests behind it
stands still for seconds when it collects its garbage, and the demo's customers with it.

python -m tests.support.planted_demos shop|tasks|orders SIZE REPORT LOGS
"""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path
from typing import Any

import asyncpg
import typer
from bson import ObjectId
from pymongo import AsyncMongoClient

from backend.demo import run as shop
from backend.demo.orders import run as orders
from backend.demo.orders.scenario import OrdersOptions
from backend.demo.orders.stack import OrderStack
from backend.demo.scenario import DemoOptions
from backend.demo.stack import Stack
from backend.demo.tasks import run as tasks
from backend.demo.tasks.scenario import TasksOptions
from backend.demo.tasks.stack import TaskStack
from backend.shared.testing.programs import REPOSITORY

HISTORY_ENDS = ObjectId("640000000000000000000000")
"""Generated ids are older."""


def run_planted(demo: str, *, size: int, report: Path, logs: Path, output: Path) -> int:
    """Run a planted demo to its end; its exit code. What it prints goes to `output`."""
    command = (sys.executable, "-m", __name__, demo, str(size), str(report), str(logs))
    with output.open("w") as printed:
        return subprocess.run(
            command, cwd=REPOSITORY, stdout=printed, stderr=subprocess.STDOUT, check=False
        ).returncode


async def take_line_and_change_another(stack: Stack) -> None:
    """Take an acknowledged line, and change a line of history, on the closed side when everybody thinks that all is well."""
    connection = await asyncpg.connect(stack.env["LEGACY_DATABASE_URL"])
    try:
        await connection.execute(
            "DELETE FROM cart_lines WHERE line_no = (SELECT max(line_no) FROM cart_lines JOIN carts USING (cart_no)"
            " WHERE state = 'O')"
        )
        await connection.execute(
            "UPDATE cart_lines SET qty = qty + 1 WHERE line_no = (SELECT min(line_no) FROM cart_lines)"
        )
    finally:
        await connection.close()


async def write_legacy(stack: Stack) -> None:
    """Write a table that its service has let go of."""
    connection = await asyncpg.connect(stack.env["LEGACY_DATABASE_URL"])
    try:
        await connection.execute("UPDATE prod SET price_cents = price_cents + 1 WHERE prod_no = 1")
    finally:
        await connection.close()


async def take_watch_list_and_change_team(stack: TaskStack) -> None:
    """The same for documents: an acknowledged watch list goes, and a team of history is changed, on the closed side."""
    async with AsyncMongoClient[dict[str, Any]](stack.env["LEGACY_DATABASE_URL"]) as client:
        database = client.get_default_database()
        newest = await database.watchlists.find_one({}, sort=[("_id", -1)])
        assert newest is not None
        assert newest["_id"] > HISTORY_ENDS
        await database.watchlists.delete_one({"_id": newest["_id"]})
        oldest = await database.teams.find_one({}, sort=[("_id", 1)])
        assert oldest is not None
        await database.teams.update_one({"_id": oldest["_id"]}, {"$set": {"name": "planted"}})


async def take_goods_and_money(stack: OrderStack) -> None:
    """A thing is gone from the shelves, more money was taken than an order costs, and a saga is under way again."""
    for name, statement in (
        (
            "PRODUCT_DATABASE_URL",
            "UPDATE product_stock SET quantity = quantity - 1 WHERE product_id = (SELECT min(product_id) FROM product_stock WHERE quantity > 1)",
        ),
        (
            "PAYMENT_DATABASE_URL",
            "UPDATE payments SET amount = amount + 1 WHERE order_id = (SELECT min(order_id) FROM payments WHERE state = 'captured')",
        ),
        (
            "LEGACY_DATABASE_URL",
            "UPDATE tandem_order.sagas SET state = 'running' WHERE order_id = (SELECT max(order_id) FROM tandem_order.sagas)",
        ),
    ):
        connection = await asyncpg.connect(stack.env[name])
        try:
            assert await connection.execute(statement) == "UPDATE 1"
        finally:
            await connection.close()


def run_shop(size: int, report: Path, logs: Path) -> None:
    """The shop's demo, small."""
    planted = functools.partial(
        DemoOptions, before_comparison=take_line_and_change_another, before_end=write_legacy, customers=4
    )
    setattr(shop, "DemoOptions", planted)  # noqa: B010
    shop.KEPT_LOGS = logs
    shop.demo(size=size, seconds=5.0, json=report)


def run_tasks(size: int, report: Path, logs: Path) -> None:
    """The task service's demo, small."""
    planted = functools.partial(TasksOptions, before_comparison=take_watch_list_and_change_team, people=4)
    setattr(tasks, "TasksOptions", planted)  # noqa: B010
    tasks.KEPT_LOGS = logs
    tasks.demo_tasks(size=size, json=report)


def run_orders(size: int, report: Path, logs: Path) -> None:
    """The demo of orders, of few."""
    planted = functools.partial(OrdersOptions, before_audit=take_goods_and_money, customers=4)
    setattr(orders, "OrdersOptions", planted)  # noqa: B010
    orders.KEPT_LOGS = logs
    orders.demo_orders(size=size, orders=size // 100, json=report)


def main() -> None:
    """Run what the command line names; the exit code is the demo's."""
    demo, size, report, logs = sys.argv[1:]
    run = {"shop": run_shop, "tasks": run_tasks, "orders": run_orders}[demo]
    try:
        run(int(size), Path(report), Path(logs))
    except typer.Exit as ended:
        sys.exit(ended.exit_code)


if __name__ == "__main__":
    main()
