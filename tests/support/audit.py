"""Notes every state that a row of the people service goes through, on either side, and holds one against the other.

A trigger on each table writes the row, in one shape for both sides, into `audit`, in the transaction of the change. So the
authoritative side has the history of every row, in the order of its commits, and the secondary side has what arrived.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import asyncpg

from backend.shared import Side

Row = tuple[str, int]
"""Kind (person, profile, note) and number."""
Image = str | None
"""What a row holds; None: there is none."""

_GONE = "NOT EXISTS (SELECT 1 FROM {} AS p WHERE p.{} = OLD.{})"
"""A row that was deleted after its parent was deleted by the foreign key."""
_TABLES = {
    Side.LEGACY: (
        ("folk", "person", "folk_no", "mail, r.nm, r.cents, r.born", "false"),
        ("folk_extra", "profile", "folk_no", "city", _GONE.format("folk", "folk_no", "folk_no")),
        ("notes", "note", "note_no", "folk_no, r.body", _GONE.format("folk", "folk_no", "folk_no")),
    ),
    Side.NEW: (
        (
            "people",
            "person",
            "id",
            "email, r.name, (r.credit * 100)::bigint, to_char(r.born, 'YYYY-MM-DD')",
            "false",
        ),
        ("profiles", "profile", "person_id", "city", _GONE.format("people", "id", "person_id")),
        ("notes", "note", "id", "person_id, r.body", _GONE.format("people", "id", "person_id")),
    ),
}
_AUDIT = """
CREATE TABLE audit (seq bigserial PRIMARY KEY, xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    kind text NOT NULL, id integer NOT NULL, image text,
    carried boolean NOT NULL DEFAULT coalesce(current_setting('tandem.carry', true), '') <> '',
    by_engine boolean NOT NULL DEFAULT starts_with(current_setting('application_name'), 'tandem'),
    cascaded boolean NOT NULL);
CREATE TABLE opening (id serial PRIMARY KEY, opened pg_snapshot NOT NULL DEFAULT pg_current_snapshot(), closed pg_snapshot)"""
_TRIGGERS = """
CREATE FUNCTION audit_{table}() RETURNS trigger LANGUAGE plpgsql AS $audit$
DECLARE r {table}%ROWTYPE;
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        INSERT INTO audit (kind, id, cascaded) SELECT '{kind}', {key}, false FROM {table};
        RETURN NULL;
    END IF;
    IF TG_OP = 'DELETE' OR TG_OP = 'UPDATE' AND OLD.{key} <> NEW.{key} THEN
        INSERT INTO audit (kind, id, cascaded) VALUES ('{kind}', OLD.{key}, {cascaded});
    END IF;
    IF TG_OP <> 'DELETE' THEN
        r := NEW;
        INSERT INTO audit (kind, id, image, cascaded)
        VALUES ('{kind}', r.{key}, jsonb_build_array(r.{image})::text, false);
    END IF;
    RETURN NULL;
END $audit$;
CREATE TRIGGER audit_row AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION audit_{table}();
CREATE TRIGGER audit_truncate BEFORE TRUNCATE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION audit_{table}()"""


@dataclass(frozen=True)
class Event:
    """A row came to hold `image` in transaction `xid`."""

    xid: int
    row: Row
    image: Image
    carried: bool
    by_engine: bool
    cascaded: bool


async def install_audit(connection: asyncpg.Connection, side: Side) -> None:
    """Put the triggers on the tables of `side`."""
    await connection.execute(_AUDIT)
    for table, kind, key, image, cascaded in _TABLES[side]:
        await connection.execute(
            _TRIGGERS.format(table=table, kind=kind, key=key, image=image, cascaded=cascaded)
        )


AUDIT = (
    "SELECT xid::text::bigint AS xid, kind, id, image, carried, by_engine, cascaded FROM audit ORDER BY seq"
)

UNFENCED = """
SELECT DISTINCT a.kind, a.id FROM audit AS a JOIN opening AS o
    ON NOT pg_visible_in_snapshot(a.xid, o.opened) AND pg_visible_in_snapshot(a.xid, o.closed)
 WHERE a.carried"""
"""Rows that were carried while the side was open: every carry ends before that, or begins after it."""


def events(rows: Iterable[asyncpg.Record]) -> list[Event]:
    """The rows of `AUDIT`: all that has happened, per row in the order in which it did."""
    return [
        Event(
            xid=row["xid"],
            row=(row["kind"], row["id"]),
            image=row["image"],
            carried=row["carried"],
            by_engine=row["by_engine"],
            cascaded=row["cascaded"],
        )
        for row in rows
    ]


def histories(found: Iterable[Event]) -> dict[Row, list[Image]]:
    """The states that were committed, by row, from before its first one: of each transaction the last."""
    states: dict[Row, list[Image]] = {}
    last: dict[Row, int] = {}
    for event in found:
        history = states.setdefault(event.row, [None])
        if last.get(event.row) == event.xid:
            history.pop()
        history.append(event.image)
        last[event.row] = event.xid
    return states


def disorder(source: Sequence[Event], target: Sequence[Event]) -> list[str]:
    """What the engine wrote to the secondary that is no sequence of the source's states in the source's order.

    So a row never goes back to an older state (I3), nor comes back after its deletion has arrived (I2); a state that was
    there never, or half, is found as well. What others than the engine wrote there does not count, nor do rows that a
    foreign key took along: they may have got another parent on the source, and are carried again.
    """
    told = [
        f"{event.row} was written on the secondary without the mark of a carry"
        for event in target
        if event.by_engine and not event.carried
    ]
    truth = histories(source)
    for row, arrived in histories(e for e in target if e.by_engine and not e.cascaded).items():
        history, place = truth.get(row, [None]), 0
        for before, image in pairwise(arrived):
            try:
                place = history.index(image, place)
            except ValueError:
                told.append(
                    f"{row} went from {before} to {image}; it was {history}, and there came {arrived}"
                )
                break
    return told
