"""Sequences and identity columns of a side that is to become authoritative: moved past the other side's highest values.

Rows that are carried bring their own keys, so the sequence of the side that receives them stands still. Opened like that it
would give out keys that are taken. Foreign programs may still write to the side that was closed and take numbers from its
own sequence; so a gap is left between the two ranges.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from backend.shared.domain.mapping import EntityCatalog
from backend.shared.domain.phases import Direction, Side
from backend.shared.stores.postgres.projection_sql import quoted, table_name

SEQUENCE_GAP = 1_000_000
"""Numbers that foreign programs may still take from the sequence of a closed side before they meet those of the open one;
at most a quarter of those that the type has left."""


@dataclass(frozen=True, kw_only=True)
class SequenceState:
    """One sequence of a side: where it stands, and the highest value that either side's column holds."""

    side: Side
    table: str
    column: str
    sequence: str
    next_value: int
    highest: int
    most: int

    @property
    def is_ahead(self) -> bool:
        """Whether what it gives out next is no key that is there already."""
        return self.next_value > self.highest

    @property
    def target(self) -> int:
        """Where it is to stand: past the highest value and the gap; where it stands, if half the gap is left still."""
        gap = min(SEQUENCE_GAP, (self.most - self.highest) // 4)
        if self.next_value > self.highest + gap // 2:
            return self.next_value
        return self.highest + 1 + gap


async def sequences_of(
    own: AsyncConnection, other: AsyncConnection, catalog: EntityCatalog, side: Side
) -> list[SequenceState]:
    """The sequences that `side` makes keys with, compared with what both sides hold. `own` is a connection to it."""
    found: list[SequenceState] = []
    for entity in catalog.ordered:
        root = entity.projections(Direction.towards(side))[0]
        back = entity.projections(Direction.towards(side.other))[0]
        for column, behind in zip(root.key_columns, back.key_columns, strict=True):
            sequence = await _own_sequence(own, table_name(root.table), column.name)
            if sequence is None:
                continue
            name, next_value, most = sequence
            found.append(
                SequenceState(
                    side=side,
                    table=table_name(root.table),
                    column=column.name,
                    sequence=name,
                    next_value=next_value,
                    highest=max(
                        await _highest(own, table_name(root.table), column.name),
                        await _highest(other, table_name(back.table), behind.name),
                    ),
                    most=most,
                )
            )
    return found


async def move_sequences(
    own: AsyncConnection, other: AsyncConnection, catalog: EntityCatalog, side: Side
) -> list[SequenceState]:
    """Move the sequences of `side` ahead, never back; answers those that were moved. May be repeated.

    The caller holds the fence lock in `own`'s transaction and has seen that the side is closed. What `setval` does is no
    part of a transaction.
    """
    states = await sequences_of(own, other, catalog, side)
    moved = [state for state in states if state.target > state.next_value]
    for state in moved:
        await own.execute(
            text(
                "SELECT setval(CAST(:sequence AS regclass), greatest(:value, "
                f"(SELECT last_value + is_called::integer FROM {state.sequence})), false)"
            ),
            {"sequence": state.sequence, "value": state.target},
        )
    return moved


async def _own_sequence(connection: AsyncConnection, table: str, column: str) -> tuple[str, int, int] | None:
    found = await connection.execute(
        text("SELECT pg_get_serial_sequence(:table, :column)"), {"table": table, "column": column}
    )
    name = found.scalar()
    if name is None:
        return None
    row = (
        await connection.exec_driver_sql(
            "SELECT s.last_value, s.is_called, p.seqincrement, p.seqmax "
            f"FROM {name} AS s, pg_sequence AS p WHERE p.seqrelid = '{name}'::regclass"
        )
    ).one()
    if row.seqincrement < 0:
        return None  # counts down: nothing here would fit
    return str(name), row.last_value + (row.seqincrement if row.is_called else 0), row.seqmax


async def _highest(connection: AsyncConnection, table: str, column: str) -> int:
    found = await connection.exec_driver_sql(f"SELECT coalesce(max({quoted(column)}), 0) FROM {table}")
    return int(found.scalar_one())
