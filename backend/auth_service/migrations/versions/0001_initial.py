"""Users, their profiles, and refresh tokens."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001_initial"
down_revision: str | None = None
branch_labels: str | None = None
depends_on: str | None = None


def upgrade() -> None:
    _create_users()
    _create_refresh_tokens()


def _create_users() -> None:
    op.create_table(
        "users",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("email", sa.Text, nullable=False, comment="as typed; compared without regard to case"),
        sa.Column(
            "password_hash", sa.Text, comment="argon2id; what legacy brought of another kind opens nothing"
        ),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("is_active", sa.Boolean, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="users_pkey"),
        sa.UniqueConstraint("email", name="users_email_key", deferrable=True, initially="IMMEDIATE"),
        sa.CheckConstraint("role IN ('user', 'admin')", name="users_role_check"),
    )
    op.create_index("users_lower_email_idx", "users", [sa.text("lower(email)")])
    op.create_table(
        "user_profiles",
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("first_name", sa.Text),
        sa.Column("last_name", sa.Text),
        sa.Column("phone", sa.Text),
        sa.Column("address_line", sa.Text),
        sa.Column("city", sa.Text),
        sa.Column("country", sa.Text),
        sa.Column("newsletter", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("user_id", name="user_profiles_pkey"),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], ondelete="CASCADE", name="user_profiles_user_id_fkey"
        ),
    )


def _create_refresh_tokens() -> None:
    op.create_table(
        "refresh_tokens",
        sa.Column("id", sa.BigInteger, sa.Identity(always=False)),
        sa.Column("token_hash", sa.Text, nullable=False, comment="SHA-256; the token itself is kept nowhere"),
        sa.Column(
            "family_id", sa.Uuid, nullable=False, comment="one per log-in; its tokens replace one another"
        ),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column(
            "credential",
            sa.Text,
            nullable=False,
            comment="fingerprint of the password hash that was logged in with",
        ),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), comment="when it was exchanged for its successor"),
        sa.Column("revoked_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="refresh_tokens_pkey"),
        sa.UniqueConstraint("token_hash", name="refresh_tokens_token_hash_key"),
    )
    for column in ("family_id", "user_id", "expires_at"):
        op.create_index(f"refresh_tokens_{column}_idx", "refresh_tokens", [column])


def downgrade() -> None:
    op.drop_table("refresh_tokens")
    op.drop_table("user_profiles")
    op.drop_table("users")
