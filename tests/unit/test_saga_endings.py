"""A saga that ends is noted for the unit of work that is committed, not for one that was run before it."""

from __future__ import annotations

from backend.messages.orders import SagaStyle
from backend.order_service.app.services.saga_endings import Ended, note_ended, noting
from backend.shared.events.saga import SagaState

ONE = Ended(style=SagaStyle.ORCHESTRATED, state=SagaState.COMPLETED, seconds=1.0)


def test_a_unit_that_is_run_again_is_counted_once() -> None:
    noted: list[Ended] = []
    for _ in range(2):
        with noting(noted):
            note_ended(ONE)
    assert noted == [ONE]


def test_what_nobody_counts_is_let_go() -> None:
    noted: list[Ended] = []
    with noting(noted):
        pass
    note_ended(ONE)
    assert noted == []
