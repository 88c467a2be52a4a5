from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.legacy_shop import LoadError, LoadReport, ShopSize
from backend.legacy_shop.generated_dirt import GeneratedDirt
from backend.legacy_shop.old_writes import Operation
from backend.legacy_shop.retail_dirt import Dirt, Rejected
from backend.shared.domain.errors import TandemError

DOCUMENT = Path(__file__).parents[2] / "docs" / "legacy-shop.md"


def report(*, lines_read: int, lines_loaded: int, rejected: int, rows: int) -> LoadReport:
    return LoadReport(
        source="a file",
        seed=1,
        rows={"cart_lines": rows},
        rejected={"no_invoice": rejected},
        lines_read=lines_read,
        lines_loaded=lines_loaded,
        duration_seconds=0.5,
    )


def test_a_report_tells_where_every_line_went() -> None:
    told = report(lines_read=10, lines_loaded=9, rejected=1, rows=9).to_dict()
    assert json.loads(json.dumps(told)) == told
    assert (told["lines_read"], told["lines_loaded"], told["lines_rejected"]) == (10, 9, 1)


def test_a_vanished_line_is_an_error() -> None:
    with pytest.raises(LoadError, match="10 lines were read, but 8 loaded and 1 rejected"):
        report(lines_read=10, lines_loaded=8, rejected=1, rows=8)


def test_a_line_that_reached_no_table_is_an_error() -> None:
    with pytest.raises(LoadError, match="9 lines should be in cart_lines, but 8 are"):
        report(lines_read=9, lines_loaded=9, rejected=0, rows=8)


def test_a_load_error_is_one_of_the_house() -> None:
    assert issubclass(LoadError, TandemError)


@pytest.mark.parametrize("name", [*Dirt, *Rejected, *GeneratedDirt, *Operation])
def test_every_count_and_operation_is_documented(name: str) -> None:
    assert f"`{name}`" in DOCUMENT.read_text(encoding="utf-8")


def test_sizes_go_with_the_number_of_lines() -> None:
    assert ShopSize.of_lines(20_000) == ShopSize()
    assert ShopSize.of_lines(40_000).users == 4_000
    assert ShopSize.of_lines(1).products == 1


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"users": -1}, "-1 users"),
        ({"carts": 0}, "at least one cart"),
        ({"products": 0, "wishes": 0}, "at least one cart and one product"),
        ({"users": 1, "products": 3, "wishes": 4}, "cannot wish for 4 of 3"),
    ],
)
def test_a_size_that_no_shop_can_have_is_refused(wrong: dict[str, int], said: str) -> None:
    with pytest.raises(LoadError, match=said):
        ShopSize(**wrong)
