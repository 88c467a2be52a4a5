"""SQL of the capture triggers that keeps what foreign programs write to a closed side, as conflicts (R7).

In the transaction of the write: a conflict per row of an entity, with its images before and after. A row that is as it was, in
the columns that the mapping knows, is none. An UPDATE that gives a row another key is two: one key has lost its row, the other
has got one.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import FromClause, Table, column, table

from backend.shared.domain.mapping import EntityMapping, Source
from backend.shared.domain.phases import Side
from backend.shared.stores.postgres.names import EngineNames
from backend.shared.stores.postgres.projection_sql import key_text, quoted, select_text, table_name

_COLUMNS = "entity, key, side, operation, source_table, before, after"


def changed_rows(source: Table) -> FromClause:
    """The changed rows of a table as its capture trigger sees them."""
    return table("changed", *[column(item.name, item.type) for item in source.columns])


def conflict_inserts(
    names: EngineNames,
    readers: Sequence[tuple[EntityMapping, Source]],
    *,
    side: Side,
    operation: str,
    changed: str,
) -> str:
    """Statements for the body of a capture trigger of one table, which `readers` read."""
    whose_rows = [entity for entity, source in readers if source.is_direct]
    made = []
    for entity, source in readers:
        into = f"INSERT INTO {names.conflict} ({_COLUMNS})"
        constants = f"'{side.value}', '{operation}', '{table_name(source.table)}'"
        if isinstance(source.keys, tuple):
            made.append(_images(into, entity, source, constants=constants, operation=operation))
        elif entity not in whose_rows:
            made.append(_keys_alone(into, entity, source, constants=constants, changed=changed))
    return "\n".join(f"        {statement};" for statement in made)


def _keys_alone(into: str, entity: EntityMapping, source: Source, *, constants: str, changed: str) -> str:
    """Of a table that the entity only looks up: its rows are none of the entity's, so there are no images to keep."""
    if not callable(source.keys):
        return ""
    query = source.keys(changed_rows(source.table))
    key = key_text([f"k.{quoted(item.name)}" for item in query.selected_columns], entity.key)
    return (
        f"WITH changed AS ({changed}) {into} SELECT '{entity.name}', touched.k, {constants}, NULL, NULL "
        f"FROM (SELECT DISTINCT {key} AS k FROM ({select_text(query)}) AS k) AS touched"
    )


def _images(into: str, entity: EntityMapping, source: Source, *, constants: str, operation: str) -> str:
    one = f"SELECT '{entity.name}', i.k, {constants}"
    if operation == "insert":
        return f"{into} {one}, NULL::json, to_json(i.r) FROM ({_keyed(entity, source, 'tandem_new')}) AS i"
    if operation != "update":
        relation = "tandem_old" if operation == "delete" else table_name(source.table)
        return f"{into} {one}, to_json(i.r), NULL::json FROM ({_keyed(entity, source, relation)}) AS i"
    # Which of the columns that the mapping knows are there is asked at run time: a foreign program's write must not fail
    # because a column was renamed. Rows are compared as images, since = is not there for every type, and has -0 for 0.
    statement = (
        f"{into} SELECT '{entity.name}', coalesce(o.k, n.k), {constants}, to_json(o.r), to_json(n.r) "
        f"FROM ({_keyed(entity, source, 'tandem_old')}) AS o "
        f"FULL JOIN ({_keyed(entity, source, 'tandem_new')}) AS n ON o.k = n.k AND o.p = n.p "
        "WHERE o.k IS NULL OR n.k IS NULL OR "
    ).replace("%", "%%")
    known = ", ".join("'" + item.name.replace("'", "''") + "'" for item in source.table.columns)
    return (
        f"EXECUTE (SELECT format($conflict${statement}ROW(%1$s)::record *<> ROW(%2$s)::record$conflict$, "
        "coalesce(string_agg(format('(o.r).%I', a.attname), ', ' ORDER BY a.attnum), 'NULL'), "
        "coalesce(string_agg(format('(n.r).%I', a.attname), ', ' ORDER BY a.attnum), 'NULL')) "
        "FROM pg_attribute AS a WHERE a.attrelid = TG_RELID AND a.attnum > 0 AND NOT a.attisdropped "
        f"AND a.attname IN ({known}))"
    )


def _keyed(entity: EntityMapping, source: Source, relation: str) -> str:
    """Rows of `relation` with their key, and `p`, by which a row is found again where a key has several."""
    keys = tuple(source.keys) if isinstance(source.keys, tuple) else ()
    key = key_text([f"r.{quoted(name)}" for name in keys], entity.key)
    primary = [item.name for item in source.table.primary_key.columns]
    if set(primary) - set(keys):
        pair = f"jsonb_build_array({', '.join(f'r.{quoted(name)}' for name in primary)})::text"
    elif primary:
        pair = "''::text"
    else:
        pair = f"row_number() OVER (PARTITION BY {', '.join(f'r.{quoted(name)}' for name in keys)})::text"
    belongs = " AND ".join(f"r.{quoted(name)} IS NOT NULL" for name in keys)
    return f"SELECT {key} AS k, {pair} AS p, r FROM {relation} AS r WHERE {belongs}"
