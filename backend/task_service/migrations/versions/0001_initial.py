"""The tables of the ten collections."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = "0001_initial"
down_revision = None
branch_labels = None
depends_on = None

MOMENT = postgresql.TIMESTAMP(timezone=True, precision=3)
ID = sa.String(24)
INDEXES = {
    "teams": (("created_by",),),
    "tasks": (("created_by",), ("updated_at", "mongo_id")),
    "task_labels": (("label_id",),),
    "task_assignments": (("task_id",), ("user_id",)),
    "watchlists": (("user_id",),),
    "user_team_details": (("user_id",), ("team_id",)),
    "user_roles": (("user_id",), ("role_id",)),
    "audit_logs": (("created_at", "mongo_id"),),
}
ROOTS = (
    *("users", "roles", "labels", "teams", "tasks"),
    *("task_assignments", "watchlists", "user_team_details", "user_roles", "audit_logs"),
)


def upgrade() -> None:
    _people()
    _tasks()
    _links()
    for table, indexes in INDEXES.items():
        for columns in indexes:
            op.create_index(f"{table}_{'_'.join(columns)}_idx", table, list(columns))
    for table in ROOTS:
        op.create_index(
            f"{table}_sync_status_idx",
            table,
            ["sync_status"],
            postgresql_where=sa.text("sync_status <> 'SYNCED'"),
        )


def _people() -> None:
    _root(
        "users",
        sa.Column("google_id", sa.Text),
        sa.Column("email_id", sa.Text, nullable=False),
        sa.Column("name", sa.Text),
        *_unique("users", "google_id"),
        *_unique("users", "email_id"),
    )
    _root("roles", sa.Column("name", sa.Text, nullable=False))
    _items("role_permissions", "role_id", "roles", sa.Column("permission", sa.Text, nullable=False))
    _root(
        "labels",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("color", sa.Text),
        sa.CheckConstraint("color ~ '^#[0-9A-Fa-f]{6}$'", name="labels_color_check"),
    )
    _root(
        "teams",
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("invite_code", sa.Text, nullable=False),
        *_reference("teams", "created_by", "users"),
        *_unique("teams", "invite_code"),
    )


def _tasks() -> None:
    _root(
        "tasks",
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("description", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("priority", sa.Text, nullable=False),
        *_reference("tasks", "created_by", "users"),
        sa.Column("due_at", MOMENT),
        sa.Column("estimate_hours", sa.Numeric),
        sa.Column("source_app", sa.Text),
        sa.Column("source_ticket", sa.Text),
        sa.Column("completed_at", MOMENT),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.CheckConstraint(
            "status IN ('todo', 'in_progress', 'done', 'cancelled')", name="tasks_status_check"
        ),
        sa.CheckConstraint("priority IN ('low', 'medium', 'high', 'urgent')", name="tasks_priority_check"),
    )
    _items("task_labels", "task_id", "tasks", *_reference("task_labels", "label_id", "labels"))
    _items(
        "task_checklist",
        "task_id",
        "tasks",
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("done", sa.Boolean),
        sa.Column("extra", sa.JSON, nullable=False, server_default=sa.text("'{}'")),
    )


def _links() -> None:
    for table, references in {
        "task_assignments": {"task_id": "tasks", "user_id": "users"},
        "user_team_details": {"user_id": "users", "team_id": "teams"},
        "user_roles": {"user_id": "users", "role_id": "roles"},
    }.items():
        items = [item for column, to in references.items() for item in _reference(table, column, to)]
        _root(table, *items)
    name = sa.Column("name", sa.Text, nullable=False)
    _root("watchlists", name, *_reference("watchlists", "user_id", "users"))
    _root(
        "audit_logs",
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("collection", sa.Text, nullable=False),
        sa.Column("document", postgresql.JSONB),
        sa.Column("created_at", MOMENT, nullable=False),
    )


def _root(table: str, *items: Any) -> None:
    op.create_table(
        table,
        sa.Column("mongo_id", ID, primary_key=True),
        *items,
        sa.Column("extra", sa.JSON, nullable=False, server_default=sa.text("'{}'")),
        sa.Column("sync_status", sa.Text, nullable=False, server_default=sa.text("'SYNCED'")),
        sa.Column("sync_error", sa.Text),
        sa.Column("last_synced_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("mongo_id ~ '^[0-9a-f]{24}$'", name=f"{table}_mongo_id_check"),
        sa.CheckConstraint(
            "sync_status IN ('SYNCED', 'PENDING', 'FAILED')", name=f"{table}_sync_status_check"
        ),
    )


def _items(table: str, owner: str, root: str, *items: Any) -> None:
    op.create_table(
        table,
        sa.Column(owner, ID, primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
        *items,
        sa.ForeignKeyConstraint(
            [owner], [f"{root}.mongo_id"], name=f"{table}_{owner}_fkey", ondelete="CASCADE"
        ),
        sa.CheckConstraint("position >= 0", name=f"{table}_position_check"),
    )


def _reference(table: str, column: str, to: str) -> tuple[Any, ...]:
    return (
        sa.Column(column, ID, nullable=False),
        sa.ForeignKeyConstraint(
            [column],
            [f"{to}.mongo_id"],
            name=f"{table}_{column}_fkey",
            deferrable=True,
            initially="IMMEDIATE",
        ),
    )


def _unique(table: str, column: str) -> tuple[Any, ...]:
    return (
        sa.UniqueConstraint(column, name=f"{table}_{column}_key", deferrable=True, initially="IMMEDIATE"),
        sa.CheckConstraint(f"octet_length({column}) <= 2000", name=f"{table}_{column}_length_check"),
    )


def downgrade() -> None:
    for table in reversed(ROOTS):
        for items in {"tasks": ("task_checklist", "task_labels"), "roles": ("role_permissions",)}.get(
            table, ()
        ):
            op.drop_table(items)
        op.drop_table(table)
