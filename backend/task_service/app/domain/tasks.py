"""A task and its rules."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from backend.shared import ConflictError

from .ids import new_id
from .values import moment, plain

MAX_TITLE = 200
MAX_LABELS = 50
MAX_CHECKLIST = 100


class TaskStatus(StrEnum):
    """Where a task stands."""

    TODO = "todo"
    IN_PROGRESS = "in_progress"
    DONE = "done"
    CANCELLED = "cancelled"

    @property
    def is_open(self) -> bool:
        """Whether there is still something to do."""
        return self in (TaskStatus.TODO, TaskStatus.IN_PROGRESS)


class TaskPriority(StrEnum):
    """How soon it should be done."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    URGENT = "urgent"


class Keep:
    """Stands for a value that stays as it is."""

    def __repr__(self) -> str:
        return "KEEP"


KEEP: Final = Keep()


@dataclass(frozen=True, kw_only=True)
class ChecklistItem:
    """A step of a task."""

    text: str
    done: bool = False


@dataclass(frozen=True, kw_only=True)
class TaskSource:
    """Where a task came from: another program, and its name there."""

    app: str | None = None
    ticket: str | None = None


@dataclass(frozen=True, kw_only=True)
class NewTask:
    """What it takes to create a task."""

    title: str
    created_by: str
    description: str | None = None
    status: TaskStatus = TaskStatus.TODO
    priority: TaskPriority = TaskPriority.MEDIUM
    due_at: datetime | None = None
    estimate_hours: Decimal | None = None
    source: TaskSource | None = None
    label_ids: tuple[str, ...] = ()
    checklist: tuple[ChecklistItem, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TaskChanges:
    """A change of a task; what is `KEEP` stays."""

    title: str | Keep = KEEP
    description: str | Keep | None = KEEP
    status: TaskStatus | Keep = KEEP
    priority: TaskPriority | Keep = KEEP
    due_at: datetime | Keep | None = KEEP
    estimate_hours: Decimal | Keep | None = KEEP
    source: TaskSource | Keep | None = KEEP
    label_ids: tuple[str, ...] | Keep = KEEP
    checklist: tuple[ChecklistItem, ...] | Keep = KEEP

    def named(self) -> dict[str, Any]:
        """The values to change, by field name."""
        return {name: value for name, value in vars(self).items() if not isinstance(value, Keep)}


@dataclass(frozen=True, kw_only=True)
class Task:
    """A task. Times are in UTC and in whole milliseconds.

    `completed_at` is set by what completes it and taken away by what opens it again; history may have it otherwise. History
    may also bear a label twice.
    """

    id: str
    title: str
    description: str | None
    status: TaskStatus
    priority: TaskPriority
    created_by: str
    due_at: datetime | None
    estimate_hours: Decimal | None
    source: TaskSource | None
    label_ids: tuple[str, ...]
    checklist: tuple[ChecklistItem, ...]
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None

    @classmethod
    def create(cls, new: NewTask, *, at: datetime) -> Task:
        """A task that there was not before."""
        return cls(
            id=new_id(),
            created_at=at,
            updated_at=at,
            completed_at=at if new.status is TaskStatus.DONE else None,
            **_tidy(vars(new)),
        )

    def changed(self, changes: TaskChanges, *, at: datetime) -> Task:
        """The task after `changes`; itself where nothing differs.

        Raises ConflictError where a closed task is to be changed otherwise than by opening it: what was agreed stays on
        record.
        """
        after = replace(self, **_tidy(changes.named()))
        if after == self:
            return self
        if not self.status.is_open and not after.status.is_open:
            raise ConflictError(f"task {self.id} is {self.status.value}: open it before you change it")
        done = after.status is TaskStatus.DONE
        return replace(after, updated_at=at, completed_at=(self.completed_at or at) if done else None)

    def completed(self, *, at: datetime) -> Task:
        """The task, done. May be repeated. Raises ConflictError for a cancelled one."""
        return self.changed(TaskChanges(status=TaskStatus.DONE), at=at)


@dataclass(frozen=True, kw_only=True)
class TaskFilter:
    """Which tasks to list; None: whatever it is."""

    status: TaskStatus | None = None
    priority: TaskPriority | None = None
    created_by: str | None = None
    label_id: str | None = None


def _tidy(values: dict[str, Any]) -> dict[str, Any]:
    """Values as every store holds them, and each label once."""
    tidied = dict(values)
    if tidied.get("estimate_hours") is not None:
        tidied["estimate_hours"] = plain(tidied["estimate_hours"])
    if tidied.get("source") == TaskSource():
        tidied["source"] = None
    if tidied.get("due_at") is not None:
        tidied["due_at"] = moment(tidied["due_at"])
    if "label_ids" in tidied:
        tidied["label_ids"] = tuple(dict.fromkeys(tidied["label_ids"]))
    return tidied
