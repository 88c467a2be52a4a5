"""What a user does with her own account."""

from __future__ import annotations

from typing import TypeVar

from backend.shared import (
    ConflictError,
    DualWriteResult,
    PermissionDeniedError,
    SideError,
    UnauthenticatedError,
    UnitOfWork,
)

from ..core.dual_write_manager import AuthDualWriteManager
from ..entities import NewUser, Profile, ProfileChanges, User
from ..legacy import USER
from ..repositories import UserRepository
from .passwords import Passwords
from .sessions import SessionService

T = TypeVar("T")
UNIQUE_VIOLATION = "23505"


def outcome(result: DualWriteResult[T]) -> T:
    """The value of a dual write; a refused unique value raises `ConflictError`, other trouble the side's error."""
    if isinstance(result.error, SideError) and result.error.sqlstate == UNIQUE_VIOLATION:
        raise ConflictError("this e-mail address is registered already") from result.error
    return result.unwrap()


class AccountService:
    """Registration, profile and password of the caller."""

    def __init__(
        self, manager: AuthDualWriteManager, *, passwords: Passwords, sessions: SessionService
    ) -> None:
        self._manager = manager
        self._passwords = passwords
        self._sessions = sessions

    async def register(self, email: str, *, password: str, profile: Profile) -> User:
        """A new account with the role of a user. Raises `ConflictError` when the address is taken."""
        password_hash = await self._passwords.hash(password)
        return outcome(
            await self._manager.create_user(
                NewUser(email=email, password_hash=password_hash, profile=profile)
            )
        )

    async def current(self, user_id: str) -> User:
        """The caller as the database knows her now, whatever her token says.

        Raises `UnauthenticatedError` when her account is gone, `PermissionDeniedError` when it is deactivated.
        """

        async def unit(uow: UnitOfWork) -> User | None:
            return await UserRepository(uow).get(user_id)

        user = await self._manager.read(unit, entity=USER.name, key=(user_id,), operation="current_user")
        if user is None:
            raise UnauthenticatedError("the account of this token no longer exists")
        if not user.is_active:
            raise PermissionDeniedError("this account is deactivated")
        return user

    async def update_profile(self, user_id: str, changes: ProfileChanges) -> User:
        """Change what `changes` names. May be repeated. Raises `NotFoundError`."""
        return outcome(await self._manager.update_user(user_id, changes))

    async def change_password(self, user: User, *, current: str, new: str) -> None:
        """Set another password. Every session of the user ends with the old one.

        Raises `PermissionDeniedError` for a wrong present password, `ConflictError` when somebody else is quicker.
        """
        if not await self._passwords.matches(current, password_hash=user.password_hash):
            raise PermissionDeniedError("the current password is wrong")
        new_hash = await self._passwords.hash(new)
        outcome(
            await self._manager.change_password(user.id, new_hash=new_hash, expected_hash=user.password_hash)
        )
        await self._sessions.end_all(user.id)

    async def deactivate(self, user_id: str) -> None:
        """Close an account; an admin can open it again. May be repeated. Raises `NotFoundError`, `ConflictError` for the only admin's."""
        outcome(await self._manager.deactivate_user(user_id, keep_an_admin=True))
        await self._sessions.end_all(user_id)
