"""The tables of the service's own, new database. The migrations make them; a test holds the two together."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
)

from backend.shared.domain.mirrors import Mirrors
from backend.shared.events.tables import EventRoom

METADATA = MetaData()
MIRRORS = Mirrors(room="tandem_auth")
ROOM = EventRoom.mirrored(METADATA, MIRRORS)

users = Table(
    "users",
    METADATA,
    Column("id", Text, nullable=False),
    Column("email", Text, nullable=False, comment="as typed; compared without regard to case"),
    Column("password_hash", Text, comment="argon2id; what legacy brought of another kind opens nothing"),
    Column("role", Text, nullable=False),
    Column("is_active", Boolean, nullable=False),
    Column("created_at", DateTime(timezone=True), nullable=False),
    Column("updated_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("id", name="users_pkey"),
    # Legacy tells 'Ann@x.org' from 'ann@x.org', so rows that differ by case alone must be carried: no unique index on
    # lower(email). New accounts are checked under a lock instead. Deferrable, so that two users may swap addresses.
    UniqueConstraint("email", name="users_email_key", deferrable=True, initially="IMMEDIATE"),
    CheckConstraint("role IN ('user', 'admin')", name="users_role_check"),
)
Index("users_lower_email_idx", func.lower(users.c.email))

user_profiles = Table(
    "user_profiles",
    METADATA,
    Column("user_id", Text, ForeignKey("users.id", ondelete="CASCADE", name="user_profiles_user_id_fkey")),
    Column("first_name", Text),
    Column("last_name", Text),
    Column("phone", Text),
    Column("address_line", Text),
    Column("city", Text),
    Column("country", Text),
    Column("newsletter", Boolean, nullable=False),
    PrimaryKeyConstraint("user_id", name="user_profiles_pkey"),
)

refresh_tokens = Table(
    "refresh_tokens",
    METADATA,
    Column("id", BigInteger, Identity(always=False)),
    Column("token_hash", Text, nullable=False, comment="SHA-256; the token itself is kept nowhere"),
    Column("family_id", Uuid, nullable=False, comment="one per log-in; its tokens replace one another"),
    # No foreign key: while legacy is authoritative, a user's row may arrive here later than her first token.
    Column("user_id", Text, nullable=False),
    Column(
        "credential", Text, nullable=False, comment="fingerprint of the password hash that was logged in with"
    ),
    Column("issued_at", DateTime(timezone=True), nullable=False),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Column("used_at", DateTime(timezone=True), comment="when it was exchanged for its successor"),
    Column("revoked_at", DateTime(timezone=True)),
    PrimaryKeyConstraint("id", name="refresh_tokens_pkey"),
    UniqueConstraint("token_hash", name="refresh_tokens_token_hash_key"),
)
Index("refresh_tokens_family_id_idx", refresh_tokens.c.family_id)
Index("refresh_tokens_user_id_idx", refresh_tokens.c.user_id)
Index("refresh_tokens_expires_at_idx", refresh_tokens.c.expires_at)
