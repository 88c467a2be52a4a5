"""Which texts a server is known to sort by their bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from backend.shared.stores.postgres.collations import sorts_by_bytes
from backend.shared.testing.clusters import Databases

TABLE = """
CREATE COLLATION c_by_another_name (provider = libc, locale = 'C');
CREATE DOMAIN word AS text;
CREATE TABLE texts (
    plain text, short varchar(9), fixed char(9), words word, posix text COLLATE "POSIX", ucs text COLLATE ucs_basic,
    renamed text COLLATE c_by_another_name, "Loud" text, number integer, ref uuid)
"""


@pytest.fixture
async def connection(databases: Databases) -> AsyncIterator[asyncpg.Connection]:
    found = await asyncpg.connect(databases.legacy_url)
    await found.execute(TABLE)
    yield found
    await found.close()


@pytest.mark.parametrize(
    "column", ["plain", "short", "fixed", "words", "posix", "ucs", "renamed", '"Loud"', "plain || short"]
)
async def test_texts_that_are_sorted_by_bytes(connection: asyncpg.Connection, column: str) -> None:
    assert await connection.fetchval(sorts_by_bytes(f"SELECT {column} AS k FROM texts", ["k"])) is True


@pytest.mark.parametrize("column", ["number", "ref", "posix || ucs", 'plain COLLATE "C.utf8"'])
async def test_what_is_no_text_or_sorts_as_nobody_says(connection: asyncpg.Connection, column: str) -> None:
    assert await connection.fetchval(sorts_by_bytes(f"SELECT {column} AS k FROM texts", ["k"])) is False


async def test_one_column_in_an_order_of_its_own_is_enough(connection: asyncpg.Connection) -> None:
    query = "TABLE texts"
    assert await connection.fetchval(sorts_by_bytes(query, ["plain", "renamed"])) is True
    assert await connection.fetchval(sorts_by_bytes(query, ["plain", "ref"])) is False
