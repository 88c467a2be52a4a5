"""Every operation of the auth service once, on a user made for it, who is removed again."""

from __future__ import annotations

import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING

from backend.shared import Exercised, Key

from ..entities import NewUser, UserRole
from ..legacy import USER

if TYPE_CHECKING:
    from .dual_write_manager import AuthDualWriteManager


async def exercise_operations(manager: AuthDualWriteManager) -> AsyncIterator[Exercised]:
    """Yields after each operation. What was made is removed whatever happens in between."""
    user_id = f"~exercise-{secrets.token_hex(10)}"
    keys: list[tuple[str, Key]] = [(USER.name, (user_id,))]
    try:
        async with aclosing(_operations(manager, user_id, keys)) as operations:
            async for step in operations:
                yield step
    finally:
        removed = await manager.write("remove_exercise", lambda work: work.delete(USER.name, (user_id,)))
    yield Exercised(name="remove_exercise", result=removed, keys=keys)


async def _operations(
    manager: AuthDualWriteManager, user_id: str, keys: list[tuple[str, Key]]
) -> AsyncGenerator[Exercised, None]:
    new = NewUser(id=user_id, email=f"{user_id[1:]}@probe.invalid", password_hash=None)
    yield Exercised(name="create_user", result=await manager.create_user(new), keys=keys)
    changed = await manager.update_user(user_id, {"city": "Nowhere", "newsletter": True})
    yield Exercised(name="update_user", result=changed, keys=keys)
    changed = await manager.change_password(user_id, new_hash="~no password", expected_hash=None)
    yield Exercised(name="change_password", result=changed, keys=keys)
    changed = await manager.set_role(user_id, UserRole.ADMIN)
    yield Exercised(name="set_role", result=changed, keys=keys)
    changed = await manager.deactivate_user(user_id)
    yield Exercised(name="deactivate_user", result=changed, keys=keys)
    changed = await manager.reactivate_user(user_id)
    yield Exercised(name="reactivate_user", result=changed, keys=keys)
