"""The first admin: somebody has to be able to let the others in."""

from __future__ import annotations

from enum import StrEnum

from backend.shared import UnitOfWork

from ..core.dual_write_manager import AuthDualWriteManager
from ..entities import NewUser, User, UserRole
from ..legacy import USER
from ..repositories import UserRepository
from .accounts import outcome
from .passwords import Passwords


class AdminOutcome(StrEnum):
    """What had to be done."""

    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"


async def ensure_admin(
    manager: AuthDualWriteManager, email: str, *, password: str, passwords: Passwords
) -> AdminOutcome:
    """See to it that `email` can log in as an active admin. May be repeated.

    A user who is there already is promoted and let in; her password stays, unless she has none that could be used here.
    """
    user = await _find(manager, email)
    if user is None:
        password_hash = await passwords.hash(password)
        outcome(
            await manager.create_user(NewUser(email=email, password_hash=password_hash, role=UserRole.ADMIN))
        )
        return AdminOutcome.CREATED
    changed = False
    if user.role is not UserRole.ADMIN:
        outcome(await manager.set_role(user.id, UserRole.ADMIN))
        changed = True
    if not user.is_active:
        outcome(await manager.reactivate_user(user.id))
        changed = True
    if not passwords.can_check(user.password_hash):
        new_hash = await passwords.hash(password)
        outcome(await manager.change_password(user.id, new_hash=new_hash, expected_hash=user.password_hash))
        changed = True
    return AdminOutcome.CHANGED if changed else AdminOutcome.UNCHANGED


async def _find(manager: AuthDualWriteManager, email: str) -> User | None:
    async def unit(uow: UnitOfWork) -> User | None:
        return await UserRepository(uow).find_by_email(email)

    return await manager.read(unit, entity=USER.name, operation="find_admin")
