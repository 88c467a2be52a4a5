"""The demo of orders itself, small: it must see what is wrong, and leave nothing behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from backend.shared.testing.programs import STATE_VARIABLE
from tests.support.demos import left_over_processes
from tests.support.planted_demos import run_planted

SIZE = 6000
ORDERS = 60


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_is_planted_is_seen_named_and_exit_code_1(
    worker_directory: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    state = worker_directory / "demo-orders-state"
    monkeypatch.setenv(STATE_VARIABLE, str(state))
    report_path, logs, output = tmp_path / "report.json", tmp_path / "logs", tmp_path / "output"

    exit_code = run_planted("orders", size=SIZE, report=report_path, logs=logs, output=output)

    assert exit_code == 1, output.read_text()
    report = json.loads(report_path.read_text())
    assert (report["unfinished_sagas"], report["invariants_broken"]) == (1, 2), report["complaints"]
    assert any("money" in line for line in report["broken"])
    assert any("the stock of 1 products" in line for line in report["broken"])
    # And but for what was planted, all of it held.
    assert len(report["complaints"]) == 3, report["complaints"]
    assert report["orders"] == ORDERS == sum(report["final_states"].values())
    assert [fault["kind"] for fault in report["faults"]] == [
        *("service_killed", "service_killed", "broker_killed"),
        *("service_killed", "service_killed", "broker_killed", "relay_killed"),
    ]
    assert [(change["from"], change["to"]) for change in report["phase_changes"]] == [
        ("dualwrite", "shadow"),
        ("shadow", "live"),
    ]
    for name in ("order.log", "payment.log", "operator.log"):
        assert (logs / name).exists()
    assert list((state / "demo-orders").glob("*")) == []
    assert left_over_processes(state) == []
