"""What the auth service tells of the shop's users. No addresses and nothing of passwords: they are nobody else's business."""

from __future__ import annotations

from typing import ClassVar

from backend.shared.events.envelope import DomainEvent


class UserChanged(DomainEvent):
    """A user as she is from now on, whatever of her was changed. Of two the one with the later position counts."""

    message_type: ClassVar[str] = "UserChanged"
    aggregate_type: ClassVar[str] = "user"

    user_id: str
    display_name: str
    role: str
    """`user` or `admin`."""
    is_active: bool

    @property
    def aggregate_id(self) -> str:
        """The user's id."""
        return self.user_id
