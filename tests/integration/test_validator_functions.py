"""Entities that a Python function maps are compared through it, in the types of the target."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg
import pytest
from prometheus_client import CollectorRegistry
from sqlalchemy import Column, Integer, MetaData, Numeric, String, Table, Text, select

from backend.shared import (
    DualWriteManager,
    DualWriteSettings,
    EntityMapping,
    Key,
    KeyPart,
    Phase,
    Projection,
    Source,
    SyncValidator,
    UnitOfWork,
)
from backend.shared.observability.labels import Verdict
from backend.shared.observability.metrics import Metrics
from backend.shared.testing.clusters import Databases
from backend.shared.validation.report import EntityReport, MismatchKind

pytestmark = pytest.mark.invariant("I5")

_legacy, _new = MetaData(), MetaData()
old = Table("coded", _legacy, Column("no", Integer, primary_key=True), Column("code", String(40)))
new = Table(
    "decoded",
    _new,
    Column("no", Integer, primary_key=True),
    Column("label", Text),
    Column("price", Numeric(12, 2)),
)


def decode(row: dict[str, Any]) -> dict[str, Any] | None:
    """'label|price' in two columns; a row without code is none."""
    if row["code"] is None:
        return None
    label, _, price = row["code"].partition("|")
    return {"no": row["no"], "label": label or None, "price": price or None}


def encode(row: dict[str, Any]) -> dict[str, Any]:
    return {"no": row["no"], "code": f"{row['label'] or ''}|{row['price'] or ''}"}


CODED = EntityMapping(
    name="coded",
    key=(KeyPart(name="no", type=Integer()),),
    to_new=(
        Projection(
            table=new,
            key=("no",),
            query=select(old.c.no, old.c.code),
            function=decode,
            function_columns=("no", "label", "price"),
        ),
    ),
    to_legacy=(
        Projection(
            table=old,
            key=("no",),
            query=select(new.c.no, new.c.label, new.c.price),
            function=encode,
            function_columns=("no", "code"),
        ),
    ),
    legacy_sources=(Source(table=old, keys=("no",)),),
    new_sources=(Source(table=new, keys=("no",)),),
)


class CodedManager(DualWriteManager):
    service = "coded"

    @classmethod
    def entities(cls) -> Sequence[EntityMapping]:
        return (CODED,)

    async def write_probe(self, work: UnitOfWork) -> tuple[str, Key]:
        raise NotImplementedError


Sides = tuple[CodedManager, asyncpg.Connection, asyncpg.Connection]


@pytest.fixture
async def coded(databases: Databases) -> AsyncIterator[Sides]:
    left, right = await asyncpg.connect(databases.legacy_url), await asyncpg.connect(databases.new_url)
    await left.execute("CREATE TABLE coded (no integer PRIMARY KEY, code varchar(40))")
    await right.execute("CREATE TABLE decoded (no integer PRIMARY KEY, label text, price numeric(12,2))")
    manager = CodedManager(
        settings=DualWriteSettings(
            service="coded",
            legacy_database_url=databases.legacy_url,
            database_url=databases.new_url,
            phase=Phase.DUALWRITE,
            batch_size=1000,
            retry_attempts=1,
        ),
        metrics=Metrics(CollectorRegistry()),
    )
    await manager.install()
    await manager.start()
    await left.execute(
        "INSERT INTO coded SELECT n, CASE WHEN n % 10 = 0 THEN NULL ELSE 'n' || n || '|' || n * 0.5 END "
        "FROM generate_series(1, 300) AS n"
    )
    assert await manager.relay().drain(timeout_seconds=10)
    yield manager, left, right
    await manager.close()
    await left.close()
    await right.close()


async def validate(manager: CodedManager) -> EntityReport:
    report = await SyncValidator(manager.runtime, chunk_rows=50).run(show_values=True, patience_seconds=0.2)
    return report.entities[0]


async def test_equal_through_the_function(coded: Sides) -> None:
    report = await validate(coded[0])
    assert (report.verdict, report.rows_legacy, report.rows_new) == (Verdict.EQUAL, 270, 270), report


async def test_corruption_is_found_through_the_function(coded: Sides) -> None:
    manager, _, right = coded
    await right.execute("UPDATE decoded SET price = price + 0.01 WHERE no = 7")
    await right.execute("UPDATE decoded SET label = label || ' ' WHERE no = 299")
    await right.execute("INSERT INTO decoded VALUES (10, 'extra'), (301, 'extra')")
    await right.execute("DELETE FROM decoded WHERE no = 1")
    report = await validate(manager)
    assert {item.key: (item.kind, [field.field for field in item.fields]) for item in report.mismatches} == {
        "[1]": (MismatchKind.MISSING_IN_NEW, ["decoded.label", "decoded.no", "decoded.price"]),
        "[7]": (MismatchKind.DIFFERENT, ["decoded.price"]),
        "[10]": (MismatchKind.MISSING_IN_LEGACY, ["decoded.label", "decoded.no", "decoded.price"]),
        "[299]": (MismatchKind.DIFFERENT, ["decoded.label"]),
        "[301]": (MismatchKind.MISSING_IN_LEGACY, ["decoded.label", "decoded.no", "decoded.price"]),
    }
    (price,) = next(item for item in report.mismatches if item.key == "[7]").fields
    assert (price.legacy, price.new) == ("3.50", "3.51"), "as the target has it, not as the text was"


async def test_what_the_target_cannot_hold_is_judged_when_the_relay_has_tried(coded: Sides) -> None:
    manager, left, _ = coded
    await left.execute("UPDATE coded SET code = 'n|no price' WHERE no = 5")
    report = await validate(manager)
    assert (report.verdict, report.mismatches) == (Verdict.INCOMPLETE, ())
    await manager.relay().drain(timeout_seconds=5)
    report = await validate(manager)
    assert [(item.key, item.kind) for item in report.mismatches] == [("[5]", MismatchKind.FAILED)]
