"""What is done for the stock of one order. Each method is part of one unit of work, which tells of it.

A reservation goes one way: new, reserved, used; and back: released. Whoever asks twice, or too late, is told what there is; whoever
asks for it to be undone before it was done has it stopped, so that it will not be done later.
"""

from __future__ import annotations

from collections.abc import Mapping

from backend.messages.orders import Failure, Participant, SagaStyle
from backend.messages.stock import StockRejected, StockReleased, StockReleaseFailed, StockReserved
from backend.shared import ConflictError, NotFoundError, UnitOfWork
from backend.shared.events.envelope import Message
from backend.shared.events.outbox import Outbox

from ..entities import MAX_STOCK_COUNT, Reservation, ReservationState
from ..repositories import ProductRepository
from ..reservations import ReservationRepository


class _MissingError(Exception):
    """Something that was ordered cannot be had."""


class StockDesk:
    """Reservations for orders; what becomes of them is told through `outbox`."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    async def note(
        self, work: UnitOfWork, *, order_id: int, style: SagaStyle, pieces: Mapping[int, int]
    ) -> None:
        """Learn what an order is of. Takes it, if somebody has said already that it may be taken."""
        reservations = ReservationRepository(work)
        found = await reservations.hold_or_make(order_id, style=style)
        if found.pieces is None:
            found = await reservations.change(found, pieces=pieces)
        if found.may_begin:
            await self.reserve(work, order_id=order_id, style=style)

    async def reserve(
        self, work: UnitOfWork, *, order_id: int, style: SagaStyle, pieces: Mapping[int, int] | None = None
    ) -> None:
        """Take all of it, or nothing; as soon as somebody says what it is of, if nobody has yet."""
        reservations = ReservationRepository(work)
        found = await reservations.hold_or_make(order_id, style=style)
        if pieces is not None and found.pieces is None:
            found = await reservations.change(found, pieces=pieces)
        if found.state is ReservationState.NEW and not found.is_stopped:
            if found.pieces is None:
                await reservations.change(found, may_begin=True)
                return
            found = await self._take(work, found, found.pieces)
        if found.state is ReservationState.REJECTED:
            failure = Failure(participant=Participant.PRODUCT, reason=found.reason or "rejected")
            await self._tell(work, StockRejected(order_id=order_id, style=style, failure=failure))
        elif found.state is ReservationState.RESERVED:
            await self._tell(work, StockReserved(order_id=order_id, style=style))

    async def _take(self, work: UnitOfWork, found: Reservation, pieces: Mapping[int, int]) -> Reservation:
        state, reason = ReservationState.RESERVED, None
        try:
            async with work.savepoint():
                await self._adjust(work, {number: -count for number, count in pieces.items()})
        except _MissingError as error:
            state, reason = ReservationState.REJECTED, str(error)
        return await ReservationRepository(work).change(found, state=state, reason=reason)

    async def _adjust(self, work: UnitOfWork, deltas: Mapping[int, int]) -> None:
        """Raises `_MissingError` where something cannot be had. In the order of the ids, so that no two orders wait for each other."""
        products = ProductRepository(work)
        for number in sorted(deltas):
            product = await products.hold(number)
            delta = deltas[number]
            if product is None or (delta < 0 and not product.is_active):
                raise _MissingError(f"product {number} is not sold any more")
            after = product.quantity + delta
            if delta < 0 and after < 0:
                raise _MissingError(f"there are only {product.quantity} of product {number}")
            if after > MAX_STOCK_COUNT:
                raise _MissingError(f"the shelves hold no more of product {number}")
            await products.set_quantity(number, after)

    async def release(
        self,
        work: UnitOfWork,
        *,
        order_id: int,
        style: SagaStyle,
        failure: Failure | None,
        by_hand: bool = False,
    ) -> None:
        """Put back what was taken, if it was; from now on nothing is taken.

        `by_hand`: what became of the goods is somebody else's affair, who counts the shelves too; here it is noted.
        """
        reservations = ReservationRepository(work)
        found = await reservations.hold_or_make(order_id, style=style)
        count = sum((found.pieces or {}).values())
        if by_hand and found.state in (ReservationState.USED, ReservationState.RESERVED):
            found = await reservations.change(
                found, state=ReservationState.RELEASED, is_stopped=True, is_by_hand=True
            )
            count = 0
        elif found.state is ReservationState.USED:
            await self._cannot(work, found, "it has left the house", failure)
            return
        elif found.state is ReservationState.RESERVED:
            try:
                async with work.savepoint():
                    await self._adjust(work, found.pieces or {})
            except _MissingError as error:
                await self._cannot(work, found, str(error), failure)
                return
            await reservations.change(found, state=ReservationState.RELEASED, is_stopped=True)
        elif found.state is not ReservationState.RELEASED:
            await reservations.change(found, is_stopped=True)
            count = 0
        await self._tell(
            work,
            StockReleased(
                order_id=order_id, style=style, pieces=count, failure=failure, by_hand=found.is_by_hand
            ),
        )

    async def use(self, work: UnitOfWork, order_id: int) -> Reservation:
        """The goods leave the house. Raises NotFoundError where nothing was reserved, ConflictError where it is no more."""
        reservations = ReservationRepository(work)
        row = await work.get("reservation", (order_id,))
        if row is None:
            raise NotFoundError(f"nothing is reserved for order {order_id}")
        found = await reservations.hold_or_make(order_id, style=SagaStyle(row["style"]))
        if found.state not in (ReservationState.RESERVED, ReservationState.USED):
            raise ConflictError(f"what order {order_id} asked for is {found.state.value}, not reserved")
        return await reservations.change(found, state=ReservationState.USED)

    async def _cannot(
        self, work: UnitOfWork, found: Reservation, reason: str, failure: Failure | None
    ) -> None:
        trouble = Failure(participant=Participant.PRODUCT, reason=reason)
        await self._tell(
            work,
            StockReleaseFailed(order_id=found.order_id, style=found.style, failure=failure, trouble=trouble),
        )

    async def _tell(self, work: UnitOfWork, message: Message) -> None:
        await self._outbox.record(work, message)
