"""The tables of `app.models` for Peewee. A test holds the one against the other.

Foreign keys are the database's own affair: nothing here is followed from one model to another.
"""

from __future__ import annotations

from collections.abc import Mapping

from peewee import BooleanField, CompositeKey, Database, IntegerField, Model, TextField

from .fields import JsonField, KeyField, MomentField, NumberField

Models = Mapping[str, type[Model]]


class Root(Model):
    mongo_id = KeyField(primary_key=True)
    extra = JsonField()
    sync_status = TextField()
    sync_error = TextField(null=True)
    last_synced_at = MomentField(null=True)


class User(Root):
    google_id = TextField(null=True)
    email_id = TextField()
    name = TextField(null=True)


class Role(Root):
    name = TextField()


class RolePermission(Model):
    role_id = KeyField()
    position = IntegerField()
    permission = TextField()

    class Meta:
        primary_key = CompositeKey("role_id", "position")


class Label(Root):
    name = TextField()
    color = TextField(null=True)


class Team(Root):
    name = TextField()
    invite_code = TextField()
    created_by = KeyField()


class Task(Root):
    title = TextField()
    description = TextField(null=True)
    status = TextField()
    priority = TextField()
    created_by = KeyField()
    due_at = MomentField(null=True)
    estimate_hours = NumberField(null=True)
    source_app = TextField(null=True)
    source_ticket = TextField(null=True)
    completed_at = MomentField(null=True)
    created_at = MomentField()
    updated_at = MomentField()


class TaskLabel(Model):
    task_id = KeyField()
    position = IntegerField()
    label_id = KeyField()

    class Meta:
        primary_key = CompositeKey("task_id", "position")


class TaskChecklistItem(Model):
    task_id = KeyField()
    position = IntegerField()
    text = TextField()
    done = BooleanField(null=True)
    extra = JsonField()

    class Meta:
        primary_key = CompositeKey("task_id", "position")


class TaskAssignment(Root):
    task_id = KeyField()
    user_id = KeyField()


class WatchList(Root):
    name = TextField()
    user_id = KeyField()


class UserTeamDetail(Root):
    user_id = KeyField()
    team_id = KeyField()


class UserRole(Root):
    user_id = KeyField()
    role_id = KeyField()


class AuditLog(Root):
    action = TextField()
    collection = TextField()
    document = JsonField(null=True)
    created_at = MomentField()


_TABLES: dict[str, type[Model]] = {
    "users": User,
    "roles": Role,
    "role_permissions": RolePermission,
    "labels": Label,
    "teams": Team,
    "tasks": Task,
    "task_labels": TaskLabel,
    "task_checklist": TaskChecklistItem,
    "task_assignments": TaskAssignment,
    "watchlists": WatchList,
    "user_team_details": UserTeamDetail,
    "user_roles": UserRole,
    "audit_logs": AuditLog,
}


def make_models(database: Database) -> Models:
    """A model of each table for `database`, by the table's name: a process may have several databases."""

    def bound(table: str, model: type[Model]) -> type[Model]:
        options = type("Meta", (), {"database": database, "table_name": table})
        return type(model.__name__, (model,), {"Meta": options})

    return {table: bound(table, model) for table, model in _TABLES.items()}
