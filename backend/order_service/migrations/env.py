"""Runs the migrations of this folder; see `run_migrations`."""

from __future__ import annotations

from backend.order_service.app.models import METADATA
from backend.shared.schema_migration import run_migrations

run_migrations("order", METADATA)
