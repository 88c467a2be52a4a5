"""The fence: a trigger that keeps writers away from a side that is closed to them (R7).

A phase change must not let two replicas write to two authorities, and no replica can be trusted to have heard of it. So the
check stands in the database. Before each statement that writes a mapped table the trigger takes the service's fence lock in
share mode, which a cutover takes alone, and *in a second statement* reads the side's mark: what that statement sees is as new
as the lock. Units of the engine are refused on a closed side; carries have looked at the mark themselves; what foreign
programs write there is refused or reported, as the mark says.
"""

from __future__ import annotations

from sqlalchemy import Table

from backend.shared.domain.mapping import EntityCatalog
from backend.shared.domain.phases import Direction, Side
from backend.shared.journal.sync_triggers import telling_mark
from backend.shared.journal.triggers import OPERATIONS, InstalledTrigger, bounded_name
from backend.shared.stores.postgres.names import CARRY_SETTING, UNIT_SETTING, EngineNames
from backend.shared.stores.postgres.projection_sql import quoted, table_name

FENCED = "TD001"
"""SQLSTATE of a unit of the engine on a side that is closed."""
FOREIGN_REFUSED = "TD002"
"""SQLSTATE of a foreign program's write on a side that is closed and rejects it."""
_LOOKED_UP = "'looked up'"
"""Argument of the fence of a table that is not the service's own: a foreign program's write there is never rejected."""


def fenced_tables(catalog: EntityCatalog, side: Side) -> dict[str, Table]:
    """Every table of `side` that a projection reads or writes, by name."""
    found: dict[str, Table] = {}
    for entity in catalog.ordered:
        tables = [source.table for source in entity.sources(side)]
        tables += [projection.table for projection in entity.projections(Direction.towards(side))]
        found |= {table_name(table): table for table in tables}
    return found


def tables_looked_up(catalog: EntityCatalog, side: Side) -> set[str]:
    """Tables that no entity has rows of its own in: they belong to somebody else, who must not be refused."""
    own = {
        table_name(table)
        for entity in catalog.ordered
        for table in (
            *(source.table for source in entity.sources(side) if source.is_direct),
            *(projection.table for projection in entity.projections(Direction.towards(side))),
        )
    }
    return set(fenced_tables(catalog, side)) - own


def fence_triggers(names: EngineNames, catalog: EntityCatalog, side: Side) -> list[InstalledTrigger]:
    """The fence of every table of `side`. They share one function."""
    function = f"{names.schema}.fence"
    made = []
    looked_up = tables_looked_up(catalog, side)
    for name, table in fenced_tables(catalog, side).items():
        for operation in OPERATIONS:
            trigger = bounded_name(f"{names.schema}_{table.name}_fence_{operation}")
            made.append(
                InstalledTrigger(
                    name=trigger,
                    table=name,
                    function_sql=fence_function(names, side),
                    trigger_sql=(
                        f"CREATE OR REPLACE TRIGGER {quoted(trigger)} BEFORE {operation.upper()} ON {name} "
                        f"FOR EACH STATEMENT EXECUTE FUNCTION {function}({_LOOKED_UP if name in looked_up else ''})"
                    ),
                )
            )
    return made


def fence_function(names: EngineNames, side: Side) -> str:
    """The trigger function.

    Above READ COMMITTED a snapshot may be older than the lock, and would see an old mark: there the row is locked, which
    fails with 40001 if it has changed since.
    """
    carries = names.carry_mark(Direction.towards(side), 0).removesuffix("0")
    # How a row stands is no state of it. Whoever tells it ends journal rows, and a cutover waits for that under this lock.
    telling = telling_mark(names, side)
    return f"""CREATE OR REPLACE FUNCTION {names.schema}.fence() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fence$
DECLARE
    mark_state text;
    on_foreign text;
BEGIN
    IF current_setting('{CARRY_SETTING}', true) = '{telling}' THEN
        RETURN NULL;
    END IF;
    PERFORM pg_advisory_xact_lock_shared({names.fence_lock});
    IF current_setting('transaction_isolation') = 'read committed' THEN
        SELECT state, foreign_writes INTO mark_state, on_foreign FROM {names.mark};
    ELSE
        SELECT state, foreign_writes INTO mark_state, on_foreign FROM {names.mark} FOR SHARE;
    END IF;
    IF mark_state = 'open' OR starts_with(current_setting('{CARRY_SETTING}', true), '{carries}') THEN
        RETURN NULL;
    END IF;
    IF starts_with(current_setting('{UNIT_SETTING}', true), '{names.unit_mark("")}') THEN
        RAISE EXCEPTION 'the {side.value} side of {names.service} is closed' USING ERRCODE = '{FENCED}';
    END IF;
    IF on_foreign = 'reject' AND TG_NARGS = 0 THEN
        RAISE EXCEPTION 'the {side.value} side of {names.service} is closed: write to the other one'
            USING ERRCODE = '{FOREIGN_REFUSED}';
    END IF;
    PERFORM set_config('{names.foreign_setting}', 'closed', true);
    RETURN NULL;
END $fence$"""


def assert_open(names: EngineNames, *, journals: bool = True) -> str:
    """SQL that fails with `FENCED` unless this side is open; to be sent in a transaction, before anything is read.

    Not `journals`: it fails too where changes have to be journalled by the unit that makes them, and this one will not.
    """
    return f"SELECT {names.schema}.assert_open({str(journals).lower()})"


def assert_function(names: EngineNames, side: Side) -> str:
    """The function behind `assert_open`. It locks the mark where the trigger does.

    A transaction that cannot write needs no such lock: if its snapshot shows the side open, then all that it reads was what
    the side with the authority held at that moment.
    """
    return f"""CREATE OR REPLACE FUNCTION {names.schema}.assert_open(journals boolean) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $fence$
DECLARE
    is_open boolean;
BEGIN
    PERFORM pg_advisory_xact_lock_shared({names.fence_lock});
    IF current_setting('transaction_isolation') = 'read committed' OR current_setting('transaction_read_only') = 'on' THEN
        SELECT state = 'open' AND (journals OR NOT captures) INTO is_open FROM {names.mark};
    ELSE
        SELECT state = 'open' AND (journals OR NOT captures) INTO is_open FROM {names.mark} FOR SHARE;
    END IF;
    IF is_open IS NOT TRUE THEN
        RAISE EXCEPTION 'the {side.value} side of {names.service} is closed' USING ERRCODE = '{FENCED}';
    END IF;
END $fence$"""
