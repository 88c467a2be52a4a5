"""One order in one form of the saga, and what goes wrong with one step of it: the same words for both forms."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from enum import StrEnum
from itertools import count
from typing import Any

from backend.messages.orders import SagaStyle
from backend.order_service.app.entities import Order
from backend.product_service.app.entities import MAX_STOCK_COUNT
from backend.product_service.app.repositories import ProductRepository
from backend.shared import UnitOfWork
from backend.shared.events.saga import SagaState
from tests.support.order_post import Letter
from tests.support.order_world import OrderWorld

CREDIT, STOCK, ORDERED = "100", 10, 3
MOST_DEADLINES = 12
_NUMBERS = count(1)


class Step(StrEnum):
    """What is done for an order, and undone."""

    AUTHORISE = "authorise"
    RESERVE = "reserve"
    CAPTURE = "capture"
    CONFIRM = "confirm"
    CLOSE_CART = "close the cart"
    REFUND = "refund"
    RELEASE = "release"
    VOID = "void"
    CANCEL = "cancel"
    OPEN_CART = "open the cart"

    @property
    def undoes(self) -> bool:
        """Whether it is there to undo another."""
        return self in (Step.REFUND, Step.RELEASE, Step.VOID, Step.CANCEL, Step.OPEN_CART)


class Failure(StrEnum):
    """What goes wrong with a step."""

    REFUSED = "refused"
    """Declined, out of stock; of a compensation: for good, until somebody mends it."""
    UNANSWERED = "nobody answers until the deadline"
    """However often it is asked for; what was asked arrives in the end."""
    LOST = "the answer is lost"
    """Each of them."""
    TWICE = "comes twice, and again in the end"
    LATE = "comes after what undoes it"
    """Of a compensation: after it was asked for again."""
    KILLED_BEFORE = "killed before its commit"
    KILLED_AFTER = "killed after its commit"
    """Before it could acknowledge the message."""


DOES: dict[Step, dict[SagaStyle, tuple[str, str]]] = {
    step: {SagaStyle.CHOREOGRAPHED: (consumer, event), SagaStyle.ORCHESTRATED: (consumer, command)}
    for step, consumer, event, command in (
        (Step.AUTHORISE, "payment", "OrderPlaced", "AuthorisePayment"),
        (Step.RESERVE, "product", "PaymentAuthorised", "ReserveStock"),
        (Step.CAPTURE, "payment", "StockReserved", "CapturePayment"),
        (Step.CONFIRM, "order", "PaymentCaptured", "PaymentCaptured"),
        (Step.CLOSE_CART, "cart", "OrderPlaced", "OrderPlaced"),
        (Step.REFUND, "payment", "OrderCancelRequested", "RefundPayment"),
        (Step.RELEASE, "product", "PaymentRefunded", "ReleaseStock"),
        (Step.VOID, "payment", "StockReleased", "VoidPayment"),
        (Step.CANCEL, "order", "PaymentVoided", "PaymentVoided"),
        (Step.OPEN_CART, "cart", "OrderCancelled", "OrderCancelled"),
    )
}
"""Which message, to whom, has a step done."""
_ANSWER = {
    Step.AUTHORISE: "PaymentAuthorised",
    Step.RESERVE: "StockReserved",
    Step.CAPTURE: "PaymentCaptured",
    Step.REFUND: "PaymentRefunded",
    Step.RELEASE: "StockReleased",
    Step.VOID: "PaymentVoided",
}
ANSWERED = tuple(_ANSWER)


@dataclass(frozen=True, kw_only=True)
class End:
    """What is left of an order: the same in both forms."""

    status: str
    saga: str
    reviewed: bool
    """Somebody had to look at it."""
    stock: int
    credit: str
    held: str
    cart: str


class Play:
    """One order, of a customer and a product of its own."""

    def __init__(self, world: OrderWorld, *, style: SagaStyle) -> None:
        self.world, self.style, self.user = world, style, f"play-{next(_NUMBERS)}"
        self.order: Order
        self.product = 0

    async def run(self, step: Step, failure: Failure) -> End:
        """An order of which one step goes wrong, to its end; whatever was to be looked at was mended and tried again."""
        await self._place()
        if failure is Failure.REFUSED:
            await self._refused(step)
        elif failure is Failure.UNANSWERED:
            await self._unanswered(step)
        elif failure is Failure.LOST:
            await self._answer_lost(step)
        elif failure is Failure.LATE:
            await self._late(step)
        else:
            await self._stumbling(step, failure)
        return await self._end()

    async def state(self) -> SagaState:
        return (await self.world.saga(self.order)).saga.state

    async def _place(self) -> None:
        world = self.world
        self.product = (await world.stocked(**{self.user: STOCK}))[self.user]
        await world.credit(CREDIT, self.user)
        self.order = await world.place((self.product, ORDERED), user=self.user, style=self.style)
        await world.post.collect()

    async def _refused(self, step: Step) -> None:
        mend: Callable[[], Coroutine[Any, Any, None]] = self.world.forget_faults
        if step is Step.RESERVE:
            await self._on_shelves(ORDERED - 1)
            await self.world.post.bring_all()
            await self._on_shelves(STOCK)
        elif step is Step.RELEASE:
            await self.world.post.bring_all()
            await self._on_shelves(MAX_STOCK_COUNT)  # there is no room for more

            async def mend() -> None:
                await self._on_shelves(STOCK - ORDERED)

            await self._begin_undoing(step)
        else:
            await self.world.fault(step.value, "decline")
            await self._begin_undoing(step)
        await self.world.post.bring_all()
        await self._settle(mend)

    async def _unanswered(self, step: Step) -> None:
        self.world.post.held = {DOES[step][self.style]}
        await self._until_given_up(step)
        assert self.world.post.waiting, "it was asked for"
        self.world.post.held = set()
        await self.world.post.bring_all()
        await self._settle()

    async def _answer_lost(self, step: Step) -> None:
        """To everybody who would go on because of it."""
        self.world.post.lost = {(name, _ANSWER[step]) for name in self.world.post.consumers}
        await self._until_given_up(step)
        self.world.post.lost = set()
        await self.world.late()
        await self.world.post.bring_all()
        await self._settle()

    async def _until_given_up(self, step: Step) -> None:
        """Deadlines go by, until the saga turns round, or somebody has to look; a step that nobody waits for is just late."""
        await self._begin_undoing(step)
        await self.world.post.bring_all()
        before = await self.state()
        for _ in range(MOST_DEADLINES):
            if before.is_final or await self.state() is not before:
                break
            await self.world.late()
            await self.world.post.bring_all()

    async def _late(self, step: Step) -> None:
        """The customer changes her mind, and all of that is heard before; a compensation is asked for again by the deadline."""
        held = {DOES[step][self.style]}
        if step is Step.AUTHORISE:
            held.add(("product", "OrderPlaced"))
        self.world.post.held = held
        await self._begin_undoing(step)
        await self.world.post.bring_all()
        if not step.undoes:
            await self.world.cancel(self.order)
            await self.world.post.bring_all()
        first = list(self.world.post.waiting)
        assert first, "it was asked for"
        await self.world.late()
        self.world.post.held = set()
        # What was asked for first comes last.
        self.world.post.waiting = [item for item in self.world.post.waiting if item not in first] + first
        await self.world.post.bring_all()
        await self._settle()

    async def _stumbling(self, step: Step, failure: Failure) -> None:
        await self._begin_undoing(step)
        target, post, met = DOES[step][self.style], self.world.post, 0
        twice: list[Letter] = []
        while (number := post.next()) is not None:
            letter = post.waiting[number]
            if (letter.consumer, letter.kind) == target and not met:
                met += 1
                twice.append(letter)
                if failure is Failure.KILLED_BEFORE:
                    self.world.dies = 1
                    await post.bring(number)
                    assert self.world.dies == 0, "it was killed"
                    continue
                await post.bring(number, again=True)
                continue
            await post.bring(number)
        assert met == 1, f"{target} never came"
        if failure is Failure.TWICE:
            await post.bring_old(twice)
            assert post.waiting == [], "what was known already was told again"

    async def _begin_undoing(self, step: Step) -> None:
        """So that the compensation has something to undo: what was set aside, or what was captured."""
        if not step.undoes:
            return
        if step is Step.VOID:
            await self.world.fault("capture", "decline")
            return
        held, self.world.post.held = self.world.post.held, set()
        lost, self.world.post.lost = self.world.post.lost, set()
        await self.world.post.bring_all()
        self.world.post.held, self.world.post.lost = held, lost
        await self.world.cancel(self.order)
        await self.world.post.collect()

    async def _settle(self, mend: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """Whatever has to be looked at is tried again, once what was in its way is gone."""
        for _ in range(MOST_DEADLINES):
            if await self.state() is SagaState.NEEDS_REVIEW:
                if mend is not None:
                    await mend()
                await self.world.retry(self.order)
            await self.world.post.bring_all()
            if (await self.state()).is_final:
                return
            await self.world.late()

    async def _on_shelves(self, count: int) -> None:
        async def unit(work: UnitOfWork) -> None:
            await ProductRepository(work).set_quantity(self.product, count)

        await self.world.product.run_unit("stock", unit)

    async def _end(self) -> End:
        credit, held = await self.world.account(self.user)
        history = (await self.world.saga(self.order)).history
        return End(
            status=(await self.world.now(self.order)).status.value,
            saga=(await self.state()).value,
            reviewed=any(entry["state"] == SagaState.NEEDS_REVIEW for entry in history),
            stock=(await self.world.stock_of([self.product]))[self.product],
            credit=str(credit),
            held=str(held),
            cart=await self.world.cart_status(self.order.cart_id),
        )
