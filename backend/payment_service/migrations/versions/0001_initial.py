"""Accounts, payments, what the provider for tests is told, and messages."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from backend.shared.events.schema import create_message_tables, drop_message_tables

revision = "0001_initial"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "accounts",
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("credit", sa.Numeric(12, 2), nullable=False),
        sa.Column("held", sa.Numeric(12, 2), nullable=False, server_default="0"),
        sa.CheckConstraint("held >= 0 AND credit >= held", name="accounts_held_check"),
    )
    op.create_table(
        "payments",
        sa.Column("order_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("style", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text, nullable=False, server_default=""),
        sa.Column("amount", sa.Numeric(12, 2), nullable=False, server_default="0"),
        sa.Column("state", sa.Text, nullable=False, server_default="new"),
        sa.Column("is_stopped", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("is_by_hand", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("reason", sa.Text),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False, server_default=sa.func.now()),
        sa.CheckConstraint(
            "state IN ('new', 'authorised', 'declined', 'captured', 'refunded', 'voided')",
            name="payments_state_check",
        ),
    )
    op.create_index("payments_user_id_idx", "payments", ["user_id"])
    op.create_table(
        "provider_faults",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("step", sa.Text, nullable=False),
        sa.Column("user_id", sa.Text),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("seconds", sa.Numeric(8, 3), nullable=False, server_default="0"),
        sa.Column("times", sa.Integer, nullable=False, server_default="1"),
        sa.CheckConstraint(
            "step IN ('authorise', 'capture', 'refund', 'void')", name="provider_faults_step_check"
        ),
        sa.CheckConstraint("action IN ('decline', 'delay', 'fail')", name="provider_faults_action_check"),
    )
    create_message_tables()


def downgrade() -> None:
    drop_message_tables()
    for table in ("provider_faults", "payments", "accounts"):
        op.drop_table(table)
