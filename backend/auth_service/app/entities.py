"""What the service speaks of, apart from how it is stored and from what goes over the wire."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TypedDict

MAX_NAME_CLAIM = 200


class UserRole(StrEnum):
    """What a user may do."""

    USER = "user"
    ADMIN = "admin"


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What a user tells of herself. None and the empty string are two things, as they always were."""

    first_name: str | None = None
    last_name: str | None = None
    phone: str | None = None
    address_line: str | None = None
    city: str | None = None
    country: str | None = None
    newsletter: bool = False


@dataclass(frozen=True, kw_only=True)
class User:
    """A user with her profile. `password_hash` is None, or of a foreign kind, for those who never chose a password here.

    `created_at` is None where legacy holds a text that is no time.
    """

    id: str
    email: str
    password_hash: str | None = field(repr=False)
    role: UserRole
    is_active: bool
    created_at: datetime | None
    updated_at: datetime | None
    profile: Profile

    @property
    def display_name(self) -> str:
        """The name that others may call her by, in printable characters only; the id where she has none."""
        told = f"{self.profile.first_name or ''} {self.profile.last_name or ''}"
        name = " ".join("".join(letter if letter.isprintable() else " " for letter in told).split())
        return name[:MAX_NAME_CLAIM].rstrip() or self.id[:MAX_NAME_CLAIM]


@dataclass(frozen=True, kw_only=True)
class NewUser:
    """What it takes to create a user. `id` is made if it is not given."""

    email: str
    password_hash: str | None = field(repr=False)
    role: UserRole = UserRole.USER
    is_active: bool = True
    profile: Profile = Profile()
    id: str | None = None


class ProfileChanges(TypedDict, total=False):
    """A change of profile; what is not named stays."""

    first_name: str | None
    last_name: str | None
    phone: str | None
    address_line: str | None
    city: str | None
    country: str | None
    newsletter: bool
