"""What was heard of users."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003_user_view"
down_revision = "0002_cart_orders"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "user_view",
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("display_name", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("is_active", sa.Boolean, nullable=False),
        sa.Column("epoch", sa.BigInteger, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("user_view")
