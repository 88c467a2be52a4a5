"""A message that comes twice has its effect once: its id is kept in the transaction of the effect."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.dialects.postgresql import insert

from backend.shared.unit_of_work import UnitOfWork

from .tables import EventRoom


class Inbox:
    """The messages that one consumer has taken in."""

    def __init__(self, room: EventRoom, *, consumer: str) -> None:
        self._room = room
        self._consumer = consumer

    async def take_in(self, work: UnitOfWork, message_id: UUID) -> bool:
        """Note a message in the transaction of `work`; False if its effect is there already.

        Whoever takes in the same one at the same time waits for this transaction to end.
        """
        inbox = self._room.tables[work.side].inbox
        found = await work.session.execute(
            insert(inbox)
            .values(consumer=self._consumer, message_id=str(message_id))
            .on_conflict_do_nothing()
            .returning(inbox.c.message_id)
        )
        return found.first() is not None
