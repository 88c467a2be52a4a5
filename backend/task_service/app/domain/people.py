"""Users, their teams, whom a task is assigned to, and the lists that they watch."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from .ids import new_id

_INVITE_ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""No I, O, 0 or 1: a code is read out and typed in."""
INVITE_CODE_LENGTH = 8


@dataclass(frozen=True, kw_only=True)
class User:
    """Somebody who has tasks."""

    id: str
    email: str
    name: str | None
    google_id: str | None

    @classmethod
    def create(cls, *, email: str, name: str | None, google_id: str | None) -> User:
        """A user that there was not before."""
        return cls(id=new_id(), email=email, name=name, google_id=google_id)


@dataclass(frozen=True, kw_only=True)
class UserFilter:
    """Which users to list; None: whatever it is."""

    email: str | None = None


@dataclass(frozen=True, kw_only=True)
class Team:
    """A team; whoever has the invite code may join it."""

    id: str
    name: str
    invite_code: str
    created_by: str

    @classmethod
    def create(cls, *, name: str, created_by: str) -> Team:
        """A team that there was not before, with an invite code of its own."""
        code = "".join(secrets.choice(_INVITE_ALPHABET) for _ in range(INVITE_CODE_LENGTH))
        return cls(id=new_id(), name=name, invite_code=code, created_by=created_by)


@dataclass(frozen=True, kw_only=True)
class TeamFilter:
    """Which teams to list; None: whatever it is."""

    created_by: str | None = None


@dataclass(frozen=True, kw_only=True)
class Label:
    """A label of tasks."""

    id: str
    name: str
    color: str | None

    @classmethod
    def create(cls, *, name: str, color: str | None) -> Label:
        """A label that there was not before."""
        return cls(id=new_id(), name=name, color=color)


@dataclass(frozen=True, kw_only=True)
class LabelFilter:
    """Which labels to list; None: whatever it is."""

    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """A task is a user's to do. A task may be several users'."""

    id: str
    task_id: str
    user_id: str

    @classmethod
    def create(cls, *, task_id: str, user_id: str) -> Assignment:
        """An assignment that there was not before."""
        return cls(id=new_id(), task_id=task_id, user_id=user_id)


@dataclass(frozen=True, kw_only=True)
class AssignmentFilter:
    """Which assignments to list; None: whatever it is."""

    task_id: str | None = None
    user_id: str | None = None


@dataclass(frozen=True, kw_only=True)
class WatchList:
    """A list that a user watches."""

    id: str
    name: str
    user_id: str

    @classmethod
    def create(cls, *, name: str, user_id: str) -> WatchList:
        """A watch list that there was not before."""
        return cls(id=new_id(), name=name, user_id=user_id)


@dataclass(frozen=True, kw_only=True)
class WatchListFilter:
    """Which watch lists to list; None: whatever it is."""

    user_id: str | None = None
