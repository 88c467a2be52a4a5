"""Categories, products and their stock."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001_initial"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "categories",
        sa.Column("id", sa.Integer, sa.Identity(always=False), primary_key=True),
        sa.Column("parent_id", sa.Integer),
        sa.Column("name", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(
            ["parent_id"],
            ["categories.id"],
            name="categories_parent_id_fkey",
            deferrable=True,
            initially="IMMEDIATE",
        ),
        sa.UniqueConstraint(
            "parent_id",
            "name",
            name="categories_parent_id_name_key",
            postgresql_nulls_not_distinct=True,
            deferrable=True,
            initially="IMMEDIATE",
        ),
    )
    op.create_table(
        "products",
        sa.Column("id", sa.Integer, sa.Identity(always=False), primary_key=True),
        sa.Column("sku", sa.Text, nullable=False),
        sa.Column("name", sa.Text),
        sa.Column("price", sa.Numeric(12, 2), nullable=False),
        sa.Column("category_id", sa.Integer),
        sa.Column("is_active", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True)),
        sa.ForeignKeyConstraint(
            ["category_id"],
            ["categories.id"],
            name="products_category_id_fkey",
            deferrable=True,
            initially="IMMEDIATE",
        ),
        sa.UniqueConstraint("sku", name="products_sku_key", deferrable=True, initially="IMMEDIATE"),
    )
    op.create_index("products_category_id_idx", "products", ["category_id"])
    op.create_index("products_price_id_idx", "products", ["price", "id"])
    op.create_index("products_name_id_idx", "products", [sa.text("(coalesce(name, '')) COLLATE \"C\""), "id"])
    op.create_table(
        "product_stock",
        sa.Column("product_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("quantity", sa.Integer, nullable=False),
        sa.ForeignKeyConstraint(
            ["product_id"], ["products.id"], name="product_stock_product_id_fkey", ondelete="CASCADE"
        ),
    )


def downgrade() -> None:
    op.drop_table("product_stock")
    op.drop_table("products")
    op.drop_table("categories")
