"""Foreign writes to tables that hold several rows of a key, and to tables that an entity only looks up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Column, FromClause, Integer, MetaData, Select, Table, Text, select

from backend.shared import (
    DualWriteManager,
    DualWriteSettings,
    EntityMapping,
    Key,
    KeyPart,
    Phase,
    Projection,
    Side,
    Source,
    UnitOfWork,
)
from backend.shared.journal.fence import FOREIGN_REFUSED
from backend.shared.observability.metrics import Metrics
from backend.shared.testing.clusters import Databases
from tests.support.fixtures import Sql

LINES_DDL = {
    Side.LEGACY: (
        "CREATE TABLE orders_old (no integer PRIMARY KEY, shop integer); "
        "CREATE TABLE lines_old (order_no integer, pos integer, what text, PRIMARY KEY (order_no, pos)); "
        "CREATE TABLE loose_old (order_no integer, what text); "
        "CREATE TABLE shops (shop integer PRIMARY KEY, name text)"
    ),
    Side.NEW: "CREATE TABLE orders (id integer PRIMARY KEY, shop_name text, lines bigint)",
}
_meta = MetaData()
orders_old = Table("orders_old", _meta, Column("no", Integer, primary_key=True), Column("shop", Integer))
lines_old = Table(
    "lines_old",
    _meta,
    Column("order_no", Integer, primary_key=True),
    Column("pos", Integer, primary_key=True),
    Column("what", Text),
)
loose_old = Table("loose_old", _meta, Column("order_no", Integer), Column("what", Text))
shops = Table("shops", _meta, Column("shop", Integer, primary_key=True), Column("name", Text))
orders = Table("orders", MetaData(), Column("id", Integer, primary_key=True), Column("shop_name", Text))


def _orders_of_shop(changed: FromClause) -> Select[Any]:
    return select(orders_old.c.no).where(orders_old.c.shop.in_(select(changed.c.shop)))


ORDER = EntityMapping(
    name="order",
    key=(KeyPart(name="id", type=Integer()),),
    to_new=(
        Projection(
            table=orders,
            key=("id",),
            query=select(orders_old.c.no.label("id"), shops.c.name.label("shop_name")).join_from(
                orders_old, shops, shops.c.shop == orders_old.c.shop
            ),
        ),
    ),
    to_legacy=(Projection(table=orders_old, key=("no",), query=select(orders.c.id.label("no"))),),
    legacy_sources=(
        Source(table=orders_old, keys=("no",)),
        Source(table=lines_old, keys=("order_no",)),
        Source(table=loose_old, keys=("order_no",)),
        Source(table=shops, keys=_orders_of_shop),
    ),
    new_sources=(Source(table=orders, keys=("id",)),),
)


class OrdersManager(DualWriteManager):
    service = "orders"

    @classmethod
    def entities(cls) -> Sequence[EntityMapping]:
        return (ORDER,)

    async def write_probe(self, work: UnitOfWork) -> tuple[str, Key]:
        raise NotImplementedError


async def test_tables_with_several_rows_a_key_and_tables_that_are_only_looked_up(
    databases: Databases,
) -> None:
    legacy, new = Sql(databases.legacy_url), Sql(databases.new_url)
    for side, sql in ((Side.LEGACY, legacy), (Side.NEW, new)):
        for statement in LINES_DDL[side].split("; "):
            await sql(statement)
    await legacy("INSERT INTO shops VALUES (1, 'Ulm')")
    await legacy("INSERT INTO orders_old VALUES (7, 1), (8, 1)")
    await legacy("INSERT INTO lines_old SELECT 7, n, 'line ' || n FROM generate_series(1, 3) AS n")
    await legacy("INSERT INTO loose_old SELECT 7, 'loose ' || n FROM generate_series(1, 3) AS n")
    manager = OrdersManager(
        settings=DualWriteSettings(
            service="orders",
            legacy_database_url=databases.legacy_url,
            database_url=databases.new_url,
            phase=Phase.RAMPDOWN,
        ),
        metrics=Metrics(CollectorRegistry()),
    )
    try:
        await manager.install()
        await manager.start()
        for table in ("lines_old", "loose_old"):
            await legacy(f"UPDATE {table} SET what = upper(what)")
            rows = await legacy(
                "DELETE FROM tandem_orders.conflict RETURNING key, before->>'what' AS b, after->>'what' AS a"
            )
            assert len(rows) == 3
            assert all(row["key"] == "[7]" and row["b"].upper() == row["a"] for row in rows)
        await legacy("INSERT INTO loose_old VALUES (NULL, 'belongs to none')")
        assert await legacy("SELECT 1 FROM tandem_orders.conflict") == []
        # Somebody else's table: told, for each key that looks it up, and never refused.
        await manager.change_config({"foreign_writes": "reject"})
        await legacy("UPDATE shops SET name = 'Bonn'")
        rows = await legacy(
            "SELECT key, source_table, before, after FROM tandem_orders.conflict ORDER BY key"
        )
        assert [tuple(row) for row in rows] == [("[7]", "shops", None, None), ("[8]", "shops", None, None)]
        with pytest.raises(asyncpg.PostgresError) as refused:
            await legacy("UPDATE lines_old SET what = 'x'")
        assert refused.value.sqlstate == FOREIGN_REFUSED
    finally:
        await manager.close()
