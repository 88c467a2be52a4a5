"""Messages."""

from __future__ import annotations

from backend.shared.events.schema import create_message_tables, drop_message_tables

revision = "0002_messages"
down_revision = "0001_initial"
branch_labels = None
depends_on = None


def upgrade() -> None:
    create_message_tables()


def downgrade() -> None:
    drop_message_tables()
