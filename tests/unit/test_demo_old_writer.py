from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from backend.demo.ledger import Ledger, Row
from backend.demo.old_writer import SOURCE, OldWriter, entities_by_table
from backend.legacy_shop.old_writes import OldWrite, Operation
from backend.shared.domain.phases import Side

SERVICES = ("auth", "product", "cart")


def line(transaction: int, seconds: float, table: str = "prod", key: int = 1, **values: Any) -> str:
    return OldWrite(
        operation=Operation.CHANGE_PRICE,
        transaction=transaction,
        table=table,
        key=key,
        values=values,
        deleted=False,
        acknowledged_at=datetime.fromtimestamp(seconds, UTC),
    ).to_json()


def writer(folder: Path, ledger: Ledger) -> OldWriter:
    return OldWriter(
        ledger, services=SERVICES, env=dict(os.environ), folder=folder, seed=1, writes_per_second=1
    )


def test_every_legacy_table_is_the_root_of_one_entity() -> None:
    assert entities_by_table(SERVICES) == {
        "users": ("auth", "user"),
        "cat": ("product", "category"),
        "prod": ("product", "product"),
        "carts": ("cart", "cart"),
        "cart_lines": ("cart", "cart_item"),
        "wish": ("cart", "wish_item"),
    }


def test_a_transaction_is_noted_when_the_next_one_has_begun_and_half_a_line_is_left_for_later(
    tmp_path: Path,
) -> None:
    ledger = Ledger()
    old = writer(tmp_path, ledger)
    log = tmp_path / "old-program.log"

    log.write_text(line(1, 10.0, price_cents=5) + "\n" + line(1, 10.0, key=2, price_cents=6) + "\n")
    old.read()
    assert ledger.acknowledged_count == 0

    third = line(2, 11.0, price_cents=7) + "\n"
    with log.open("a") as file:
        file.write(third[:20])
        file.flush()
        old.read()
        assert ledger.acknowledged_count == 0
        file.write(third[20:])
    old.read()

    assert ledger.by_source == {SOURCE: 1}
    assert {row.values for row in ledger.rows} == {(1,), (2,)}
    assert {row.shape for row in ledger.rows} == {Side.LEGACY}


async def test_each_transaction_replaces_the_one_before(tmp_path: Path) -> None:
    ledger = Ledger()
    old = writer(tmp_path, ledger)
    (tmp_path / "old-program.log").write_text(
        "\n".join([line(1, 10.0, price_cents=5), line(2, 11.0, price_cents=7), line(3, 12.0, key=9)]) + "\n"
    )
    old.read()

    row = Row(service="product", entity="product", shape=Side.LEGACY, columns=("prod_no",), values=(1,))
    assert ledger.compare({row: {"price_cents": 7}}, side=Side.LEGACY) == []
    assert ledger.compare({row: {"price_cents": 5}}, side=Side.LEGACY)


def test_the_summary_is_kept(tmp_path: Path) -> None:
    old = writer(tmp_path, Ledger())
    (tmp_path / "old-program.log").write_text(json.dumps({"in_doubt": [], "reconnects": 2}) + "\nnoise\n")
    old.read()
    assert old.summary["reconnects"] == 2
