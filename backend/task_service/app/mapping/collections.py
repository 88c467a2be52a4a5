"""The ten collections: which field stands in which column."""

from __future__ import annotations

from backend.shared.domain.mapping import EntityCatalog

from .. import models
from .embedded import EMBEDDED
from .fields import Nested, ObjectFields, Scalar
from .shapes import Collection, Items
from .values import BOOLEAN, MOMENT, NUMBER, REFERENCE, TEXT, ChoiceKind, TextKind

_UNIQUE = TextKind(max_bytes=models.UNIQUE_TEXT_BYTES)
_COLOR = TextKind(pattern="#[0-9A-Fa-f]{6}", form="colour of the form #rrggbb")
_STATUS = ChoiceKind(
    choices=models.STATUSES,
    spellings=frozenset(
        {("to_do", "todo"), ("inprogress", "in_progress"), ("completed", "done"), ("canceled", "cancelled")}
    ),
)
_PRIORITY = ChoiceKind(choices=models.PRIORITIES, spellings=frozenset({("normal", "medium")}))
# Fields that no schema knows may hold anything, tokens too.
_UNKNOWN = "extra"

USERS = Collection(
    root=models.users,
    fields=(
        Scalar(name="google_id", kind=_UNIQUE, nullable=True),
        Scalar(name="email_id", kind=_UNIQUE),
        Scalar(name="name", kind=TEXT, nullable=True),
    ),
    secret=frozenset({"google_id", _UNKNOWN}),
)
ROLES = Collection(
    root=models.roles,
    fields=(Scalar(name="name", kind=TEXT),),
    items=(
        Items(
            name="permissions",
            table=models.role_permissions,
            owner="role_id",
            scalar=Scalar(name="permission", kind=TEXT),
        ),
    ),
)
LABELS = Collection(
    root=models.labels,
    fields=(Scalar(name="name", kind=TEXT), Scalar(name="color", kind=_COLOR, nullable=True)),
)
TEAMS = Collection(
    root=models.teams,
    fields=(
        Scalar(name="name", kind=TEXT),
        Scalar(name="invite_code", kind=_UNIQUE),
        Scalar(name="created_by", kind=REFERENCE),
    ),
    parents=("users",),
    secret=frozenset({"invite_code", _UNKNOWN}),
)
TASKS = Collection(
    root=models.tasks,
    fields=(
        Scalar(name="title", kind=TEXT),
        Scalar(name="description", kind=TEXT, nullable=True),
        Scalar(name="status", kind=_STATUS),
        Scalar(name="priority", kind=_PRIORITY),
        Scalar(name="created_by", kind=REFERENCE),
        Scalar(name="due_at", kind=MOMENT, nullable=True),
        Scalar(name="estimate_hours", kind=NUMBER, nullable=True),
        Nested(
            name="source",
            fields=(
                Scalar(name="app", column="source_app", kind=TEXT, nullable=True),
                Scalar(name="ticket", column="source_ticket", kind=TEXT, nullable=True),
            ),
        ),
        Scalar(name="completed_at", kind=MOMENT, nullable=True),
        Scalar(name="created_at", kind=MOMENT),
        Scalar(name="updated_at", kind=MOMENT),
    ),
    items=(
        Items(
            name="labels",
            table=models.task_labels,
            owner="task_id",
            scalar=Scalar(name="label_id", kind=REFERENCE),
        ),
        Items(
            name="checklist",
            table=models.task_checklist,
            owner="task_id",
            item=ObjectFields(
                fields=(
                    Scalar(name="text", kind=TEXT),
                    Scalar(name="done", kind=BOOLEAN, nullable=True),
                )
            ),
        ),
    ),
    # Teams too: no key asks for it, but what people see first is to be there first.
    parents=("users", "labels", "teams"),
)
TASK_ASSIGNMENTS = Collection(
    root=models.task_assignments,
    fields=(Scalar(name="task_id", kind=REFERENCE), Scalar(name="user_id", kind=REFERENCE)),
    parents=("tasks", "users"),
)
WATCHLISTS = Collection(
    root=models.watchlists,
    fields=(Scalar(name="name", kind=TEXT), Scalar(name="user_id", kind=REFERENCE)),
    parents=("users",),
)
USER_TEAM_DETAILS = Collection(
    root=models.user_team_details,
    fields=(Scalar(name="user_id", kind=REFERENCE), Scalar(name="team_id", kind=REFERENCE)),
    parents=("users", "teams"),
)
USER_ROLES = Collection(
    root=models.user_roles,
    fields=(Scalar(name="user_id", kind=REFERENCE), Scalar(name="role_id", kind=REFERENCE)),
    parents=("users", "roles"),
)
AUDIT_LOGS = Collection(
    root=models.audit_logs,
    fields=(
        Scalar(name="action", kind=TEXT),
        Scalar(name="collection", kind=TEXT),
        Scalar(name="document", kind=EMBEDDED, nullable=True),
        Scalar(name="created_at", kind=MOMENT),
    ),
    # Copies of documents, with whatever is secret in them.
    secret=frozenset({"document", _UNKNOWN}),
)

COLLECTIONS = (
    *(USERS, ROLES, LABELS, TEAMS, TASKS),
    *(TASK_ASSIGNMENTS, WATCHLISTS, USER_TEAM_DETAILS, USER_ROLES, AUDIT_LOGS),
)
"""Parents before children."""

CATALOG = EntityCatalog([collection.entity() for collection in COLLECTIONS])
