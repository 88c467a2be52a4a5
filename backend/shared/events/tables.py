"""Where events are kept: the record, what is to be delivered, what was taken in, and what could not be (decision 21)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from faststream_outbox import make_dlq_table, make_outbox_table
from sqlalchemy import Column, DateTime, Index, Integer, MetaData, Table, Text, Uuid, func
from sqlalchemy.dialects.postgresql import JSONB

from backend.shared.domain.mapping import EntityMapping
from backend.shared.domain.mirrors import Mirrors
from backend.shared.domain.phases import Side


@dataclass(frozen=True, kw_only=True)
class EventTables:
    """The tables of one service in one database.

    `event`: all events, insert-only, as Debezium's outbox event router reads them (docs/howto/debezium.md). `outbox`: those that wait for delivery,
    `undelivered` those that somebody has taken out of there: services give none up. `inbox`: the messages whose effects are in the same database, `dead` those
    that could not be taken in.
    """

    event: Table
    outbox: Table
    undelivered: Table
    inbox: Table
    dead: Table
    mark: str = ""
    """The table that holds the epoch of this side, where the service is being moved."""

    @property
    def queue(self) -> str:
        """What the rows of `outbox` are addressed to. In a database that services share, each wakes for its own alone."""
        return self.outbox.schema or "messages"

    @classmethod
    def within(cls, metadata: MetaData, *, mark: str = "") -> EventTables:
        """The tables, made part of `metadata`."""
        return cls(
            mark=mark,
            event=Table(
                "event",
                metadata,
                Column("id", Uuid(as_uuid=False), primary_key=True),
                Column("aggregatetype", Text, nullable=False),
                Column("aggregateid", Text, nullable=False),
                Column("type", Text, nullable=False),
                # Where it is published, for whoever delivers from here and cannot look into the payload.
                Column("subject", Text, nullable=False),
                Column("payload", JSONB, nullable=False),
                Column(
                    "recorded_at",
                    DateTime(timezone=True),
                    nullable=False,
                    server_default=func.clock_timestamp(),
                ),
                Index("event_recorded_at_idx", "recorded_at"),
            ),
            outbox=make_outbox_table(metadata, "outbox"),
            undelivered=make_dlq_table(metadata, "outbox_undelivered"),
            inbox=Table(
                "inbox",
                metadata,
                Column("consumer", Text, primary_key=True),
                Column("message_id", Uuid(as_uuid=False), primary_key=True),
                Column("received_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
                Index("inbox_received_at_idx", "received_at"),
            ),
            dead=Table(
                "dead_letter",
                metadata,
                Column("consumer", Text, primary_key=True),
                Column("message_id", Uuid(as_uuid=False), primary_key=True),
                Column("envelope", JSONB, nullable=False),
                Column("reason", Text, nullable=False),
                Column("attempts", Integer, nullable=False),
                Column("failed_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
                Column("replayed_at", DateTime(timezone=True)),
            ),
        )

    @classmethod
    def of(cls, metadata: MetaData, *, mark: str = "") -> EventTables:
        """The tables that are part of `metadata` already, whatever its schema."""
        found = {table.name: table for table in metadata.sorted_tables}
        return cls(
            mark=mark,
            event=found["event"],
            outbox=found["outbox"],
            undelivered=found["outbox_undelivered"],
            inbox=found["inbox"],
            dead=found["dead_letter"],
        )


@dataclass(frozen=True, kw_only=True)
class EventRoom:
    """The event tables of a service on each side it may write, and what of them comes along at a cutover.

    The queue stays where it is: it is delivered from both sides. A message that was taken in on one side has to be known on
    the other, or it would have its effect there again.
    """

    tables: Mapping[Side, EventTables]
    entities: tuple[EntityMapping, ...]

    @classmethod
    def mirrored(cls, metadata: MetaData, mirrors: Mirrors) -> EventRoom:
        """For a service that is being moved: `metadata` is that of its own database."""
        mark = f"{mirrors.room}.mark"
        new = EventTables.within(metadata, mark=mark)
        for table in (new.outbox, new.undelivered):
            mirrors.twin(table)
        entities = (
            mirrors.entity("event", new.event),
            mirrors.entity("inbox", new.inbox),
            mirrors.entity("dead_letter", new.dead),
        )
        legacy = EventTables.of(mirrors.metadata, mark=mark)
        return cls(tables={Side.NEW: new, Side.LEGACY: legacy}, entities=entities)

    @classmethod
    def alone(cls, metadata: MetaData) -> EventRoom:
        """For a service that has one database."""
        return cls(tables={Side.NEW: EventTables.within(metadata)}, entities=())
