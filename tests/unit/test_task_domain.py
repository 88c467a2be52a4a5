"""The rules of tasks, apart from any store."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from bson import ObjectId
from hypothesis import given
from hypothesis import strategies as st

from backend.shared import ConflictError
from backend.task_service.app.domain.ids import is_id, new_id
from backend.task_service.app.domain.people import Team
from backend.task_service.app.domain.tasks import KEEP, NewTask, Task, TaskChanges, TaskSource, TaskStatus
from backend.task_service.app.domain.values import moment, now, plain

AT = datetime(2026, 1, 1, tzinfo=UTC)
LATER = AT + timedelta(hours=1)
CLOSED = (TaskStatus.DONE, TaskStatus.CANCELLED)


def task(status: TaskStatus = TaskStatus.TODO) -> Task:
    return Task.create(NewTask(title="Sweep", created_by=new_id(), status=status), at=AT)


def test_ids_are_object_ids_that_rise() -> None:
    ids = [new_id() for _ in range(1000)]
    assert ids == sorted(set(ids))
    assert all(str(ObjectId(text)) == text and is_id(text) for text in ids)
    assert abs(ObjectId(ids[0]).generation_time - datetime.now(UTC)) < timedelta(seconds=5)
    assert not any(map(is_id, ("", "0" * 23, "0" * 25, "A" * 24, "0" * 24 + "\n", "g" * 24)))


def test_invite_codes_differ_and_can_be_read_out() -> None:
    codes = {Team.create(name="x", created_by=new_id()).invite_code for _ in range(100)}
    assert len(codes) == 100
    assert not set("".join(codes)) & set("IO01")


@pytest.mark.parametrize("before", TaskStatus)
@pytest.mark.parametrize("after", TaskStatus)
def test_which_status_may_follow_which(before: TaskStatus, after: TaskStatus) -> None:
    there = task(before)
    change = TaskChanges(status=after)
    if before is after:
        assert there.changed(change, at=LATER) is there
    elif before in CLOSED and after in CLOSED:
        with pytest.raises(ConflictError):
            there.changed(change, at=LATER)
    else:
        found = there.changed(change, at=LATER)
        assert (found.status, found.updated_at) == (after, LATER)
        assert found.completed_at == (LATER if after is TaskStatus.DONE else None)


def test_completing_may_be_repeated_and_keeps_the_first_time() -> None:
    done = task().completed(at=LATER)
    assert done.completed(at=LATER + timedelta(days=1)) is done
    assert task(TaskStatus.DONE).completed_at == AT


@pytest.mark.parametrize("status", CLOSED)
def test_a_closed_task_is_changed_only_by_opening_it(status: TaskStatus) -> None:
    there = task(status)
    with pytest.raises(ConflictError):
        there.changed(TaskChanges(title="Mop"), at=LATER)
    assert there.changed(TaskChanges(title=there.title), at=LATER) is there
    assert there.changed(TaskChanges(title="Mop", status=TaskStatus.TODO), at=LATER).title == "Mop"


def test_a_change_names_what_it_names() -> None:
    assert TaskChanges().named() == {}
    assert TaskChanges(description=None, label_ids=()).named() == {"description": None, "label_ids": ()}
    assert repr(KEEP) == "KEEP"


def test_values_are_kept_as_every_store_has_them() -> None:
    new = NewTask(
        title="x",
        created_by=new_id(),
        due_at=datetime(2026, 1, 1, 2, 0, 0, 123999, tzinfo=timezone(timedelta(hours=2))),
        estimate_hours=Decimal("100.500"),
        source=TaskSource(),
        label_ids=("b", "a", "b"),
    )
    made = Task.create(new, at=AT)
    assert made.due_at == datetime(2026, 1, 1, 0, 0, 0, 123000, tzinfo=UTC)
    assert (str(made.estimate_hours), made.source, made.label_ids) == ("100.5", None, ("b", "a"))
    assert now().microsecond % 1000 == 0


@given(st.decimals(allow_nan=False, allow_infinity=False, places=3, min_value=-(10**9), max_value=10**9))
def test_a_number_without_zeros_at_its_end_is_the_same_number(number: Decimal) -> None:
    assert plain(number) == number
    assert not ("." in str(plain(number)) and str(plain(number)).endswith("0"))
    assert "E" not in str(plain(Decimal("1E+3")))


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.timezones()))  # noqa: DTZ001 - Hypothesis asks for such
def test_a_moment_is_at_most_a_millisecond_off(value: datetime) -> None:
    assert timedelta(0) <= value - moment(value) < timedelta(milliseconds=1)
    assert moment(moment(value)) == moment(value)
