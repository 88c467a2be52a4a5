"""Entities with keys that are no single integer: text under a linguistic collation, uuid, composite."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Column, Integer, MetaData, String, Table, Text, Uuid, cast, select

from backend.shared import DualWriteManager, EntityMapping, Key, KeyPart, Projection, Source, UnitOfWork

# "C.utf8", which is not known to sort by bytes, stands for what databases usually have. (Neither ICU nor the locale of a
# language is in every build of PostgreSQL, or in every system.)
DDL = {
    "legacy": """
CREATE TABLE tags_old (tag varchar(40) COLLATE "C.utf8" PRIMARY KEY, n integer);
CREATE TABLE tokens_old (token uuid PRIMARY KEY, n integer);
CREATE TABLE slots_old (room integer, code text, n integer, PRIMARY KEY (room, code))""",
    "new": """
CREATE TABLE tags (tag text COLLATE "C.utf8" PRIMARY KEY, n integer);
CREATE TABLE tokens (token uuid PRIMARY KEY, n integer);
CREATE TABLE slots (room integer, code text, n integer, PRIMARY KEY (room, code))""",
}
TAGS = (
    "INSERT INTO tags_old SELECT chr(65 + n % 26 + 32 * (n % 2)) || n, n FROM generate_series(1, {rows}) AS n"
)
TOKENS = "INSERT INTO tokens_old SELECT md5(n::text)::uuid, n FROM generate_series(1, {rows}) AS n"
SLOTS = "INSERT INTO slots_old SELECT n % 7, 'c' || n, n FROM generate_series(1, {rows}) AS n"


def _pair(old: str, new: str, key: dict[str, KeyPart]) -> EntityMapping:
    parts = tuple(key.values())
    left, right = (
        Table(name, MetaData(), *[Column(part.name, part.type) for part in parts], Column("n", Integer))
        for name in (old, new)
    )

    def columns(table: Table) -> list[Column[object]]:
        casts = [
            cast(table.c[part.name], Text).label(part.name)
            if isinstance(part.type, String)
            else table.c[part.name]
            for part in parts
        ]
        return [*casts, table.c.n]  # type: ignore[list-item]

    names = tuple(key)
    return EntityMapping(
        name=new.removesuffix("s"),
        key=parts,
        to_new=(Projection(table=right, key=names, query=select(*columns(left))),),  # type: ignore[arg-type]
        to_legacy=(Projection(table=left, key=names, query=select(*columns(right))),),  # type: ignore[arg-type]
        legacy_sources=(Source(table=left, keys=names),),
        new_sources=(Source(table=right, keys=names),),
    )


TAG = _pair("tags_old", "tags", {"tag": KeyPart(name="tag", type=Text())})
TOKEN = _pair("tokens_old", "tokens", {"token": KeyPart(name="token", type=Uuid())})
SLOT = _pair(
    "slots_old",
    "slots",
    {"room": KeyPart(name="room", type=Integer()), "code": KeyPart(name="code", type=Text())},
)


class KeyedManager(DualWriteManager):
    """The front door of the service under test."""

    service = "keyed"

    @classmethod
    def entities(cls) -> Sequence[EntityMapping]:
        return (TAG, TOKEN, SLOT)

    async def write_probe(self, work: UnitOfWork) -> tuple[str, Key]:
        return "tag", await work.insert("tag", {TAG.to_new[0].table.c.tag: "probe"})
