"""What a backfill copies is what a carry would have written, to the byte."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
from prometheus_client import CollectorRegistry
from sqlalchemy import ARRAY, Boolean, Column, DateTime, Integer, MetaData, Table, Text, select
from sqlalchemy.types import TypeEngine

from backend.shared import (
    DualWriteManager,
    DualWriteSettings,
    EntityMapping,
    Key,
    KeyPart,
    Phase,
    Projection,
    Source,
    UnitOfWork,
)
from backend.shared.observability.labels import Verdict
from backend.shared.observability.metrics import Metrics
from backend.shared.sync_validator import SyncValidator
from backend.shared.testing.clusters import Databases
from tests.integration.test_carry_fidelity import SAMPLES, ThingManager, sides
from tests.integration.test_validator_functions import Sides as CodedSides
from tests.integration.test_validator_functions import coded
from tests.support.backfilling import small
from tests.support.fixtures import Sql
from tests.support.people import create_tables

__all__ = ["coded", "sides"]  # fixtures


async def test_every_type_is_copied_to_the_byte(
    sides: tuple[asyncpg.Connection, asyncpg.Connection, ThingManager],
) -> None:
    left, right, manager = sides
    for number, sample in enumerate(SAMPLES):
        await left.execute(f"INSERT INTO things (id) VALUES ({number})")
        await left.execute(f"UPDATE things SET {sample} WHERE id = {number}")
    for _ in range(2):  # straight, and merged with what is there
        assert (await small(manager).run()).is_complete
        images = [
            [row[0] for row in await connection.fetch(f"SELECT {table}::text FROM {table} ORDER BY id")]
            for connection, table in ((left, "things"), (right, "items"))
        ]
        assert images[1] == images[0]
        await right.execute("UPDATE items SET t = 'wrong', f8 = 1, jb = NULL")


async def test_rows_that_python_makes(coded: CodedSides) -> None:
    """Keys are carried as the relay does it, in the same chunks."""
    manager, left, right = coded
    await left.execute("INSERT INTO coded SELECT n, 'l' || n || '|' || n FROM generate_series(401, 440) AS n")
    await left.execute("INSERT INTO coded VALUES (441)")
    await left.execute("DELETE FROM tandem_coded.journal")
    await right.execute("INSERT INTO decoded VALUES (999, 'zombie', 1)")
    found = await small(manager).run()
    assert found.is_complete
    assert found.entities[0].progress.keys_removed == 1
    assert (await SyncValidator(manager.runtime).run()).verdict is Verdict.EQUAL


async def test_values_whose_text_in_copy_is_not_that_of_a_carry_go_by_keys(databases: Databases) -> None:
    """A flag, a time and an array become text on the other side: as JSON has them, whoever carries."""
    manager = as_text_manager(databases)
    await create_tables(
        databases.legacy_url,
        "CREATE TABLE typed (id integer PRIMARY KEY, flag boolean, at timestamptz, list integer[]);"
        "INSERT INTO typed VALUES (1, true, '2024-01-01 10:00:00+00', '{1,2}'), (2, NULL, NULL, NULL)",
    )
    await create_tables(
        databases.new_url, "CREATE TABLE texts (id integer PRIMARY KEY, flag text, at text, list text)"
    )
    try:
        await manager.install()
        await manager.start()
        assert (await small(manager).run()).is_complete
        new = Sql(databases.new_url)
        copied = await new("SELECT * FROM texts ORDER BY id")
        await Sql(databases.legacy_url)("UPDATE typed SET id = id")
        await manager.relay().drain(timeout_seconds=10)
        assert await new("SELECT * FROM texts ORDER BY id") == copied
        assert copied[0]["flag"] == "true"
    finally:
        await manager.close()


def as_text_manager(databases: Databases) -> DualWriteManager:
    def table(name: str, *types: TypeEngine[Any]) -> Table:
        columns = [Column(column, kind) for column, kind in zip(("flag", "at", "list"), types, strict=True)]
        return Table(name, MetaData(), Column("id", Integer, primary_key=True), *columns)

    typed = table("typed", Boolean(), DateTime(timezone=True), ARRAY(Integer()))
    texts = table("texts", Text(), Text(), Text())
    entity = EntityMapping(
        name="typed",
        key=(KeyPart(name="id", type=Integer()),),
        to_new=(Projection(table=texts, key=("id",), query=select(*typed.c)),),
        to_legacy=(Projection(table=typed, key=("id",), query=select(*texts.c)),),
        legacy_sources=(Source(table=typed, keys=("id",)),),
        new_sources=(Source(table=texts, keys=("id",)),),
    )

    class TextManager(DualWriteManager):
        service = "as_text"

        @classmethod
        def entities(cls) -> Sequence[EntityMapping]:
            return (entity,)

        async def write_probe(self, work: UnitOfWork) -> tuple[str, Key]:
            raise NotImplementedError

    return TextManager(
        databases.new_url,
        databases.legacy_url,
        DualWriteSettings(service="as_text", phase=Phase.DUALWRITE),
        metrics=Metrics(CollectorRegistry()),
    )
