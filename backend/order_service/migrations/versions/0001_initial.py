"""Orders, their lines and their sagas, what was asked for under which key, what was heard of products, and messages."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

from backend.shared.events.schema import create_message_tables, drop_message_tables

revision = "0001_initial"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "orders",
        sa.Column("id", sa.Integer, sa.Identity(always=False), primary_key=True),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("cart_id", sa.Integer, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("total", sa.Numeric(12, 2), nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("placed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint(
            "status IN ('placed', 'confirmed', 'cancelling', 'cancelled')", name="orders_status_check"
        ),
    )
    op.create_index(
        "orders_cart_id_key",
        "orders",
        ["cart_id"],
        unique=True,
        postgresql_where=sa.text("status <> 'cancelled'"),
    )
    op.create_index("orders_user_id_id_idx", "orders", ["user_id", "id"])
    op.create_table(
        "order_lines",
        sa.Column("id", sa.Integer, sa.Identity(always=False), primary_key=True),
        sa.Column("order_id", sa.Integer, nullable=False),
        sa.Column("product_id", sa.Integer, nullable=False),
        sa.Column("quantity", sa.Integer, nullable=False),
        sa.Column("unit_price", sa.Numeric(12, 2), nullable=False),
        sa.ForeignKeyConstraint(
            ["order_id"], ["orders.id"], name="order_lines_order_id_fkey", ondelete="CASCADE"
        ),
    )
    op.create_index("order_lines_order_id_idx", "order_lines", ["order_id"])
    op.create_table(
        "sagas",
        sa.Column("order_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("style", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("step", sa.Integer, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("deadline", sa.DateTime(timezone=True)),
        sa.Column("participant", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("by_hand", sa.Boolean, nullable=False),
        sa.Column("history", JSONB, nullable=False),
        sa.Column("trace", JSONB, nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("style IN ('choreographed', 'orchestrated')", name="sagas_style_check"),
        sa.CheckConstraint(
            "state IN ('running', 'compensating', 'completed', 'compensated', 'needs_review')",
            name="sagas_state_check",
        ),
    )
    op.create_index("sagas_deadline_idx", "sagas", ["deadline"])
    op.create_index(
        "sagas_open_idx",
        "sagas",
        ["started_at"],
        postgresql_where=sa.text("state IN ('running', 'compensating', 'needs_review')"),
    )
    op.create_table(
        "idempotency_keys",
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("order_id", sa.Integer, nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "product_view",
        sa.Column("product_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("sku", sa.Text, nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("price", sa.Numeric(12, 2), nullable=False),
        sa.Column("is_active", sa.Boolean, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
    )
    create_message_tables()


def downgrade() -> None:
    drop_message_tables()
    for table in ("product_view", "idempotency_keys", "sagas", "order_lines", "orders"):
        op.drop_table(table)
