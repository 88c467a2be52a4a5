"""A service with a field that goes to the new side and never back."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Column, Integer, MetaData, Table, Text, func, select

from backend.shared import DualWriteManager, EntityMapping, Key, KeyPart, Projection, Source, UnitOfWork

DDL = "CREATE TABLE ow (no integer PRIMARY KEY, a text, b text)"
_old, _new = MetaData(), MetaData()
one_way_old = Table("ow", _old, Column("no", Integer, primary_key=True), Column("a", Text), Column("b", Text))
one_way_new = Table("ow", _new, Column("no", Integer, primary_key=True), Column("a", Text), Column("b", Text))
ONE_WAY = EntityMapping(
    name="ow",
    key=(KeyPart(name="no", type=Integer()),),
    to_new=(
        Projection(
            table=one_way_new,
            key=("no",),
            query=select(one_way_old.c.no, one_way_old.c.a, func.upper(one_way_old.c.b).label("b")),
        ),
    ),
    to_legacy=(Projection(table=one_way_old, key=("no",), query=select(one_way_new.c.no, one_way_new.c.a)),),
    legacy_sources=(Source(table=one_way_old, keys=("no",)),),
    new_sources=(Source(table=one_way_new, keys=("no",)),),
)


class OneWayManager(DualWriteManager):
    """Field `b` goes to the new side and never back."""

    service = "oneway"

    @classmethod
    def entities(cls) -> Sequence[EntityMapping]:
        return (ONE_WAY,)

    async def write_probe(self, work: UnitOfWork) -> tuple[str, Key]:
        raise NotImplementedError
