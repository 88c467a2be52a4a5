"""Runs the migrations of this folder; see `run_migrations`."""

from __future__ import annotations

from backend.shared.schema_migration import run_migrations
from backend.task_service.app.models import METADATA

run_migrations("task", METADATA)
