"""The task service's demo itself, small: it must see what is wrong, and leave nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from backend.shared.testing.programs import STATE_VARIABLE
from tests.support.demos import left_over_processes, wait_for
from tests.support.planted_demos import run_planted

SIZE = 2500
WAY = [
    ("off", "dualwrite"),
    ("dualwrite", "shadow"),
    ("shadow", "live"),
    ("live", "shadow"),
    ("shadow", "live"),
    ("live", "rampdown"),
]


@pytest.fixture
def state(worker_directory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of our own for whatever the demo keeps."""
    folder = worker_directory / "demo-tasks-state"
    monkeypatch.setenv(STATE_VARIABLE, str(folder))
    return folder


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_is_planted_is_seen_named_and_exit_code_1(state: Path, tmp_path: Path) -> None:
    report_path, logs, output = tmp_path / "report.json", tmp_path / "logs", tmp_path / "output"

    exit_code = run_planted("tasks", size=SIZE, report=report_path, logs=logs, output=output)

    assert exit_code == 1, output.read_text()
    report = json.loads(report_path.read_text())
    assert report["mismatches"] == 2
    assert report["writes_lost"] == 1
    (loss,) = report["lost"]
    assert (loss["side"], loss["reason"]) == ("legacy", "the row is missing")
    assert loss["row"].startswith("watchlists mongo_id=")
    entities = report["validation"]["entities"]
    differing = {item["entity"] for item in entities if item["verdict"] == "different"}
    assert differing == {"watchlists", "teams"}
    # And but for what was planted, all of it held.
    assert len(report["complaints"]) == 2 + (report["phases"]["task"] != "complete"), report["complaints"]
    assert report["misfits"]["listed"] == report["misfits"]["expected"] > 50
    assert report["misfits"]["unexpected"] == []
    assert [fault["kind"] for fault in report["faults"]] == [
        *("relay_killed", "documents_killed", "service_killed"),
        *("cluster_killed", "relay_killed"),
    ]
    assert set(report["writes_by_source"]) == {"people", "clerks", "operator"}
    assert report["documents_loaded"] >= SIZE
    steps = [(change["from"], change["to"]) for change in report["phase_changes"]]
    assert steps[: len(WAY)] == WAY
    for name in ("task.log", "task-2.log", "operator.log"):
        assert (logs / name).exists()
    assert list((state / "demo-tasks").glob("*")) == []
    assert left_over_processes(state) == []


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("moment", ["loading ten collections", "moving history"])
def test_ctrl_c_leaves_nothing(state: Path, tmp_path: Path, moment: str) -> None:
    report = tmp_path / "report.json"
    with (tmp_path / "output").open("w") as output:
        demo = subprocess.Popen(
            [
                *(sys.executable, "-m", "backend.shared.cli.main", "demo-tasks"),
                *("--size", str(SIZE), "--json", str(report)),
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
    assert list((state / "demo-tasks").glob("*")) == []
    assert not report.exists()
    assert "Traceback" not in (tmp_path / "output").read_text()
