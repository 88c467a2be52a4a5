"""How each kind of thing stands in the tables of `app.models`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Generic, TypeVar

from ...domain.people import (
    Assignment,
    Label,
    Team,
    User,
    WatchList,
)
from ...domain.tasks import ChecklistItem, Task, TaskPriority, TaskSource, TaskStatus
from ...domain.values import moment, plain

Item = TypeVar("Item")
Row = Mapping[str, Any]
Rows = Sequence[Row]

KEY = "mongo_id"
POSITION = "position"


@dataclass(frozen=True, kw_only=True)
class Items(Generic[Item]):
    """The rows of an array of a thing, by rising position. They are replaced as a whole.

    `rows` gets the rows that are there, so that it can take over what the domain does not know of them.
    """

    table: str
    owner: str
    columns: tuple[str, ...]
    rows: Callable[[Item, Rows], list[dict[str, Any]]]


@dataclass(frozen=True, kw_only=True)
class Shape(Generic[Item]):
    """One kind of thing: its root table, the arrays that hang on it, and what its filters look at.

    `columns` are those that the domain knows, the key first; no other is read or written. `equal` and `within` say for each
    name of a filter which column of the root, or which table and column of the arrays, has to have the value.
    """

    table: str
    columns: tuple[str, ...]
    to_row: Callable[[Item], dict[str, Any]]
    of_rows: Callable[[Row, Mapping[str, Rows]], Item]
    items: tuple[Items[Item], ...] = ()
    equal: Mapping[str, str] = field(default_factory=dict)
    within: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def _task_row(task: Task) -> dict[str, Any]:
    source = task.source or TaskSource()
    return {
        KEY: task.id,
        "title": task.title,
        "description": task.description,
        "status": task.status.value,
        "priority": task.priority.value,
        "created_by": task.created_by,
        "due_at": task.due_at,
        "estimate_hours": task.estimate_hours,
        "source_app": source.app,
        "source_ticket": source.ticket,
        "completed_at": task.completed_at,
        "created_at": task.created_at,
        "updated_at": task.updated_at,
    }


def _task_of(row: Row, items: Mapping[str, Rows]) -> Task:
    source = TaskSource(app=row["source_app"], ticket=row["source_ticket"])
    return Task(
        id=row[KEY],
        title=row["title"],
        description=row["description"],
        status=TaskStatus(row["status"]),
        priority=TaskPriority(row["priority"]),
        created_by=row["created_by"],
        due_at=row["due_at"] and moment(row["due_at"]),
        estimate_hours=_number(row["estimate_hours"]),
        source=None if source == TaskSource() else source,
        label_ids=tuple(label["label_id"] for label in items["task_labels"]),
        checklist=tuple(
            ChecklistItem(text=step["text"], done=bool(step["done"])) for step in items["task_checklist"]
        ),
        created_at=moment(row["created_at"]),
        updated_at=moment(row["updated_at"]),
        completed_at=row["completed_at"] and moment(row["completed_at"]),
    )


def _number(value: Decimal | None) -> Decimal | None:
    return None if value is None else plain(value)


def _label_rows(task: Task, _there: Rows) -> list[dict[str, Any]]:
    return [{"label_id": label_id} for label_id in task.label_ids]


def _checklist_rows(task: Task, there: Rows) -> list[dict[str, Any]]:
    """A step with the words of one that was there takes over what else was known of that one."""
    left = list(there)
    rows: list[dict[str, Any]] = []
    for step in task.checklist:
        old = next((row for row in left if row["text"] == step.text), None)
        if old is not None:
            left.remove(old)
        same = old is not None and bool(old["done"]) == step.done
        rows.append(
            {
                "text": step.text,
                "done": old["done"] if old is not None and same else step.done,
                "extra": old["extra"] if old is not None else {},
            }
        )
    return rows


TASK: Shape[Task] = Shape(
    table="tasks",
    columns=(
        *(KEY, "title", "description", "status", "priority", "created_by", "due_at", "estimate_hours"),
        *("source_app", "source_ticket", "completed_at", "created_at", "updated_at"),
    ),
    to_row=_task_row,
    of_rows=_task_of,
    items=(
        Items(table="task_labels", owner="task_id", columns=("label_id",), rows=_label_rows),
        Items(
            table="task_checklist", owner="task_id", columns=("text", "done", "extra"), rows=_checklist_rows
        ),
    ),
    equal={"status": "status", "priority": "priority", "created_by": "created_by"},
    within={"label_id": ("task_labels", "label_id")},
)

TEAM: Shape[Team] = Shape(
    table="teams",
    columns=(KEY, "name", "invite_code", "created_by"),
    to_row=lambda team: {
        KEY: team.id,
        "name": team.name,
        "invite_code": team.invite_code,
        "created_by": team.created_by,
    },
    of_rows=lambda row, _items: Team(
        id=row[KEY], name=row["name"], invite_code=row["invite_code"], created_by=row["created_by"]
    ),
    equal={"created_by": "created_by"},
)

LABEL: Shape[Label] = Shape(
    table="labels",
    columns=(KEY, "name", "color"),
    to_row=lambda label: {KEY: label.id, "name": label.name, "color": label.color},
    of_rows=lambda row, _items: Label(id=row[KEY], name=row["name"], color=row["color"]),
    equal={"name": "name"},
)

ASSIGNMENT: Shape[Assignment] = Shape(
    table="task_assignments",
    columns=(KEY, "task_id", "user_id"),
    to_row=lambda made: {KEY: made.id, "task_id": made.task_id, "user_id": made.user_id},
    of_rows=lambda row, _items: Assignment(id=row[KEY], task_id=row["task_id"], user_id=row["user_id"]),
    equal={"task_id": "task_id", "user_id": "user_id"},
)

WATCH_LIST: Shape[WatchList] = Shape(
    table="watchlists",
    columns=(KEY, "name", "user_id"),
    to_row=lambda made: {KEY: made.id, "name": made.name, "user_id": made.user_id},
    of_rows=lambda row, _items: WatchList(id=row[KEY], name=row["name"], user_id=row["user_id"]),
    equal={"user_id": "user_id"},
)

USER: Shape[User] = Shape(
    table="users",
    columns=(KEY, "google_id", "email_id", "name"),
    to_row=lambda user: {
        KEY: user.id,
        "google_id": user.google_id,
        "email_id": user.email,
        "name": user.name,
    },
    of_rows=lambda row, _items: User(
        id=row[KEY], google_id=row["google_id"], email=row["email_id"], name=row["name"]
    ),
    equal={"email": "email_id"},
)
