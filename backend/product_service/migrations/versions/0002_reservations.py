"""What is reserved for orders, and messages."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from backend.shared.events.schema import create_message_tables, drop_message_tables

revision = "0002_reservations"
down_revision = "0001_initial"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "stock_reservations",
        sa.Column("order_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("style", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("lines", JSONB),
        sa.Column("may_begin", sa.Boolean, nullable=False),
        sa.Column("is_stopped", sa.Boolean, nullable=False),
        sa.Column("is_by_hand", sa.Boolean, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(
            "state IN ('new', 'reserved', 'rejected', 'released', 'used')",
            name="stock_reservations_state_check",
        ),
    )
    create_message_tables()


def downgrade() -> None:
    drop_message_tables()
    op.drop_table("stock_reservations")
