"""`AuthDualWriteManager`: the operations that reach both databases."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from backend.shared import (
    ConflictError,
    DualWriteManager,
    DualWriteResult,
    EntityMapping,
    Exercised,
    NotFoundError,
    UnitOfWork,
)

from ..entities import NewUser, ProfileChanges, User, UserRole
from ..legacy import USER, storable
from ..repositories import UserRepository
from .exercise import exercise_operations


def utc_now() -> datetime:
    """The present moment, to the microsecond."""
    return datetime.now(tz=UTC)


class AuthDualWriteManager(DualWriteManager):
    """Users, on the legacy and the new side.

    Each operation is one unit of work: all of it or nothing, on the authoritative side, and carried to the other. Bad
    input raises an error of the `ValidationError` tree; trouble with a database is in the result. Operations that find
    things as they should be write nothing and may be repeated.
    """

    service = "auth"
    migrations = Path(__file__).parents[2] / "migrations"
    clock: Callable[[], datetime] = staticmethod(utc_now)

    @classmethod
    def entities(cls) -> Sequence[EntityMapping]:
        """A user, with her profile."""
        return (USER,)

    async def create_user(self, user: NewUser) -> DualWriteResult[User]:
        """Register a user. Raises `ConflictError` when the address is taken, in any letter case."""

        async def unit(uow: UnitOfWork) -> User:
            repository = UserRepository(uow)
            if await repository.is_taken(user.email):
                raise ConflictError("this e-mail address is registered already")
            return await repository.add(user, now=self._now())

        return await self.write("create_user", unit)

    async def update_user(self, user_id: str, changes: ProfileChanges) -> DualWriteResult[User]:
        """Change what `changes` names of a profile. Raises `NotFoundError`."""

        async def unit(uow: UnitOfWork) -> User:
            repository = UserRepository(uow)
            user = await _locked(repository, user_id)
            if all(getattr(user.profile, name) == value for name, value in changes.items()):
                return user
            await repository.change_profile(user_id, changes, now=self._now())
            return await _locked(repository, user_id)

        return await self.write("update_user", unit)

    async def deactivate_user(self, user_id: str) -> DualWriteResult[User]:
        """Bar a user from logging in; her data stays. Raises `NotFoundError`."""
        return await self._set_state("deactivate_user", user_id, is_active=False)

    async def reactivate_user(self, user_id: str) -> DualWriteResult[User]:
        """Let a deactivated user in again. Raises `NotFoundError`."""
        return await self._set_state("reactivate_user", user_id, is_active=True)

    async def change_password(
        self, user_id: str, *, new_hash: str, expected_hash: str | None
    ) -> DualWriteResult[User]:
        """Replace the password hash, if it still is `expected_hash`. Raises `NotFoundError`, `ConflictError`."""

        async def unit(uow: UnitOfWork) -> User:
            repository = UserRepository(uow)
            user = await _locked(repository, user_id)
            if user.password_hash != expected_hash:
                raise ConflictError("the password was changed at the same time by somebody else")
            await repository.change_password(user_id, new_hash, now=self._now())
            return await _locked(repository, user_id)

        return await self.write("change_password", unit)

    async def set_role(self, user_id: str, role: UserRole) -> DualWriteResult[User]:
        """Give a user another role. Raises `NotFoundError`."""

        async def unit(uow: UnitOfWork) -> User:
            repository = UserRepository(uow)
            user = await _locked(repository, user_id)
            if user.role is role:
                return user
            await repository.change_role(user_id, role, now=self._now())
            return await _locked(repository, user_id)

        return await self.write("set_role", unit)

    def exercise(self) -> AsyncIterator[Exercised]:
        """Every operation once, on what is made for it; nothing is left over in the end."""
        return exercise_operations(self)

    async def write_probe(self, work: UnitOfWork) -> tuple[str, tuple[str]]:
        """A deactivated user without password, under an address that no mail reaches."""
        name = f"probe-{uuid.uuid4().hex[:24]}"
        probe = NewUser(id=name, email=f"{name}@probe.invalid", password_hash=None, is_active=False)
        await UserRepository(work).add(probe, now=self._now())
        return USER.name, (name,)

    async def _set_state(self, operation: str, user_id: str, *, is_active: bool) -> DualWriteResult[User]:
        async def unit(uow: UnitOfWork) -> User:
            repository = UserRepository(uow)
            user = await _locked(repository, user_id)
            if user.is_active is is_active:
                return user
            await repository.change_state(user_id, is_active=is_active, now=self._now())
            return await _locked(repository, user_id)

        return await self.write(operation, unit)

    def _now(self) -> datetime:
        return storable(self.clock())


async def _locked(repository: UserRepository, user_id: str) -> User:
    user = await repository.find(user_id, for_update=True)
    if user is None:
        raise NotFoundError("there is no such user")
    return user
