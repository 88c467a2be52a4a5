"""Triggers that write the journal: the statement that changes a row and its journal row are one transaction (R1).

One trigger per table and kind of statement, per statement, with transition tables, `ENABLE ALWAYS`. An UPDATE
journals the keys of OLD and NEW; TRUNCATE journals every key. A carry of the same service towards this side is not
captured; anybody else's write is.
"""

from __future__ import annotations

import hashlib

from sqlalchemy import FromClause, Table, column, table

from backend.shared.domain.mapping import EntityCatalog, EntityMapping, Source
from backend.shared.domain.phases import Direction, Side
from backend.shared.journal.triggers import OPERATIONS, InstalledTrigger
from backend.shared.stores.postgres.names import CARRY_SETTING, UNIT_SETTING, EngineNames
from backend.shared.stores.postgres.projection_sql import key_text, quoted, select_text, table_name

_TRANSITIONS = {
    "insert": "REFERENCING NEW TABLE AS tandem_new",
    "update": "REFERENCING OLD TABLE AS tandem_old NEW TABLE AS tandem_new",
    "delete": "REFERENCING OLD TABLE AS tandem_old",
    "truncate": "",
}
_CHANGED = {
    "insert": "SELECT * FROM tandem_new",
    "update": "SELECT * FROM tandem_old UNION ALL SELECT * FROM tandem_new",
    "delete": "SELECT * FROM tandem_old",
}
UNIT_NOTICE = "tandem.xid="
"""Prefix of the notice by which a unit of work learns its transaction id without a round trip."""


def capture_triggers(names: EngineNames, catalog: EntityCatalog, side: Side) -> list[InstalledTrigger]:
    """Every trigger that `side` needs to capture the entities of a service.

    While the side is closed they keep what foreign programs write to it as conflicts.
    """
    sources: dict[str, list[tuple[EntityMapping, Source]]] = {}
    tables: dict[str, Table] = {}
    for entity in catalog.ordered:
        for source in entity.sources(side):
            name = table_name(source.table)
            tables[name] = source.table
            sources.setdefault(name, []).append((entity, source))
    return [
        _trigger(names, tables[name], readers, side, operation)
        for name, readers in sources.items()
        for operation in OPERATIONS
    ]


def fingerprint(triggers: list[InstalledTrigger]) -> str:
    """A hash of everything that the triggers say: a changed mapping asks for a new installation."""
    text = "\n".join(trigger.function_sql + trigger.trigger_sql for trigger in triggers)
    return hashlib.sha256(text.encode()).hexdigest()


def _trigger(
    names: EngineNames,
    source: Table,
    readers: list[tuple[EntityMapping, Source]],
    side: Side,
    operation: str,
) -> InstalledTrigger:
    target = table_name(source)
    name = f"{names.schema}_{source.name}_{operation}"
    function = f"{names.schema}.{quoted('capture_' + source.name + '_' + operation)}"
    changed = _CHANGED.get(operation, f"SELECT * FROM {target}")
    own_carries = names.carry_mark(Direction.towards(side), 0).removesuffix("0")
    conflicts = "\n".join(
        _conflict_insert(names, entity, reader, operation=operation, table=target, side=side)
        for entity, reader in readers
    )
    inserts = "\n".join(_journal_insert(names, entity, reader, changed) for entity, reader in readers)
    notice = f"""
    IF current_setting('{UNIT_SETTING}', true) <> '' THEN
        RAISE NOTICE '{UNIT_NOTICE}%', pg_current_xact_id();
    END IF;"""
    function_sql = f"""CREATE OR REPLACE FUNCTION {function}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {source.schema or "public"}, pg_temp AS $capture$
BEGIN
    IF starts_with(current_setting('{CARRY_SETTING}', true), '{own_carries}') THEN
        RETURN NULL;
    END IF;
    IF current_setting('{names.foreign_setting}', true) = 'closed' THEN
{conflicts}
        RETURN NULL;
    END IF;
{inserts}{notice}
    RETURN NULL;
END $capture$"""
    when = "BEFORE" if operation == "truncate" else "AFTER"
    trigger_sql = (
        f"CREATE OR REPLACE TRIGGER {quoted(name)} {when} {operation.upper()} ON {target} "
        f"{_TRANSITIONS[operation]} FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
    )
    return InstalledTrigger(name=name, table=target, function_sql=function_sql, trigger_sql=trigger_sql)


def _journal_insert(names: EngineNames, entity: EntityMapping, source: Source, changed: str) -> str:
    if isinstance(source.keys, tuple):
        key = key_text([f"c.{quoted(name)}" for name in source.keys], entity.key)
        keys = f"SELECT DISTINCT '{entity.name}', {key} FROM changed AS c"
    else:
        query = source.keys(changed_rows(source.table))
        columns = [quoted(selected.name) for selected in query.selected_columns]
        key = key_text([f"k.{name}" for name in columns], entity.key)
        keys = f"SELECT DISTINCT '{entity.name}', {key} FROM ({select_text(query)}) AS k"
    return f"    WITH changed AS ({changed})\n    INSERT INTO {names.journal} (entity, key) {keys};"


def _conflict_insert(
    names: EngineNames, entity: EntityMapping, source: Source, *, operation: str, table: str, side: Side
) -> str:
    """Keep the images before and after of what a foreign program wrote here while the side was closed.

    Where a table is only looked up by the entity, its rows are none of the entity's: then the keys alone are kept.
    """
    into = f"        INSERT INTO {names.conflict} (entity, key, side, operation, source_table, before, after)\n        "
    if not isinstance(source.keys, tuple):
        changed = _CHANGED.get(operation, f"SELECT * FROM {table}")
        query = source.keys(changed_rows(source.table))
        key = key_text([f"k.{quoted(column.name)}" for column in query.selected_columns], entity.key)
        return (
            f"        WITH changed AS ({changed})\n{into}"
            f"SELECT DISTINCT '{entity.name}', {key}, '{side.value}', '{operation}', '{table}', NULL::jsonb, NULL::jsonb "
            f"FROM ({select_text(query)}) AS k;"
        )
    old, new = {
        "insert": (None, "tandem_new"),
        "update": ("tandem_old", "tandem_new"),
        "delete": ("tandem_old", None),
    }.get(operation, (table, None))
    keyed = {
        relation: f"SELECT {key_text([f'r.{quoted(name)}' for name in source.keys], entity.key)} AS k, to_jsonb(r) AS image "
        f"FROM {relation} AS r"
        for relation in (old, new)
        if relation
    }
    nothing = "SELECT NULL::text AS k, NULL::jsonb AS image WHERE false"
    return (
        f"{into}SELECT '{entity.name}', coalesce(o.k, n.k), '{side.value}', '{operation}', '{table}', o.image, n.image "
        f"FROM ({keyed.get(old or '', nothing)}) AS o FULL JOIN ({keyed.get(new or '', nothing)}) AS n ON o.k = n.k;"
    )


def changed_rows(source: Table) -> FromClause:
    """The changed rows of a table as its capture trigger sees them."""
    return table("changed", *[column(item.name, item.type) for item in source.columns])
