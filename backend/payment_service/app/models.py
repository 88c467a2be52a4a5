"""The tables of the service's own database. It has never had another: nothing here is dual-written."""

from __future__ import annotations

from sqlalchemy import (
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Index,
    Integer,
    MetaData,
    Numeric,
    Table,
    Text,
    false,
    func,
)

from backend.shared.domain.mapping import entity_of_table
from backend.shared.events.tables import EventRoom

METADATA = MetaData()
ROOM = EventRoom.alone(METADATA)
_MONEY = Numeric(12, 2)

accounts = Table(
    "accounts",
    METADATA,
    Column("user_id", Text, primary_key=True),
    Column("credit", _MONEY, nullable=False),
    Column("held", _MONEY, nullable=False, server_default="0"),
    CheckConstraint("held >= 0 AND credit >= held", name="accounts_held_check"),
)

payments = Table(
    "payments",
    METADATA,
    Column("order_id", Integer, primary_key=True, autoincrement=False),
    Column("style", Text, nullable=False),
    Column("user_id", Text, nullable=False, server_default=""),
    Column("amount", _MONEY, nullable=False, server_default="0"),
    Column("state", Text, nullable=False, server_default="new"),
    Column("is_stopped", Boolean, nullable=False, server_default=false()),
    Column("is_by_hand", Boolean, nullable=False, server_default=false()),
    Column("reason", Text),
    Column("updated_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
    CheckConstraint(
        "state IN ('new', 'authorised', 'declined', 'captured', 'refunded', 'voided')",
        name="payments_state_check",
    ),
)
Index("payments_user_id_idx", payments.c.user_id)

PAYMENT = entity_of_table("payment", payments)
ACCOUNT = entity_of_table("account", accounts)

# What the provider for tests is told to do instead of its work; empty anywhere else.
provider_faults = Table(
    "provider_faults",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("step", Text, nullable=False),
    Column("user_id", Text),
    Column("action", Text, nullable=False),
    Column("seconds", Numeric(8, 3), nullable=False, server_default="0"),
    Column("times", Integer, nullable=False, server_default="1"),
    CheckConstraint("step IN ('authorise', 'capture', 'refund', 'void')", name="provider_faults_step_check"),
    CheckConstraint("action IN ('decline', 'delay', 'fail')", name="provider_faults_action_check"),
)
