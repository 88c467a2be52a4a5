"""The demo itself, small: it must see what is wrong, and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from backend.shared.testing.programs import STATE_VARIABLE
from tests.support.demos import left_over_processes, wait_for
from tests.support.planted_demos import run_planted

SIZE = 300
SERVICES = ("auth", "product", "cart")
WAY = [
    *((service, "off", "dualwrite") for service in SERVICES),
    *((service, "dualwrite", "shadow") for service in SERVICES),
    *((service, "shadow", "live") for service in SERVICES),
    ("cart", "live", "shadow"),
    ("cart", "shadow", "live"),
    *((service, "live", "rampdown") for service in SERVICES),
    *((service, "rampdown", "complete") for service in SERVICES if service != "cart"),
]


@pytest.fixture
def state(worker_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of our own for whatever the demo keeps."""
    folder = worker_directory / "demo-state"
    monkeypatch.setenv(STATE_VARIABLE, str(folder))
    return folder


def demo_folders(state: Path) -> Sequence[Path]:
    return list((state / "demo").glob("*"))


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_is_planted_is_seen_named_and_exit_code_1(state: Path, tmp_path: Path) -> None:
    report_path, logs, output = tmp_path / "report.json", tmp_path / "logs", tmp_path / "output"

    exit_code = run_planted("shop", size=SIZE, report=report_path, logs=logs, output=output)

    assert exit_code == 1, output.read_text()
    report = json.loads(report_path.read_text())
    assert report["mismatches"] == 2
    assert report["writes_lost"] == 1
    assert [(loss["side"], loss["reason"]) for loss in report["lost"]] == [("legacy", "the row is missing")]
    assert report["conflicts_open"] >= 2
    assert report["legacy_written_after_complete"] == ["prod"]
    # No gate lets it go on like that.
    assert report["phases"] == {"auth": "complete", "product": "complete", "cart": "rampdown"}
    # And but for what was planted, all of it held.
    assert len(report["complaints"]) == 5, report["complaints"]
    assert {fault["kind"] for fault in report["faults"]} == {
        "relay_killed",
        "service_killed",
        "cluster_stopped",
    }
    assert set(report["writes_by_source"]) == {"customers", "staff", "old program"}
    assert report["relay_max_lag_seconds"] > 1
    steps = [(change["service"], change["from"], change["to"]) for change in report["phase_changes"]]
    assert steps == WAY
    assert {change["requests_failed"] for change in report["phase_changes"]} == {0}
    moves = [
        change for change in report["phase_changes"] if {change["from"], change["to"]} == {"shadow", "live"}
    ]
    assert len(moves) == 5
    assert all(change["stall_ms"] > 0 for change in moves)
    for name in ("cart.log", "cart-2.log", "operator.log"):
        assert (logs / name).exists()
    assert demo_folders(state) == []
    assert left_over_processes(state) == []


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("moment", ["starting two PostgreSQL servers", "migrating", "acknowledged: "])
def test_ctrl_c_leaves_nothing(state: Path, tmp_path: Path, moment: str) -> None:
    report = tmp_path / "report.json"
    with (tmp_path / "output").open("w") as output:
        demo = subprocess.Popen(
            [
                *(sys.executable, "-m", "backend.shared.cli.main", "demo"),
                *("--size", str(SIZE), "--seconds", "60", "--json", str(report)),
            ],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    wait_for(lambda: moment in (tmp_path / "output").read_text() or demo.poll() is not None, seconds=90)
    time.sleep(0.5)  # somewhere inside of it

    for _ in range(3):  # whoever presses it once presses it again
        os.killpg(demo.pid, signal.SIGINT)  # as a terminal does: to everybody in the foreground
        time.sleep(0.2)

    assert demo.wait(timeout=60) == 130, (tmp_path / "output").read_text()
    wait_for(lambda: not left_over_processes(state), seconds=5)
    assert left_over_processes(state) == []
    assert demo_folders(state) == []
    assert not report.exists()
    assert "Traceback" not in (tmp_path / "output").read_text()


@pytest.mark.parametrize("path", ["none/report.json", "."])
def test_a_report_that_cannot_be_written_is_told_before_anything_starts(tmp_path: Path, path: str) -> None:
    told = subprocess.run(
        [sys.executable, "-m", "backend.shared.cli.main", "demo", "--json", str(tmp_path / path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert told.returncode == 2
    assert told.stderr.startswith("tandem: --json: ")
    assert told.stderr.count("\n") == 1
