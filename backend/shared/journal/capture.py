"""Triggers that write the journal: the statement that changes a row and its journal row are one transaction (R1).

One trigger per table and kind of statement, per statement, with transition tables, `ENABLE ALWAYS`. An UPDATE
journals the keys of OLD and NEW; TRUNCATE journals every key. A carry of the same service towards this side is not
captured; anybody else's write is.
"""

from __future__ import annotations

import hashlib

from sqlalchemy import Table

from backend.shared.domain.mapping import EntityCatalog, EntityMapping, Source
from backend.shared.domain.phases import Direction, Side
from backend.shared.journal.conflict_capture import changed_rows, conflict_inserts
from backend.shared.journal.sync_triggers import pending_updates
from backend.shared.journal.triggers import OPERATIONS, InstalledTrigger, bounded_name
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
    name = bounded_name(f"{names.schema}_{source.name}_{operation}")
    function = f"{names.schema}.{quoted(bounded_name(f'capture_{source.name}_{operation}'))}"
    changed = _CHANGED.get(operation, f"SELECT * FROM {target}")
    own_carries = names.carry_mark(Direction.towards(side), 0).removesuffix("0")
    conflicts = conflict_inserts(names, readers, side=side, operation=operation, changed=changed)
    inserts = "\n".join(_journal_insert(names, entity, reader, changed) for entity, reader in readers)
    reported = pending_updates(names, readers, side=side, changed=changed, closed=True)
    pending = pending_updates(names, readers, side=side, changed=changed, closed=False)
    declared = "DECLARE\n    carried_as text;\n" if reported else ""
    notice = f"""
    IF current_setting('{UNIT_SETTING}', true) <> '' THEN
        RAISE NOTICE '{UNIT_NOTICE}%', pg_current_xact_id();
    END IF;"""
    function_sql = f"""CREATE OR REPLACE FUNCTION {function}() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = {source.schema or "public"}, pg_temp AS $capture$
{declared}BEGIN
    IF starts_with(current_setting('{CARRY_SETTING}', true), '{own_carries}') THEN
        RETURN NULL;
    END IF;
    IF current_setting('{names.foreign_setting}', true) = 'closed' THEN
{conflicts}{_on_new_lines(reported)}
        RETURN NULL;
    END IF;
{inserts}{_on_new_lines(pending)}{notice}
    RETURN NULL;
END $capture$"""
    when = "BEFORE" if operation == "truncate" else "AFTER"
    trigger_sql = (
        f"CREATE OR REPLACE TRIGGER {quoted(name)} {when} {operation.upper()} ON {target} "
        f"{_TRANSITIONS[operation]} FOR EACH STATEMENT EXECUTE FUNCTION {function}()"
    )
    return InstalledTrigger(name=name, table=target, function_sql=function_sql, trigger_sql=trigger_sql)


def _on_new_lines(statements: str) -> str:
    return f"\n{statements}" if statements else ""


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
