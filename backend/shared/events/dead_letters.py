"""Messages that could not be taken in: looked at, and put back on their way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

from faststream_outbox import OutboxBroker
from sqlalchemy import ColumnElement, Table, delete, select, tuple_, update

from backend.shared.domain.errors import ConflictError, NotFoundError, ValidationError
from backend.shared.unit_of_work import UnitOfWork

from .consumer import RunUnit
from .envelope import Envelope
from .letters import Letter
from .tables import EventRoom

BATCH_LETTERS = 500
"""So many are told anew in one transaction, and held in memory."""


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


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """How many were told anew, and how many stay: stand-ins, which nobody could take in."""

    told: int = 0
    stand_ins: int = 0

    def __add__(self, other: Replayed) -> Replayed:
        return Replayed(told=self.told + other.told, stand_ins=self.stand_ins + other.stand_ins)


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

    async def replay(self, message_id: str) -> None:
        """Put one back on its way, under the same id: whoever has taken it in already passes over it.

        Raises `ValidationError` for what is no id, `NotFoundError` for that of no dead letter, and `ConflictError` for a
        stand-in, which nobody could take in.
        """
        wanted = _id(message_id)

        async def unit(work: UnitOfWork) -> None:
            dead = self._room.tables[work.side].dead
            query = select(dead).where(_is_open(dead), dead.c.message_id == wanted).with_for_update()
            found = [_letter(dict(row)) for row in (await work.session.execute(query)).mappings()]
            if not found:
                raise _not_there(wanted)
            if any(letter.is_stand_in for letter in found):
                raise ConflictError(f"the dead letter {wanted} is a stand-in: nobody could take it in anew")
            await self._tell_anew(work, found)

        await self._run("replay_dead_letters", unit)

    async def replay_all(self) -> Replayed:
        """Put all back on their way but stand-ins, `BATCH_LETTERS` in a transaction.

        Each is looked at once, so one that fails again meanwhile stays. Broken off, a repetition goes on with what is left.
        """
        done, after = Replayed(), None
        while True:
            some, after = await self._run("replay_dead_letters", partial(self._replay_batch, after))
            done = done + some
            if after is None:
                return done

    async def _replay_batch(
        self, after: DeadLetter | None, work: UnitOfWork
    ) -> tuple[Replayed, DeadLetter | None]:
        """Answers also after which one to go on, if there may be more."""
        dead = self._room.tables[work.side].dead
        key = tuple_(dead.c.consumer, dead.c.message_id)
        query = select(dead).where(_is_open(dead)).order_by(*key).limit(BATCH_LETTERS)
        if after is not None:
            query = query.where(key > (after.consumer, after.message_id))
        rows = (await work.session.execute(query.with_for_update())).mappings()
        found = [_letter(dict(row)) for row in rows]
        whole = [letter for letter in found if not letter.is_stand_in]
        await self._tell_anew(work, whole)
        done = Replayed(told=len(whole), stand_ins=len(found) - len(whole))
        return done, found[-1] if len(found) == BATCH_LETTERS else None

    async def _tell_anew(self, work: UnitOfWork, letters: Sequence[DeadLetter]) -> None:
        tables = self._room.tables[work.side]
        dead, now = tables.dead, datetime.now(UTC)
        for letter in letters:
            await self._brokers[work.side].publish(
                letter.envelope.model_dump_json().encode(),
                queue=tables.queue,
                session=work.session,
                correlation_id=letter.envelope.correlation_id,
                headers={REPLAYED: now.isoformat()},
            )
        ids = [letter.message_id for letter in letters]
        await work.session.execute(
            update(dead).where(_is_open(dead), dead.c.message_id.in_(ids)).values(replayed_at=now)
        )

    async def discard(self, message_id: str) -> None:
        """Delete one, for good. Raises `ValidationError` for what is no id, `NotFoundError` for that of no dead letter."""
        wanted = _id(message_id)

        async def unit(work: UnitOfWork) -> None:
            dead = self._room.tables[work.side].dead
            gone = (
                delete(dead).where(_is_open(dead), dead.c.message_id == wanted).returning(dead.c.message_id)
            )
            if (await work.session.execute(gone)).first() is None:
                raise _not_there(wanted)

        await self._run("discard_dead_letter", unit)


REPLAYED = "tandem-replayed"
"""Header of a message that is told anew: a broker must not take it for one that it has kept already."""


def _is_open(dead: Table) -> ColumnElement[bool]:
    return dead.c.replayed_at.is_(None)


def _id(given: str) -> str:
    """As the database writes it."""
    try:
        return str(UUID(given))
    except ValueError:
        raise ValidationError(f"{given!r} is no id of a message") from None


def _not_there(message_id: str) -> NotFoundError:
    return NotFoundError(f"there is no dead letter {message_id}")


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
