"""Carts and their items, wishes, and the cache of users."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001_initial"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create_carts()
    op.create_table(
        "wish_items",
        sa.Column("id", sa.Integer, sa.Identity(always=False), primary_key=True),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("product_id", sa.Integer, nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.UniqueConstraint(
            "user_id",
            "product_id",
            name="wish_items_user_id_product_id_key",
            deferrable=True,
            initially="IMMEDIATE",
        ),
    )
    op.create_table(
        "user_cache",
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("display_name", sa.Text),
        sa.Column("is_active", sa.Boolean, nullable=False),
        sa.Column("refreshed_at", sa.DateTime(timezone=True), nullable=False),
    )


def _create_carts() -> None:
    op.create_table(
        "carts",
        sa.Column("id", sa.Integer, sa.Identity(always=False), primary_key=True),
        sa.Column("user_id", sa.Text),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("reference", sa.Text),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True)),
        sa.CheckConstraint("status IN ('open', 'closed', 'cancelled')", name="carts_status_check"),
    )
    op.create_index(
        "carts_open_user_key", "carts", ["user_id"], unique=True, postgresql_where=sa.text("status = 'open'")
    )
    op.create_table(
        "cart_items",
        sa.Column("id", sa.Integer, sa.Identity(always=False), primary_key=True),
        sa.Column("cart_id", sa.Integer, nullable=False),
        sa.Column("product_id", sa.Integer, nullable=False),
        sa.Column("quantity", sa.Integer, nullable=False),
        sa.Column("unit_price", sa.Numeric(12, 2), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["cart_id"], ["carts.id"], name="cart_items_cart_id_fkey", ondelete="CASCADE"
        ),
    )
    op.create_index("cart_items_cart_id_idx", "cart_items", ["cart_id"])


def downgrade() -> None:
    op.drop_table("user_cache")
    op.drop_table("wish_items")
    op.drop_table("cart_items")
    op.drop_table("carts")
