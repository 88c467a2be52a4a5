"""The state of entities, as a side reads and writes it: one of the protocols that make up a side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from backend.shared.domain.mapping import EntityMapping
from backend.shared.domain.phases import Direction
from backend.shared.stores.protocol import Applied, Position, StateBatch
from backend.shared.stores.side_records import Connection


class State(Protocol):
    """Reads and writes the state of entities on this side (R2, R3)."""

    async def read_state(
        self, connection: Connection, entity: EntityMapping, direction: Direction, *, keys: Sequence[str]
    ) -> StateBatch:
        """State of `keys` on this side, the source, with the position of the snapshot that read it.

        Raises `UnfitKeysError` for keys whose state cannot be said in the target's shape.
        """
        ...

    async def read_uncommitted(
        self, connection: Connection, entity: EntityMapping, direction: Direction, *, keys: Sequence[str]
    ) -> StateBatch:
        """State of `keys` as the open transaction of `connection` sees it, its own writes included.

        The position says nothing. Where it fails, the transaction goes on.
        """
        ...

    async def read_stored(
        self, connection: Connection, entity: EntityMapping, direction: Direction, *, keys: Sequence[str]
    ) -> StateBatch:
        """What this side, the target of `direction`, itself holds of `keys`: mapped columns only."""
        ...

    async def stored_rows(
        self, connection: Connection, entity: EntityMapping, keys: Sequence[str]
    ) -> dict[str, dict[str, str]]:
        """The rows that this side holds of `keys`, mapped columns only: by key and table or collection, as JSON."""
        ...

    def state_of(self, entity: EntityMapping, *, key: str, rows: str | None) -> StateBatch:
        """The state that the `stored_rows` of one key say, kept as one JSON document; None is no row. Without a position.

        In the direction towards this side. Raises `UnfitKeysError` where rows cannot say it.
        """
        ...

    async def position(self, connection: Connection) -> Position:
        """Where this side, the source, stands: the position of a snapshot taken now."""
        ...

    async def make_durable(self, connection: Connection) -> None:
        """What the snapshot before this call has counted outlives a crash of this side's server."""
        ...

    async def apply(
        self, connection: Connection, batches: Sequence[StateBatch], *, epoch: int
    ) -> dict[str, Applied]:
        """Write `batches`, one per entity, where their guards move forward; answers by entity name.

        Everything in the caller's transaction, which should do nothing else. Raises `FencedError` unless this side, the
        target, is closed in `epoch`, `OutdatedReadError` where a backfill has copied newer state, and whatever the
        database raises when it refuses a row.
        """
        ...

    async def enter(self, connection: Connection, direction: Direction, *, epoch: int) -> None:
        """Make the transaction a carry in `direction`, where `apply` is not the first thing that it does."""
        ...

    async def move_guards(self, connection: Connection, batch: StateBatch, *, epoch: int) -> frozenset[str]:
        """Move the guards of a batch to its position, in a transaction that has entered; answers the keys that moved.

        Raises as `apply` does.
        """
        ...

    async def set_guards(
        self,
        connection: Connection,
        entity: EntityMapping,
        *,
        keys: Sequence[str],
        guard: tuple[int, Position],
        epoch: int,
    ) -> None:
        """Make the guards of `keys`, which this transaction holds, `guard`, whatever they are.

        Raises `FencedError` unless this side is closed in `epoch`.
        """
        ...

    async def write(
        self, connection: Connection, batches: Sequence[StateBatch], moved: Mapping[str, frozenset[str]]
    ) -> None:
        """Make the `moved` keys (by entity) what the batches, parents first, say of them. Asks no guard."""
        ...

    async def lock_guards(
        self, connection: Connection, entity: EntityMapping, *, keys: Sequence[str]
    ) -> None:
        """Hold the guards of `keys` until the transaction ends, without moving them."""
        ...

    async def read_guards(
        self, connection: Connection, entity: EntityMapping, *, keys: Sequence[str]
    ) -> dict[str, tuple[int, Position]]:
        """Epoch and position of the guards of `keys` that have one."""
        ...

    async def missing_parents(
        self, connection: Connection, batches: Sequence[StateBatch], constraint: str | None
    ) -> dict[str, list[str]]:
        """Keys by entity that a foreign key asks for and this side lacks; nothing where that cannot be told."""
        ...

    async def find_unique(
        self, connection: Connection, batch: StateBatch, constraint: str | None
    ) -> object | None:
        """The unique index of that name which `batch` has clashed with; None where nothing can be done about it."""
        ...

    async def holders(self, connection: Connection, batch: StateBatch, unique: Any) -> set[str]:
        """Keys that hold, on this side, a unique value which the batch is to get."""
        ...

    async def let_go(
        self, connection: Connection, entity: EntityMapping, unique: Any, keys: list[str]
    ) -> None:
        """Take what `keys` have here out of the unique index's way, in the caller's transaction."""
        ...

    async def keys_after(
        self, connection: Connection, entity: EntityMapping, *, after: str | None, limit: int
    ) -> list[str]:
        """Up to `limit` canonical keys of the entity's root that this side holds, past `after`, in the order of their bytes."""
        ...

    async def strange_keys(self, connection: Connection, entity: EntityMapping, *, most: int) -> list[str]:
        """Up to `most` keys that are none of the entity's kind, and which `keys_after` leaves out: nothing can hold them."""
        ...

    async def count(self, connection: Connection, entity: EntityMapping) -> int:
        """About how many there are of an entity."""
        ...
