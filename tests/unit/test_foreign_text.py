"""What others have written stands in tables as it is written: as no markup, and with nothing cut that is needed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
import typer

from backend.messages.orders import SagaStyle
from backend.order_service.app import commands as sagas
from backend.order_service.app.entities import OrderSaga
from backend.shared import Direction, Phase, Side
from backend.shared.cli import conflicts, events, failures, phase
from backend.shared.cli.foreign_text import foreign
from backend.shared.cli.validation_output import print_kept
from backend.shared.events.dead_letters import DeadLetter
from backend.shared.events.envelope import Envelope
from backend.shared.events.saga import Saga
from backend.shared.observability.admin_views import (
    ChangedFieldView,
    ConflictView,
    FailureView,
    PhaseHistoryView,
)
from backend.shared.observability.labels import RunKind
from backend.shared.validation.run_records import Circumstances, KeptRun

NOW = datetime(2026, 1, 2, tzinfo=UTC)
WRITTEN = "a [type=x] [/b] \x1b[31m"
SHOWN = "a [type=x] [/b] \\x1b[31m"
NUMBER = uuid4()
LETTER = DeadLetter(
    consumer="cart",
    message_id=str(NUMBER),
    envelope=Envelope(
        id=NUMBER,
        subject="s",
        type=WRITTEN,
        version=1,
        aggregate_type="thing",
        aggregate_id=WRITTEN,
        correlation_id="c",
        data={},
    ),
    is_stand_in=True,
    reason=WRITTEN,
    attempts=1,
    failed_at=NOW,
)
FAILURE = FailureView(
    id=1,
    service="cart",
    entity="cart",
    key=WRITTEN,
    direction="legacy_to_new",
    state="open",
    attempts=1,
    error=WRITTEN,
    first_failed_at=NOW,
    last_failed_at=NOW,
)
CONFLICT = ConflictView(
    id="cart-legacy-1",
    service="cart",
    side=Side.LEGACY,
    entity="cart",
    key=WRITTEN,
    operation="update",
    table="carts",
    fields=(ChangedFieldView(field="name", before=WRITTEN, after="-"),),
    written_at=NOW,
    written_by=WRITTEN,
    application=None,
    detail=WRITTEN,
)
CHANGE = PhaseHistoryView(
    service="cart",
    changed_at=NOW,
    from_phase=Phase.DUALWRITE,
    to_phase=Phase.SHADOW,
    epoch=1,
    changed_by=WRITTEN,
    reason=WRITTEN,
    forced=(),
    outcome="done",
    stall_ms=None,
)
SAGA = OrderSaga(
    order_id=1,
    style=SagaStyle.CHOREOGRAPHED,
    saga=Saga(participant=WRITTEN, reason=WRITTEN),
    history=(),
    trace={},
    started_at=NOW,
    updated_at=NOW,
)
RUN = KeptRun(
    id=1,
    kind=RunKind.FULL,
    share=1.0,
    seed=1,
    state="finished",
    verdict=None,
    circumstances=Circumstances(direction=Direction.TO_NEW, epoch=1, capture=""),
    background=False,
    run_by=WRITTEN,
    token="t",
    times_resumed=0,
    started_at=NOW,
    read_at=NOW,
    finished_at=None,
    chosen=("cart",),
    entities={},
)


def _answers(found: object) -> Callable[..., Any]:
    async def answer(*_: object, **__: object) -> list[object]:
        return [found]

    return answer


def _shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int, call: Any
) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(events, "_dead", _answers(LETTER))
    monkeypatch.setattr(failures, "_failures", _answers(FAILURE))
    monkeypatch.setattr(conflicts, "_conflicts", _answers(CONFLICT))
    monkeypatch.setattr(phase, "_history", _answers(CHANGE))
    monkeypatch.setattr(sagas, "_list", _answers(SAGA))
    with suppress(typer.Exit):
        call()
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("call", "times"),
    [
        pytest.param(lambda: events.dead("cart"), 3, id="dead letters"),
        pytest.param(lambda: failures.failures("cart"), 2, id="failures"),
        pytest.param(lambda: conflicts.conflicts("cart", values=True), 4, id="conflicts"),
        pytest.param(lambda: phase.history("cart"), 2, id="history"),
        pytest.param(sagas.list_sagas, 2, id="sagas"),
        pytest.param(lambda: print_kept("cart", [RUN], [], more=False), 1, id="runs"),
    ],
)
def test_it_is_shown_as_it_is_written(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], call: Any, times: int
) -> None:
    shown = _shown(monkeypatch, capsys, 300, call)
    assert shown.count(SHOWN) == times
    assert "\x1b" not in shown


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_the_id_of_a_dead_letter_is_whole(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int
) -> None:
    assert str(NUMBER) in _shown(monkeypatch, capsys, columns, lambda: events.dead("cart"))


def test_lines_stay_lines() -> None:
    assert foreign("one\ntwo\r\ud800é").plain == "one\ntwo\\r\\ud800é"
