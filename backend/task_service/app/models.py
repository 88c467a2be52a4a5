"""The tables of the service's own database: ten roots, each with the id of its document, and what hangs on them.

`extra` keeps what the other columns cannot say of a document (see `app.mapping`). The columns of `UNMAPPED` say how the
row stands to its document; they are no part of either.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Numeric,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, TIMESTAMP
from sqlalchemy.sql.schema import SchemaItem

METADATA = MetaData()

STATUSES = ("todo", "in_progress", "done", "cancelled")
PRIORITIES = ("low", "medium", "high", "urgent")
SYNC_STATUSES = ("SYNCED", "PENDING", "FAILED")
UNMAPPED = ("sync_status", "sync_error", "last_synced_at")

UNIQUE_TEXT_BYTES = 2000
"""The longest text that a unique column takes, in bytes of UTF-8: an entry of an index has to fit on a third of a page."""

# BSON's dates have milliseconds.
_Moment = DateTime(timezone=True).with_variant(TIMESTAMP(timezone=True, precision=3), "postgresql")


def _one_of(column: str, *, table: str, values: tuple[str, ...]) -> CheckConstraint:
    listed = ", ".join(f"'{value}'" for value in values)
    return CheckConstraint(f"{column} IN ({listed})", name=f"{table}_{column}_check")


def _matches(column: str, *, table: str, pattern: str) -> CheckConstraint:
    check = CheckConstraint(f"{column} ~ '{pattern}'", name=f"{table}_{column}_check")
    check.ddl_if(dialect="postgresql")
    return check


def _short(column: str, *, table: str) -> CheckConstraint:
    check = CheckConstraint(
        f"octet_length({column}) <= {UNIQUE_TEXT_BYTES}", name=f"{table}_{column}_length_check"
    )
    check.ddl_if(dialect="postgresql")
    return check


def _unique(column: str, *, table: str) -> UniqueConstraint:
    # Deferrable, so that two may swap their values.
    return UniqueConstraint(column, name=f"{table}_{column}_key", deferrable=True, initially="IMMEDIATE")


def _reference(column: str, *, table: str, to: str, nullable: bool = False) -> Column[Any]:
    """The id of another document. Deferrable, so that its row may come later in the same transaction."""
    name = f"{table}_{column}_fkey"
    target = ForeignKey(f"{to}.mongo_id", name=name, deferrable=True, initially="IMMEDIATE")
    return Column(column, String(24), target, nullable=nullable)


def _root(table: str, *items: SchemaItem) -> Table:
    return Table(
        table,
        METADATA,
        Column("mongo_id", String(24), primary_key=True),
        *items,
        Column("extra", JSON, nullable=False, server_default=text("'{}'")),
        Column("sync_status", Text, nullable=False, server_default=text("'SYNCED'")),
        Column("sync_error", Text),
        Column("last_synced_at", DateTime(timezone=True)),
        _matches("mongo_id", table=table, pattern="^[0-9a-f]{24}$"),
        _one_of("sync_status", table=table, values=SYNC_STATUSES),
    )


def _items(table: str, *columns: SchemaItem, owner: str, of: str) -> Table:
    """The items of an array in a document of `of`, in the order of `position`, which counts from 0."""
    target = ForeignKey(f"{of}.mongo_id", name=f"{table}_{owner}_fkey", ondelete="CASCADE")
    return Table(
        table,
        METADATA,
        Column(owner, String(24), target, primary_key=True),
        Column("position", Integer, primary_key=True, autoincrement=False),
        *columns,
        CheckConstraint("position >= 0", name=f"{table}_position_check"),
    )


users = _root(
    "users",
    Column("google_id", Text),
    Column("email_id", Text, nullable=False),
    Column("name", Text),
    _unique("google_id", table="users"),
    _unique("email_id", table="users"),
    _short("google_id", table="users"),
    _short("email_id", table="users"),
)

roles = _root("roles", Column("name", Text, nullable=False))

role_permissions = _items(
    "role_permissions", Column("permission", Text, nullable=False), owner="role_id", of="roles"
)

labels = _root(
    "labels",
    Column("name", Text, nullable=False),
    Column("color", Text),
    _matches("color", table="labels", pattern="^#[0-9A-Fa-f]{6}$"),
)

teams = _root(
    "teams",
    Column("name", Text, nullable=False),
    Column("invite_code", Text, nullable=False),
    _reference("created_by", table="teams", to="users"),
    _unique("invite_code", table="teams"),
    _short("invite_code", table="teams"),
)

tasks = _root(
    "tasks",
    Column("title", Text, nullable=False),
    Column("description", Text),
    Column("status", Text, nullable=False),
    Column("priority", Text, nullable=False),
    _reference("created_by", table="tasks", to="users"),
    Column("due_at", _Moment),
    Column("estimate_hours", Numeric),
    Column("source_app", Text),
    Column("source_ticket", Text),
    Column("completed_at", _Moment),
    Column("created_at", _Moment, nullable=False),
    Column("updated_at", _Moment, nullable=False),
    _one_of("status", table="tasks", values=STATUSES),
    _one_of("priority", table="tasks", values=PRIORITIES),
)

# An array: a task may bear a label twice, and their order counts.
task_labels = _items(
    "task_labels", _reference("label_id", table="task_labels", to="labels"), owner="task_id", of="tasks"
)

task_checklist = _items(
    "task_checklist",
    Column("text", Text, nullable=False),
    Column("done", Boolean),
    Column("extra", JSON, nullable=False, server_default=text("'{}'")),
    owner="task_id",
    of="tasks",
)

task_assignments = _root(
    "task_assignments",
    _reference("task_id", table="task_assignments", to="tasks"),
    _reference("user_id", table="task_assignments", to="users"),
)

watchlists = _root(
    "watchlists",
    Column("name", Text, nullable=False),
    _reference("user_id", table="watchlists", to="users"),
)

user_team_details = _root(
    "user_team_details",
    _reference("user_id", table="user_team_details", to="users"),
    _reference("team_id", table="user_team_details", to="teams"),
)

user_roles = _root(
    "user_roles",
    _reference("user_id", table="user_roles", to="users"),
    _reference("role_id", table="user_roles", to="roles"),
)

# What is written down outlives what it is about, so nothing is referred to.
audit_logs = _root(
    "audit_logs",
    Column("action", Text, nullable=False),
    Column("collection", Text, nullable=False),
    Column("document", JSON().with_variant(JSONB(), "postgresql")),
    Column("created_at", _Moment, nullable=False),
)

ROOTS = (
    *(users, roles, labels, teams, tasks),
    *(task_assignments, watchlists, user_team_details, user_roles, audit_logs),
)
"""The tables that stand for collections of the same name, parents before children."""

Index("teams_created_by_idx", teams.c.created_by)
Index("tasks_created_by_idx", tasks.c.created_by)
Index("tasks_updated_at_mongo_id_idx", tasks.c.updated_at, tasks.c.mongo_id)
Index("task_labels_label_id_idx", task_labels.c.label_id)
Index("task_assignments_task_id_idx", task_assignments.c.task_id)
Index("task_assignments_user_id_idx", task_assignments.c.user_id)
Index("watchlists_user_id_idx", watchlists.c.user_id)
Index("user_team_details_user_id_idx", user_team_details.c.user_id)
Index("user_team_details_team_id_idx", user_team_details.c.team_id)
Index("user_roles_user_id_idx", user_roles.c.user_id)
Index("user_roles_role_id_idx", user_roles.c.role_id)
Index("audit_logs_created_at_mongo_id_idx", audit_logs.c.created_at, audit_logs.c.mongo_id)
# The failures are looked for, and are few.
for _table in ROOTS:
    Index(
        f"{_table.name}_sync_status_idx",
        _table.c.sync_status,
        postgresql_where=text("sync_status <> 'SYNCED'"),
        sqlite_where=text("sync_status <> 'SYNCED'"),
    )
