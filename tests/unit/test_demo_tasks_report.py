"""What the report of the task service's demo says, and its verdict."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from bson import ObjectId
from rich.console import Console

from backend.demo.shop import HttpTally
from backend.demo.tasks.misfits import Listing
from backend.demo.tasks.report import TasksReport, closing_table, misfit_table
from backend.legacy_documents import DocumentLoadReport, Misfit, MisfitKind
from backend.shared.domain.phases import Phase
from backend.shared.validation.report import ValidationReport

MISFIT = Misfit(
    collection="tasks", id=ObjectId("5f5e10000000000000000001"), kind=MisfitKind.NULL, field="title"
)
LOAD = DocumentLoadReport(
    seed=1,
    documents={"users": 60, "tasks": 100},
    shapes={"field_missing": 7},
    misfits=(MISFIT,),
    left_out=frozenset(),
    duration_seconds=0.5,
)
NAME = ("tasks", str(MISFIT.id))


def report(**changes: Any) -> TasksReport:
    return replace(
        TasksReport(
            load=LOAD,
            misfits=Listing.of([MISFIT], {NAME: "title: null, but needed"}),
            seed=1,
            traffic_seconds=5.0,
            duration_seconds=20.0,
            writes_by_source={"people": 9, "operator": 1},
            writes_acknowledged=10,
            writes_in_doubt=0,
            lost=(),
            checked_reads=4,
            wrong_answer_count=0,
            wrong_answers=(),
            http=HttpTally(),
            faults=(),
            backfill={"complete": True, "rows_copied": 160, "seconds": 2.0, "killed": None},
            relay_max_lag_seconds=0.2,
            relay_lag_by_service={"task": 0.2},
            drained=True,
            drain_seconds=0.1,
            failures_open=0,
            validation=ValidationReport(entities=()),
            phase_changes=(),
            phases={"task": Phase.COMPLETE},
            stuck={},
            gates_forced=(),
            legacy_written=(),
            conflicts_open=0,
        ),
        **changes,
    )


def shown(*tables: Any) -> str:
    console = Console(width=200, record=True, file=None, quiet=False, force_terminal=False)
    with console.capture() as captured:
        for table in tables:
            console.print(table)
    return captured.get()


def test_all_is_well() -> None:
    found = report()
    assert found.exit_code == 0
    told = json.loads(json.dumps(found.to_dict()))
    assert told["ok"]
    assert told["complaints"] == []
    assert told["documents_loaded"] == told["rows_loaded"] == 160
    assert told["misfits"]["expected"] == told["misfits"]["listed"] == 1
    text = shown(closing_table(found), misfit_table(found.misfits))
    assert "160" in text
    assert "null" in text


def test_a_misfit_that_is_not_listed_is_a_complaint() -> None:
    found = report(misfits=Listing.of([MISFIT], {}))
    assert found.exit_code == 1
    assert found.complaints == ["1 documents that fit no table were not listed"]


def test_a_document_that_is_listed_by_mistake_is_a_complaint() -> None:
    found = report(misfits=Listing.of([], {NAME: "title: odd"}))
    assert found.complaints == ["1 documents were listed that should fit"]


def test_a_service_that_did_not_arrive_is_a_complaint() -> None:
    found = report(phases={"task": Phase.LIVE}, stuck={"task": "a gate was shut"})
    assert found.complaints == ["task is live in the end, not complete: a gate was shut"]
