"""The documents as Pydantic models, for the API: ids are texts of 24 digits, `_id` is called `id` in Python.

A test holds them against the validators of `schemas`, which say the same to the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from functools import cache, reduce
from inspect import isclass
from operator import or_
from types import UnionType, new_class
from typing import Annotated, Any, Literal, TypeAlias, Union, get_args, get_origin

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from ..core.document_rules import UnknownFields

ObjectIdText = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{24}$")]
ColorText = Annotated[str, StringConstraints(pattern=r"^#[0-9A-Fa-f]{6}$")]
Status: TypeAlias = Literal["todo", "in_progress", "done", "cancelled"]
Priority: TypeAlias = Literal["low", "medium", "high", "urgent"]


class Part(BaseModel):
    """An object inside of a document."""

    model_config = ConfigDict(populate_by_name=True)


class AnyDocument(Part):
    """What all documents have."""

    id: ObjectIdText = Field(alias="_id")


class UserDocument(AnyDocument):
    google_id: str | None = None
    email_id: str
    name: str | None = None


class RoleDocument(AnyDocument):
    name: str
    permissions: list[str] | None = None


class LabelDocument(AnyDocument):
    name: str
    color: ColorText | None = None


class TeamDocument(AnyDocument):
    name: str
    invite_code: str
    created_by: ObjectIdText


class TaskSource(Part):
    app: str | None = None
    ticket: str | None = None


class ChecklistItem(Part):
    text: str
    done: bool | None = None


class TaskDocument(AnyDocument):
    title: str
    description: str | None = None
    status: Status
    priority: Priority
    created_by: ObjectIdText
    due_at: AwareDatetime | None = None
    estimate_hours: Decimal | None = Field(default=None, allow_inf_nan=True)
    source: TaskSource | None = None
    completed_at: AwareDatetime | None = None
    created_at: AwareDatetime
    updated_at: AwareDatetime
    labels: list[ObjectIdText] | None = None
    checklist: list[ChecklistItem] | None = None


class TaskAssignmentDocument(AnyDocument):
    task_id: ObjectIdText
    user_id: ObjectIdText


class WatchlistDocument(AnyDocument):
    name: str
    user_id: ObjectIdText


class UserTeamDetailDocument(AnyDocument):
    user_id: ObjectIdText
    team_id: ObjectIdText


class UserRoleDocument(AnyDocument):
    user_id: ObjectIdText
    role_id: ObjectIdText


class AuditLogDocument(AnyDocument):
    action: str
    collection: str
    document: dict[str, Any] | None = None
    created_at: AwareDatetime


DOCUMENTS: Mapping[str, type[AnyDocument]] = {
    "users": UserDocument,
    "roles": RoleDocument,
    "labels": LabelDocument,
    "teams": TeamDocument,
    "tasks": TaskDocument,
    "task_assignments": TaskAssignmentDocument,
    "watchlists": WatchlistDocument,
    "user_team_details": UserTeamDetailDocument,
    "user_roles": UserRoleDocument,
    "audit_logs": AuditLogDocument,
}
"""By collection, parents before children."""


@cache
def document_model(collection: str, *, unknown: UnknownFields) -> type[AnyDocument]:
    """The model of a collection, and of the objects inside, that treats unknown fields so."""
    model: type[AnyDocument] = _treating(DOCUMENTS[collection], unknown)
    return model


def _treating(model: type[Any], unknown: UnknownFields) -> type[Any]:
    changed = {
        name: found
        for name, field in model.model_fields.items()
        if (found := _replaced(field.annotation, unknown)) is not field.annotation
    }
    body = {
        "__module__": model.__module__,
        "__doc__": model.__doc__,
        "__annotations__": changed,
        "model_config": ConfigDict(extra=unknown.value),
        **{name: model.model_fields[name].default for name in changed},
    }
    return new_class(model.__name__, (model,), exec_body=lambda namespace: namespace.update(body))


def _replaced(annotation: Any, unknown: UnknownFields) -> Any:
    """The annotation with the models in it replaced; the same object if there are none."""
    if isclass(annotation) and issubclass(annotation, Part):
        return _treating(annotation, unknown)
    parts = get_args(annotation)
    found = tuple(_replaced(part, unknown) for part in parts)
    if all(new is old for new, old in zip(found, parts, strict=True)):
        return annotation
    origin = get_origin(annotation)
    return reduce(or_, found) if origin in (Union, UnionType) else origin[found]
