"""What goes over the wire, apart from what the service thinks in."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.json_schema import SkipJsonSchema

from .domain.ids import ID_PATTERN
from .domain.people import Assignment, Label, Team, User, WatchList
from .domain.tasks import (
    MAX_CHECKLIST,
    ChecklistItem,
    NewTask,
    Task,
    TaskChanges,
    TaskPriority,
    TaskSource,
    TaskStatus,
)
from .fields import Color, Email, Hours, Id, LabelIds, LongText, Moment, Name, Priority, Status, Title
from .unknown_fields import Body

_NEVER_NULL = frozenset({"title", "status", "priority", "label_ids", "checklist"})


class Step(Body):
    """A step of a task."""

    text: Title
    done: bool = False


class Source(Body):
    """Where a task came from: another program, and its name there."""

    app: Name | None = None
    ticket: Name | None = None


class TaskCreate(Body):
    """A task to create."""

    title: Title
    created_by: Id
    description: LongText | None = None
    status: Status = TaskStatus.TODO
    priority: Priority = TaskPriority.MEDIUM
    due_at: Moment | None = None
    estimate_hours: Hours | None = None
    source: Source | None = None
    label_ids: LabelIds = Field(default=[], description="A label that is named twice counts once.")
    checklist: list[Step] = Field(default=[], max_length=MAX_CHECKLIST)

    def to_entity(self) -> NewTask:
        return NewTask(**_values({name: getattr(self, name) for name in type(self).model_fields}))


def _partial(schema: dict[str, Any]) -> None:
    """The schema of a change: what is left out stays, so no default, and nothing at all is no change."""
    schema["minProperties"] = 1
    for field in schema["properties"].values():
        field.pop("default", None)


class TaskPatch(Body):
    """What to change of a task; `null` takes a value away. Labels and steps are replaced as a whole."""

    model_config = ConfigDict(json_schema_extra=_partial)

    title: Title | SkipJsonSchema[None] = None
    description: LongText | None = None
    status: Status | SkipJsonSchema[None] = None
    priority: Priority | SkipJsonSchema[None] = None
    due_at: Moment | None = None
    estimate_hours: Hours | None = None
    source: Source | None = None
    label_ids: LabelIds | SkipJsonSchema[None] = None
    checklist: list[Step] | SkipJsonSchema[None] = Field(default=None, max_length=MAX_CHECKLIST)

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        if isinstance(data, dict):
            for name in sorted(_NEVER_NULL & data.keys()):
                if data[name] is None:
                    raise ValueError(f"{name} must not be null")
        return data

    @model_validator(mode="after")
    def _changes_something(self) -> TaskPatch:
        if not self.model_fields_set:
            raise ValueError("name at least one thing to change")
        return self

    def to_entity(self) -> TaskChanges:
        return TaskChanges(**_values({name: getattr(self, name) for name in self.model_fields_set}))


def _values(given: dict[str, Any]) -> dict[str, Any]:
    """Values as the domain has them."""
    values = dict(given)
    if values.get("source") is not None:
        values["source"] = TaskSource(**dict(values["source"]))
    if "label_ids" in values:
        values["label_ids"] = tuple(values["label_ids"])
    if "checklist" in values:
        values["checklist"] = tuple(ChecklistItem(**dict(step)) for step in values["checklist"])
    return values


class StepOut(BaseModel):
    """A step of a task."""

    text: str
    done: bool


class SourceOut(BaseModel):
    """Where a task came from."""

    app: str | None
    ticket: str | None


class TaskOut(BaseModel):
    """A task."""

    id: str = Field(pattern=ID_PATTERN)
    title: str
    description: str | None
    status: TaskStatus
    priority: TaskPriority
    created_by: str
    due_at: datetime | None
    estimate_hours: str | None = Field(description="A decimal number.", examples=["1.5"])
    source: SourceOut | None
    label_ids: list[str]
    checklist: list[StepOut]
    created_at: datetime
    updated_at: datetime
    completed_at: datetime | None = Field(description="When it was done.")

    @classmethod
    def of(cls, task: Task) -> TaskOut:
        return cls(
            **vars(task)
            | {
                "estimate_hours": None if task.estimate_hours is None else f"{task.estimate_hours:f}",
                "source": None if task.source is None else SourceOut(**vars(task.source)),
                "label_ids": list(task.label_ids),
                "checklist": [StepOut(**vars(step)) for step in task.checklist],
            }
        )


class UserCreate(Body):
    """A user to make known."""

    email: Email
    name: Name | None = None
    google_id: Name | None = None


class UserOut(BaseModel):
    """A user."""

    id: str = Field(pattern=ID_PATTERN)
    email: str
    name: str | None

    @classmethod
    def of(cls, user: User) -> UserOut:
        return cls(id=user.id, email=user.email, name=user.name)


class TeamCreate(Body):
    """A team to make."""

    name: Name
    created_by: Id


class TeamOut(BaseModel):
    """A team."""

    id: str = Field(pattern=ID_PATTERN)
    name: str
    invite_code: str = Field(description="Whoever has it may join.")
    created_by: str

    @classmethod
    def of(cls, team: Team) -> TeamOut:
        return cls(**vars(team))


class LabelCreate(Body):
    """A label to make."""

    name: Name
    color: Color | None = None


class LabelOut(BaseModel):
    """A label."""

    id: str = Field(pattern=ID_PATTERN)
    name: str
    color: str | None

    @classmethod
    def of(cls, label: Label) -> LabelOut:
        return cls(**vars(label))


class AssignmentOut(BaseModel):
    """A task is a user's to do."""

    id: str = Field(pattern=ID_PATTERN)
    task_id: str
    user_id: str

    @classmethod
    def of(cls, assignment: Assignment) -> AssignmentOut:
        return cls(**vars(assignment))


class WatchListCreate(Body):
    """A watch list to make."""

    name: Name
    user_id: Id


class WatchListOut(BaseModel):
    """A list that a user watches."""

    id: str = Field(pattern=ID_PATTERN)
    name: str
    user_id: str

    @classmethod
    def of(cls, made: WatchList) -> WatchListOut:
        return cls(**vars(made))
