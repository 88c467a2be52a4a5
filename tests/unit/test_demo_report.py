from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from backend.demo.fault_log import Fault, FaultKind
from backend.demo.ledger import Lost, Row, Write
from backend.demo.phase_walk import PhaseChange, Step
from backend.demo.report import DemoReport, closing_table, dirt_table
from backend.demo.run_report import phase_table
from backend.demo.shop import HttpTally
from backend.legacy_shop.report import LoadReport
from backend.shared.domain.phases import Phase, Side
from backend.shared.validation.report import EntityReport, ValidationReport

LOAD = LoadReport(
    source="generated",
    seed=1,
    rows={"carts": 2, "cart_lines": 3},
    dirt={"lines_zero_price": 1, "lines_blank": 0},
    lines_read=3,
    lines_loaded=3,
    duration_seconds=0.1,
)


def entity(**changes: Any) -> EntityReport:
    return replace(
        EntityReport(
            service="cart",
            entity="cart",
            rows_legacy=2,
            rows_new=2,
            missing_in_new=0,
            missing_in_legacy=0,
            different=0,
            moving=0,
            duration_seconds=0.1,
            mismatches=(),
        ),
        **changes,
    )


def change(*, requests_failed: int = 0) -> PhaseChange:
    step = Step(
        service="cart",
        origin=Phase.SHADOW,
        to=Phase.LIVE,
        epoch=2,
        began=10.0,
        ended=12.0,
        stall_ms=84.26,
        gates={"lag": "now 0.1 s"},
        forced=(),
        refused=1,
    )
    return PhaseChange(
        step=step, at=7.0, requests=30, requests_failed=requests_failed, longest_request_ms=131.0
    )


def report(**changes: Any) -> DemoReport:
    return replace(
        DemoReport(
            load=LOAD,
            seed=1,
            traffic_seconds=5.0,
            duration_seconds=20.0,
            writes_by_source={"customers": 9, "old program": 3},
            writes_acknowledged=12,
            writes_in_doubt=1,
            lost=(),
            checked_reads=4,
            wrong_answer_count=0,
            wrong_answers=(),
            http=HttpTally(),
            faults=(Fault(kind=FaultKind.RELAY_KILLED, at=1.0, lasted_seconds=2.0, detail="kill -9"),),
            backfill={"rows_copied": 9, "seconds": 1.0, "complete": True, "killed": None},
            relay_max_lag_seconds=1.5,
            relay_lag_by_service={"cart": 1.5},
            drained=True,
            drain_seconds=0.2,
            failures_open=0,
            validation=ValidationReport(entities=(entity(),)),
            old_program={},
            phase_changes=(change(),),
            phases={"cart": Phase.COMPLETE},
            stuck={},
            gates_forced=(),
            legacy_written=(),
            conflicts_open=0,
        ),
        **changes,
    )


def a_loss() -> Lost:
    write = Write(source="x", operation="y", started_at=1, acknowledged_at=2, effects=())
    row = Row(service="cart", entity="cart", shape=Side.NEW, columns=("id",), values=(1,))
    return Lost(write=write, side=Side.NEW, row=row, column=None, reason="the row is missing")


def excused() -> HttpTally:
    tally = HttpTally()
    tally.server_errors["503 during a fault"] += 2
    return tally


def unexcused() -> HttpTally:
    tally = HttpTally()
    tally.server_errors["500 during a fault"] += 1
    return tally


def test_a_run_that_held() -> None:
    assert report().exit_code == 0
    assert report(http=excused()).exit_code == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"lost": (a_loss(),)},
        {"validation": ValidationReport(entities=(entity(different=1),))},
        {"validation": ValidationReport(entities=(entity(missing_in_new=1),))},
        {"validation": ValidationReport(entities=(entity(moving=1),))},
        {"failures_open": 1},
        {"drained": False},
        {"backfill": {"rows_copied": 9, "seconds": 1.0, "complete": False, "killed": None}},
        {"wrong_answer_count": 1},
        {"http": unexcused()},
        {"writes_acknowledged": 0},
        {"phase_changes": (change(requests_failed=1),)},
        {"phases": {"cart": Phase.RAMPDOWN}},
        {"gates_forced": ("cart: lag",)},
        {"legacy_written": ("carts",)},
        {"conflicts_open": 1},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_whatever_did_not_hold_is_named_and_is_exit_code_1(changes: dict[str, Any]) -> None:
    found = report(**changes)
    assert found.exit_code == 1
    assert len(found.complaints) == 1
    assert found.to_dict()["ok"] is False


def test_the_file_holds_what_others_rely_on(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    report(http=excused()).write(path)
    found = json.loads(path.read_text())

    assert found["writes_acknowledged"] == 12
    assert (found["writes_lost"], found["mismatches"], found["http_5xx"]) == (0, 0, 2)
    assert found["http"]["server_errors"] == {"503 during a fault": 2}
    assert found["relay_max_lag_seconds"] == 1.5
    assert found["faults"] == [
        {"kind": "relay_killed", "at": 1.0, "lasted_seconds": 2.0, "detail": "kill -9"}
    ]
    assert found["phase_changes"] == [
        {
            "service": "cart",
            "from": "shadow",
            "to": "live",
            "stall_ms": 84.3,
            "requests_failed": 0,
            "requests": 30,
            "longest_request_ms": 131.0,
            "epoch": 2,
            "at": 7.0,
            "took_seconds": 2.0,
            "refused_before": 1,
            "gates": {"lag": "now 0.1 s"},
            "forced": [],
        }
    ]
    assert found["phases"] == {"cart": "complete"}
    assert (found["rows_loaded"], found["duration_seconds"]) == (5, 20.0)
    assert found["load"]["dirt"]["lines_zero_price"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_the_tables_show_figures_and_losses() -> None:
    console = Console(width=120, record=True, quiet=False, force_terminal=False)
    with console.capture() as shown:
        console.print(closing_table(report(lost=(a_loss(),))))
        console.print(phase_table(report(phase_changes=(change(requests_failed=3),))))
        console.print(dirt_table(LOAD))
    text = shown.get()
    assert "writes lost" in text
    assert "3 of 3 cart lines" in text
    assert "shadow → live" in text
    assert "131 ms" in text
    assert "lines zero price" in text
    assert "lines blank" not in text


def test_why_a_service_is_not_complete_is_said() -> None:
    found = report(phases={"cart": Phase.RAMPDOWN}, stuck={"cart": "validation: cart_item is different"})
    assert found.complaints == [
        "cart is rampdown in the end, not complete: validation: cart_item is different"
    ]
