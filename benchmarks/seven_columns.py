"""The table that benchmarks move and compare: 1,000,000 rows of seven columns, the same on both sides."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, DateTime, Integer, MetaData, Numeric, Table, Text, select

from backend.shared import EntityMapping, KeyPart, Projection, Source

ROWS = 1_000_000


def create(table: str) -> str:
    """DDL of the table."""
    return (
        f"CREATE TABLE {table} (id integer PRIMARY KEY, customer integer NOT NULL, label text NOT NULL, "
        "price numeric(12,2) NOT NULL, made_at timestamptz NOT NULL, is_open boolean NOT NULL, note text)"
    )


def fill(table: str) -> str:
    """Inserts all rows."""
    return f"""
INSERT INTO {table} SELECT n, n % 5000, 'label of row ' || n, (n % 100000) / 100.0,
       '2024-05-01 12:30:00+00'::timestamptz + n * interval '1 second', n % 3 = 0,
       CASE WHEN n % 4 <> 0 THEN md5(n::text) END
  FROM generate_series(1, {ROWS}) AS n"""


def entity(old: str, new: str) -> EntityMapping:
    """A `row`, in the table `old` on the legacy side and in `new` on the new one."""
    left, right = _table(old), _table(new)
    return EntityMapping(
        name="row",
        key=(KeyPart(name="id", type=Integer()),),
        to_new=(Projection(table=right, key=("id",), query=select(*left.c)),),
        to_legacy=(Projection(table=left, key=("id",), query=select(*right.c)),),
        legacy_sources=(Source(table=left, keys=("id",)),),
        new_sources=(Source(table=right, keys=("id",)),),
    )


def _table(name: str) -> Table:
    return Table(
        name,
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("customer", Integer),
        Column("label", Text),
        Column("price", Numeric(12, 2)),
        Column("made_at", DateTime(timezone=True)),
        Column("is_open", Boolean),
        Column("note", Text),
    )
