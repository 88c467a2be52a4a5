"""What a test against servers cannot show everywhere: no linguistic collation is in every build of PostgreSQL."""

from __future__ import annotations

from sqlalchemy import Column, Integer, MetaData, String, Table, Text, func, select

from backend.shared import EntityMapping, KeyPart, Projection, Source
from backend.shared.validation.statements import EntityStatements

table = Table(
    "t",
    MetaData(),
    Column("name", String(20), primary_key=True),
    Column("no", Integer, primary_key=True),
    Column("text", Text),
)
query = select(table.c.name, table.c.no, func.to_char(table.c.no, "9").label("text"))
projection = Projection(table=table, key=("name", "no"), query=query)
source = Source(table=table, keys=("name", "no"))
ENTITY = EntityMapping(
    name="thing",
    key=(KeyPart(name="name", type=String(20)), KeyPart(name="no", type=Integer())),
    to_new=(projection,),
    to_legacy=(projection,),
    legacy_sources=(source,),
    new_sources=(source,),
)
(STATEMENTS,) = EntityStatements.of(ENTITY, ENTITY.to_new).tables


def test_text_keys_are_ordered_by_their_bytes_on_both_sides() -> None:
    for relation in (STATEMENTS.source, STATEMENTS.target):
        order = '(q.name COLLATE "C", q.no)'
        assert relation.between(lower="$1", upper=None).startswith(f"WHERE {order} > ")
        assert relation.between(lower=None, upper="$1").startswith(f"WHERE {order} <= ")
        assert f"ORDER BY {order[1:-1]} LIMIT" in relation.bounds(lower=None)


def test_texts_are_never_cut_to_their_length() -> None:
    for relation in (STATEMENTS.source, STATEMENTS.target):
        assert "p.name::text AS name" in relation.typed
        assert "VARCHAR" not in relation.between(lower="$1", upper="$2")


def test_values_of_unknown_type_go_the_way_of_a_carry() -> None:
    assert "(to_json(p.text) #>> '{}')::text AS text" in STATEMENTS.source.typed
    assert "p.text::text AS text" in STATEMENTS.target.typed
