"""Fills empty legacy tables in one transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from backend.legacy_shop.connection import connected
from backend.legacy_shop.errors import LoadError
from backend.legacy_shop.schema import SERIAL_KEYS, TABLES

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "users": (
        *(
            "usr_id",
            "login_email",
            "pwd_hash",
            "first_nm",
            "last_nm",
            "phone_no",
            "addr_line",
            "city",
            "country",
        ),
        *("role_cd", "is_active", "newsletter", "credit_cents", "reg_date", "last_upd"),
    ),
    "cat": ("cat_no", "cat_path"),
    "prod": (
        *(
            "prod_no",
            "stock_code",
            "descr",
            "price_cents",
            "cat_no",
            "qty_on_hand",
            "is_disc",
            "created",
            "chg",
        ),
    ),
    "carts": ("cart_no", "cust", "state", "ext_ref", "opened", "chg"),
    "cart_lines": ("line_no", "cart_no", "prod_no", "qty", "unit_cents", "added"),
    "wish": ("wish_no", "cust", "prod_no", "added"),
}


class BulkLoad:
    """Sends rows by COPY, and counts those that the server took."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._rows: Counter[str] = Counter(dict.fromkeys(TABLES, 0))
        self.reserved: dict[str, int] = {}

    @property
    def rows(self) -> dict[str, int]:
        return dict(self._rows)

    def reserve(self, table: str, *, upto: int) -> None:
        """Have the table's sequence go on after `upto`, though no row has that key."""
        self.reserved[table] = upto

    async def copy(self, table: str, *, records: Iterable[tuple[Any, ...]]) -> None:
        """Append `records`, each in the order of `COLUMNS[table]`; they are drawn as the server takes them."""
        status = await self._connection.copy_records_to_table(
            table, schema_name="public", columns=COLUMNS[table], records=records
        )
        self._rows[table] += int(status.split()[-1])


@asynccontextmanager
async def bulk_load(dsn: str) -> AsyncIterator[BulkLoad]:
    """One transaction over empty legacy tables: after the block all of its rows are there, or, if it raised, none.

    Sequences go on after the highest key. Raises `LoadError` when a table is missing or holds rows already.
    """
    async with connected(dsn, application_name="legacy-load") as connection:
        try:
            async with connection.transaction():
                await _claim_empty_tables(connection)
                load = BulkLoad(connection)
                yield load
                await _advance_sequences(connection, reserved=load.reserved)
                await connection.execute("ANALYZE " + ", ".join(f"public.{table}" for table in TABLES))
        except asyncpg.UndefinedTableError as error:
            raise LoadError("the legacy tables are missing; create the schema first") from error


async def _claim_empty_tables(connection: Any) -> None:
    """Keep others from writing while the load runs, and see that nothing is there to be mixed with."""
    names = ", ".join(f"public.{table}" for table in TABLES)
    await connection.execute(f"LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE")
    for table in TABLES:
        if await connection.fetchval(f"SELECT EXISTS (SELECT FROM public.{table})"):
            raise LoadError(f"the legacy table {table} holds rows already; load into an empty shop")


async def _advance_sequences(connection: Any, *, reserved: Mapping[str, int]) -> None:
    """ALTER SEQUENCE, unlike setval, is taken back with its transaction."""
    for table, key in SERIAL_KEYS.items():
        sequence = await connection.fetchval("SELECT pg_get_serial_sequence($1, $2)", f"public.{table}", key)
        highest = await connection.fetchval(f"SELECT coalesce(max({key}), 0) FROM public.{table}")
        await connection.execute(
            f"ALTER SEQUENCE {sequence} RESTART WITH {max(highest, reserved.get(table, 0)) + 1}"
        )
