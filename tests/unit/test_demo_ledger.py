from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from backend.demo.ledger import UNKNOWN, Effect, Ledger, Lost, Row, Write, same
from backend.shared.domain.phases import Side

ITEM = Row(service="cart", entity="cart_item", shape=Side.NEW, columns=("id",), values=(7,))
OTHER = Row(service="cart", entity="cart_item", shape=Side.NEW, columns=("id",), values=(8,))


def write(
    start: float,
    end: float | None,
    fields: Mapping[str, Any] | None = None,
    *,
    row: Row = ITEM,
    deleted: bool = False,
) -> Write:
    return Write(
        source="customers",
        operation="change_quantity",
        started_at=start,
        acknowledged_at=end,
        effects=(Effect(row=row, fields=fields or {}, deleted=deleted),),
    )


def ledger_of(*writes: Write) -> Ledger:
    ledger = Ledger()
    for one in writes:
        ledger.note(one)
    return ledger


def lost(ledger: Ledger, found: Mapping[str, Any] | None) -> list[Lost]:
    return ledger.compare({ITEM: found}, side=Side.NEW)


def test_a_planted_loss_is_found() -> None:
    ledger = ledger_of(write(1, 2, {"quantity": 3}), write(3, 4, {"quantity": 5}))

    (loss,) = lost(ledger, {"id": 7, "quantity": 3})

    assert loss.column == "quantity"
    assert loss.write.acknowledged_at == 4
    assert loss.side is Side.NEW
    assert lost(ledger, {"id": 7, "quantity": 5}) == []


def test_a_missing_row_is_a_loss_and_so_is_one_that_came_back() -> None:
    assert "missing" in lost(ledger_of(write(1, 2, {"quantity": 3})), None)[0].reason
    gone = ledger_of(write(1, 2, {"quantity": 3}), write(3, 4, deleted=True))
    assert "deleted" in lost(gone, {"id": 7, "quantity": 3})[0].reason
    assert lost(gone, None) == []


def test_a_row_that_was_not_looked_for_counts_as_missing() -> None:
    assert ledger_of(write(1, 2, {"quantity": 3})).compare({}, side=Side.LEGACY)


def test_of_two_at_once_either_may_be_the_last() -> None:
    ledger = ledger_of(write(1, 4, {"quantity": 3}), write(2, 3, {"quantity": 5}))

    assert lost(ledger, {"quantity": 3}) == []
    assert lost(ledger, {"quantity": 5}) == []
    assert lost(ledger, {"quantity": 4})


def test_one_that_ended_before_another_began_is_not_the_last_in_whatever_order_they_are_noted() -> None:
    early, late = write(1, 2, {"quantity": 3}), write(2, 3, {"quantity": 5})
    for ledger in (ledger_of(early, late), ledger_of(late, early)):
        assert lost(ledger, {"quantity": 3})
        assert lost(ledger, {"quantity": 5}) == []


def test_a_write_in_doubt_may_have_happened_or_not() -> None:
    ledger = ledger_of(write(1, 2, {"quantity": 3}), write(3, None, {"quantity": 5}))

    assert lost(ledger, {"quantity": 3}) == []
    assert lost(ledger, {"quantity": 5}) == []
    assert lost(ledger, {"quantity": 4})
    assert (ledger.acknowledged_count, ledger.in_doubt_count) == (1, 1)


def test_a_deletion_in_doubt() -> None:
    ledger = ledger_of(write(1, 2, {"quantity": 3}), write(3, None, deleted=True))
    assert lost(ledger, None) == []
    assert lost(ledger, {"quantity": 3}) == []
    assert lost(ledger, {"quantity": 4})


def test_a_doubt_of_unknown_value_allows_any_but_not_that_the_row_is_gone() -> None:
    ledger = ledger_of(write(1, 2, {"quantity": 3}), write(3, None, {"quantity": UNKNOWN}))
    assert lost(ledger, {"quantity": 99}) == []
    assert lost(ledger, None)


def test_doubts_alone_prove_nothing() -> None:
    ledger = ledger_of(write(1, None, {"quantity": 3}))
    assert lost(ledger, None) == []
    assert lost(ledger, {"quantity": 99}) == []


def test_a_later_write_of_another_field_does_not_hide_a_loss() -> None:
    ledger = ledger_of(write(1, 2, {"quantity": 3}), write(3, 4, {"unit_price": "1.50"}))
    (loss,) = lost(ledger, {"quantity": 4, "unit_price": Decimal("1.50")})
    assert loss.column == "quantity"


def test_columns_that_a_side_does_not_have_are_not_compared() -> None:
    assert lost(ledger_of(write(1, 2, {"credit_cents": 3})), {"id": 7}) == []


def test_one_write_that_is_lost_in_two_rows_is_one_write() -> None:
    both = Write(
        source="old program",
        operation="swap_stock_codes",
        started_at=1,
        acknowledged_at=2,
        effects=(Effect(row=ITEM, fields={"a": 1}), Effect(row=OTHER, fields={"a": 2})),
    )
    found = ledger_of(both).compare({ITEM: {"a": 2}, OTHER: {"a": 1}}, side=Side.LEGACY)
    assert {id(loss.write) for loss in found} == {id(both)}
    assert len(found) == 2


def test_the_last_effect_of_one_write_on_a_field_holds() -> None:
    twice = Write(
        source="old program",
        operation="x",
        started_at=1,
        acknowledged_at=1,
        effects=(Effect(row=ITEM, fields={"a": 1}), Effect(row=ITEM, fields={"a": 2})),
    )
    assert lost(ledger_of(twice), {"a": 1})
    assert lost(ledger_of(twice), {"a": 2}) == []


def test_what_is_told_of_a_loss_holds_no_value() -> None:
    (loss,) = lost(ledger_of(write(1, 2, {"city": "Secretville"})), {"city": "Elsewhere"})
    assert "Secretville" not in str(loss.to_dict())
    assert "Elsewhere" not in str(loss.to_dict())


@pytest.mark.parametrize(
    ("expected", "found", "is_same"),
    [
        ("12.50", Decimal("12.5"), True),
        ("12.50", Decimal("12.51"), False),
        ("teapot", Decimal(1), False),
        (1, True, False),
        (True, True, True),
        (0, False, False),
        ("1", 1, False),
        (None, None, True),
        ("", None, False),
        ("a", "A", False),
    ],
)
def test_values_compare_as_what_they_are(expected: object, found: object, *, is_same: bool) -> None:
    assert same(expected, found) is is_same
