"""Triggers that keep the columns of `SyncStatus` true on a PostgreSQL side, in the transaction of the change.

A carry makes a row SYNCED, any other write makes it PENDING, also one of a table that only belongs to it. What becomes of
a key afterwards the relay tells. It marks its transaction for that, so that what it writes is neither captured nor
changed by the trigger.
"""

from __future__ import annotations

from backend.shared.domain.mapping import EntityCatalog, EntityMapping, Source
from backend.shared.domain.phases import Direction, Side
from backend.shared.domain.sync_status import sync_root
from backend.shared.journal.triggers import InstalledTrigger, bounded_name
from backend.shared.stores.postgres.names import CARRY_SETTING, EngineNames
from backend.shared.stores.postgres.projection_sql import quoted, table_name

TELLING = ":sync"
"""End of the value of `CARRY_SETTING` for a transaction that tells how rows stand."""
FOREIGN_WRITE = "written by another program while this side was closed: see the conflicts"


def sync_triggers(names: EngineNames, catalog: EntityCatalog, side: Side) -> list[InstalledTrigger]:
    """The triggers of the root tables that have the columns."""
    found = []
    for entity in catalog.ordered:
        root = sync_root(entity, side)
        if root is not None:
            found.append(_trigger(names, side, table_name(root), root.name))
    return found


def telling_mark(names: EngineNames, side: Side) -> str:
    """The value of `CARRY_SETTING` for a transaction that tells how rows of `side` stand."""
    return names.carry_mark(Direction.towards(side), 0) + TELLING


def pending_updates(
    names: EngineNames, readers: list[tuple[EntityMapping, Source]], *, side: Side, changed: str, closed: bool
) -> str:
    """Statements for the body of a capture trigger: rows whose belongings have changed are PENDING.

    The root's own trigger does that for its rows, but while the side is `closed`: then the images of a foreign write must
    not show it.
    """
    made = []
    for entity, source in readers:
        root = sync_root(entity, side)
        keys, own_keys = entity.sources(side)[0].keys, source.keys
        if root is None or not isinstance(keys, tuple) or not isinstance(own_keys, tuple):
            continue
        if source.table is root and not closed:
            continue
        (key,), (own_key,) = keys, own_keys
        error = f"'{FOREIGN_WRITE}'" if closed else "NULL"
        made.append(
            f"    UPDATE {table_name(root)} AS r SET sync_status = 'PENDING', sync_error = {error} "
            f"WHERE r.{quoted(key)} IN (SELECT c.{quoted(own_key)} FROM ({changed}) AS c) "
            f"AND (r.sync_status, r.sync_error) IS DISTINCT FROM ('PENDING', {error});"
        )
    if not made:
        return ""
    mark = telling_mark(names, side)
    return "\n".join(
        [
            f"    carried_as := current_setting('{CARRY_SETTING}', true);",
            f"    PERFORM set_config('{CARRY_SETTING}', '{mark}', true);",
            *made,
            f"    PERFORM set_config('{CARRY_SETTING}', coalesce(carried_as, ''), true);",
        ]
    )


def _trigger(names: EngineNames, side: Side, target: str, table: str) -> InstalledTrigger:
    name = bounded_name(f"{names.schema}_{table}_sync")
    function = f"{names.schema}.{quoted('capture_sync')}"
    own_carries = names.carry_mark(Direction.towards(side), 0).removesuffix("0")
    function_sql = f"""CREATE OR REPLACE FUNCTION {function}() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $sync$
DECLARE
    carried_as text := current_setting('{CARRY_SETTING}', true);
BEGIN
    IF starts_with(carried_as, '{own_carries}') THEN
        IF right(carried_as, {len(TELLING)}) <> '{TELLING}' THEN
            NEW.sync_status := 'SYNCED';
            NEW.sync_error := NULL;
            NEW.last_synced_at := clock_timestamp();
        END IF;
        RETURN NEW;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        NEW.last_synced_at := OLD.last_synced_at;
        IF current_setting('{names.foreign_setting}', true) = 'closed' THEN
            NEW.sync_status := OLD.sync_status;
            NEW.sync_error := OLD.sync_error;
            RETURN NEW;
        END IF;
    ELSE
        NEW.last_synced_at := NULL;
    END IF;
    NEW.sync_status := 'PENDING';
    NEW.sync_error := NULL;
    RETURN NEW;
END $sync$"""
    trigger_sql = (
        f"CREATE OR REPLACE TRIGGER {quoted(name)} BEFORE INSERT OR UPDATE ON {target} "
        f"FOR EACH ROW EXECUTE FUNCTION {function}()"
    )
    return InstalledTrigger(name=name, table=target, function_sql=function_sql, trigger_sql=trigger_sql)


__all__ = ["FOREIGN_WRITE", "TELLING", "pending_updates", "sync_triggers", "telling_mark"]
