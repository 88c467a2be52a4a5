"""Which order a cart is in, and messages."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from backend.shared.events.schema import create_message_tables, drop_message_tables

revision = "0002_cart_orders"
down_revision = "0001_initial"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "cart_orders",
        sa.Column("order_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("cart_id", sa.Integer, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("state IN ('placed', 'cancelled')", name="cart_orders_state_check"),
    )
    op.create_index("cart_orders_cart_id_idx", "cart_orders", ["cart_id"])
    create_message_tables()


def downgrade() -> None:
    drop_message_tables()
    op.drop_table("cart_orders")
