"""What an admin does with the accounts of others."""

from __future__ import annotations

from collections.abc import Sequence

from backend.shared import ConflictError, NotFoundError, UnitOfWork

from ..core.dual_write_manager import AuthDualWriteManager
from ..entities import User, UserRole
from ..legacy import USER
from ..repositories import UserFilter, UserRepository
from .accounts import outcome
from .sessions import SessionService


class AdministrationService:
    """List users, let them in or not, say what they may do. The routes see to it that only admins come here."""

    def __init__(self, manager: AuthDualWriteManager, *, sessions: SessionService) -> None:
        self._manager = manager
        self._sessions = sessions

    async def list(self, wanted: UserFilter, *, after_id: str | None, limit: int) -> Sequence[User]:
        """Up to `limit` users with ids above `after_id`, by rising id."""

        async def unit(uow: UnitOfWork) -> Sequence[User]:
            return await UserRepository(uow).list(wanted, after_id=after_id, limit=limit)

        return await self._manager.read(unit, entity=USER.name, operation="list_users")

    async def get(self, user_id: str) -> User:
        """One user. Raises `NotFoundError`."""

        async def unit(uow: UnitOfWork) -> User | None:
            return await UserRepository(uow).get(user_id)

        user = await self._manager.read(unit, entity=USER.name, key=(user_id,), operation="get_user")
        if user is None:
            raise NotFoundError("there is no such user")
        return user

    async def deactivate(self, user_id: str, *, admin_id: str) -> User:
        """Bar a user. May be repeated. Raises `NotFoundError`, and `ConflictError` for the admin's own account or the only admin's."""
        _refuse_self(user_id, admin_id)
        user = outcome(await self._manager.deactivate_user(user_id, keep_an_admin=True))
        await self._sessions.end_all(user_id)
        return user

    async def reactivate(self, user_id: str) -> User:
        """Let a user in again. May be repeated. Raises `NotFoundError`."""
        return outcome(await self._manager.reactivate_user(user_id))

    async def set_role(self, user_id: str, role: UserRole, *, admin_id: str) -> User:
        """Give a user a role. May be repeated. Raises as `deactivate` does."""
        _refuse_self(user_id, admin_id)
        return outcome(await self._manager.set_role(user_id, role, keep_an_admin=True))


def _refuse_self(user_id: str, admin_id: str) -> None:
    # Else an admin could lock herself out with one slip.
    if user_id == admin_id:
        raise ConflictError("admins do not do this to themselves; ask another one")
