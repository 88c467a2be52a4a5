"""What others are told of users."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from backend.messages.users import UserChanged
from backend.shared import UnitOfWork
from backend.shared.events.aggregates import Aggregates

from ..entities import User
from ..models import ROOM
from ..repositories import UserRepository


def change_of(user: User) -> UserChanged:
    """A user as she is now."""
    return UserChanged(
        user_id=user.id,
        display_name=user.display_name,
        role=user.role.value,
        is_active=user.is_active,
    )


async def _page(work: UnitOfWork, after: Any, limit: int) -> Sequence[str]:
    return await UserRepository(work).ids(after_id=after, limit=limit)


async def _hold(work: UnitOfWork, keys: Sequence[Any]) -> Mapping[Any, UserChanged]:
    return {user.id: change_of(user) for user in await UserRepository(work).hold_many(keys)}


AGGREGATES = (Aggregates(service="auth", kind=UserChanged, room=ROOM, page=_page, hold=_hold),)
"""What can be told anew."""
