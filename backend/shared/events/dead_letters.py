"""Messages that could not be taken in: looked at, and put back on their way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from faststream_outbox import OutboxBroker
from sqlalchemy import select, update

from backend.shared.domain.errors import NotFoundError
from backend.shared.unit_of_work import UnitOfWork

from .consumer import RunUnit
from .envelope import Envelope
from .letters import Letter
from .tables import EventRoom


@dataclass(frozen=True, kw_only=True)
class DeadLetter:
    """A message that `consumer` could not take in, and why."""

    consumer: str
    message_id: str
    envelope: Envelope
    is_stand_in: bool
    reason: str
    attempts: int
    failed_at: datetime


class DeadLetters:
    """Those of one service, on the side that has the authority."""

    def __init__(self, room: EventRoom, run: RunUnit) -> None:
        self._room = room
        self._run = run
        self._brokers = {
            side: OutboxBroker(outbox_table=tables.outbox, logger=None)
            for side, tables in room.tables.items()
        }

    async def page(self, *, limit: int) -> list[DeadLetter]:
        """Up to `limit`, the oldest first."""

        async def unit(work: UnitOfWork) -> list[DeadLetter]:
            dead = self._room.tables[work.side].dead
            query = (
                select(dead)
                .where(dead.c.replayed_at.is_(None))
                .order_by(dead.c.failed_at, dead.c.message_id)
                .limit(limit)
            )
            return [_letter(dict(row)) for row in (await work.session.execute(query)).mappings()]

        return await self._run("list_dead_letters", unit)

    async def replay(self, message_ids: Sequence[str] | None = None) -> int:
        """Put some, or all, back on their way; answers how many.

        They are told anew, under the same ids: whoever has taken one in already passes over it. Raises `NotFoundError` for an
        id that is none of them, and puts nothing back then.
        """

        async def unit(work: UnitOfWork) -> int:
            dead = self._room.tables[work.side].dead
            query = select(dead).where(dead.c.replayed_at.is_(None)).with_for_update()
            if message_ids is not None:
                query = query.where(dead.c.message_id.in_(list(message_ids)))
            found = [_letter(dict(row)) for row in (await work.session.execute(query)).mappings()]
            there = {letter.message_id for letter in found}
            if unknown := [number for number in message_ids or () if number not in there]:
                raise NotFoundError(f"there is no dead letter {unknown[0]}")
            for letter in found:
                await self._brokers[work.side].publish(
                    letter.envelope.model_dump_json().encode(),
                    queue=self._room.tables[work.side].queue,
                    session=work.session,
                    correlation_id=letter.envelope.correlation_id,
                    headers={REPLAYED: datetime.now(UTC).isoformat()},
                )
                await work.session.execute(
                    update(dead)
                    .where(dead.c.consumer == letter.consumer, dead.c.message_id == letter.message_id)
                    .values(replayed_at=datetime.now(UTC))
                )
            return len(found)

        return await self._run("replay_dead_letters", unit)


REPLAYED = "tandem-replayed"
"""Header of a message that is told anew: a broker must not take it for one that it has kept already."""


def _letter(row: dict[str, Any]) -> DeadLetter:
    letter = Letter.from_json(row["envelope"])
    return DeadLetter(
        consumer=row["consumer"],
        message_id=str(row["message_id"]),
        envelope=letter.envelope,
        is_stand_in=letter.is_stand_in,
        reason=row["reason"],
        attempts=row["attempts"],
        failed_at=row["failed_at"],
    )
