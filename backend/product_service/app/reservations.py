"""SQL of what is reserved for orders, written against the shape of the service's own tables, whichever side a unit runs on."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from backend.messages.orders import OrderLine, SagaStyle
from backend.shared import Repository

from .entities import Reservation, ReservationState
from .legacy import RESERVATION


class ReservationRepository(Repository[Reservation]):
    """Reservations, one an order, by its id."""

    entity = RESERVATION

    async def hold_or_make(self, order_id: int, *, style: SagaStyle) -> Reservation:
        """The reservation of an order, made if there is none, held until the unit ends."""
        await self._work.hold_name(f"product_service.reservation:{order_id}")
        found = await self.hold(order_id)
        if found is None:
            await self._insert(
                order_id=order_id,
                style=style.value,
                state=ReservationState.NEW.value,
                may_begin=False,
                is_stopped=False,
                is_by_hand=False,
                updated_at=datetime.now(UTC),
            )
            found = await self.get(order_id)
        if found is None:
            raise AssertionError("it was written just now")
        return found

    async def change(self, held: Reservation, **values: Any) -> Reservation:
        """Give a reservation that is held other values; answers it as it is then."""
        changed = replace(held, **values)
        if "pieces" in values:
            values["lines"] = _stored(values.pop("pieces"))
        await self._change(held.order_id, **values, updated_at=datetime.now(UTC))
        return changed

    def _object(self, row: dict[str, Any]) -> Reservation:
        lines = json.loads(row["lines"]) if isinstance(row["lines"], str) else row["lines"]
        return Reservation(
            order_id=row["order_id"],
            style=SagaStyle(row["style"]),
            state=ReservationState(row["state"]),
            pieces=None if lines is None else {line["product_id"]: line["quantity"] for line in lines},
            may_begin=row["may_begin"],
            is_stopped=row["is_stopped"],
            is_by_hand=row["is_by_hand"],
            reason=row["reason"],
        )


def pieces_of(lines: Iterable[OrderLine]) -> dict[int, int]:
    """Pieces by product: the same product may stand on several lines."""
    found: Counter[int] = Counter()
    for line in lines:
        found[line.product_id] += line.quantity
    return dict(found)


def _stored(pieces: Mapping[int, int]) -> list[dict[str, int]]:
    """Pieces as they are kept."""
    return [{"product_id": number, "quantity": pieces[number]} for number in sorted(pieces)]
