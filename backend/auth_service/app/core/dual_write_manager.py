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
    Isolation,
    NotFoundError,
    UnitOfWork,
)
from backend.shared.events.outbox import Outbox

from ..entities import NewUser, ProfileChanges, User, UserRole
from ..legacy import MESSAGES, USER, storable
from ..models import ROOM
from ..repositories import UserRepository
from ..services.telling import change_of
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
    outbox: Outbox | None = None
    """Through which others are told of users, where anybody listens."""
    migrations = Path(__file__).parents[2] / "migrations"
    messages = ROOM
    clock: Callable[[], datetime] = staticmethod(utc_now)

    @classmethod
    def entities(cls) -> Sequence[EntityMapping]:
        """A user, with her profile; what is told."""
        return (USER, *MESSAGES)

    async def create_user(self, user: NewUser) -> DualWriteResult[User]:
        """Register a user. Raises `ConflictError` when the address is taken, in any letter case."""

        async def unit(uow: UnitOfWork) -> User:
            repository = UserRepository(uow)
            if await repository.is_taken(user.email):
                raise ConflictError("this e-mail address is registered already")
            return await self._told(uow, await repository.add(user, now=self._now()))

        return await self.write("create_user", unit)

    async def update_user(self, user_id: str, changes: ProfileChanges) -> DualWriteResult[User]:
        """Change what `changes` names of a profile. Raises `NotFoundError`."""

        async def unit(uow: UnitOfWork) -> User:
            repository = UserRepository(uow)
            user = await _locked(repository, user_id)
            if all(getattr(user.profile, name) == value for name, value in changes.items()):
                return user
            await repository.change_profile(user_id, changes, now=self._now())
            return await self._told(uow, await _locked(repository, user_id), before=user)

        return await self.write("update_user", unit)

    async def deactivate_user(self, user_id: str, *, keep_an_admin: bool = False) -> DualWriteResult[User]:
        """Bar a user from logging in; her data stays. Raises `NotFoundError`.

        With `keep_an_admin` raises `ConflictError` for the only active admin.
        """
        return await self._set_state("deactivate_user", user_id, is_active=False, keep_an_admin=keep_an_admin)

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

    async def set_role(
        self, user_id: str, role: UserRole, *, keep_an_admin: bool = False
    ) -> DualWriteResult[User]:
        """Give a user another role. Raises `NotFoundError`, and as `deactivate_user` does."""

        async def unit(uow: UnitOfWork) -> User:
            repository = UserRepository(uow)
            user = await _locked(repository, user_id)
            if user.role is role:
                return user
            if keep_an_admin:
                await _check_admins(repository, user)
            await repository.change_role(user_id, role, now=self._now())
            return await self._told(uow, await _locked(repository, user_id), before=user)

        return await self.write("set_role", unit, isolation=_isolation(keep_an_admin=keep_an_admin))

    def exercise(self) -> AsyncIterator[Exercised]:
        """Every operation once, on what is made for it; nothing is left over in the end."""
        return exercise_operations(self)

    async def write_probe(self, work: UnitOfWork) -> tuple[str, tuple[str]]:
        """A deactivated user without password, under an address that no mail reaches."""
        name = f"probe-{uuid.uuid4().hex[:24]}"
        probe = NewUser(id=name, email=f"{name}@probe.invalid", password_hash=None, is_active=False)
        await UserRepository(work).add(probe, now=self._now())
        return USER.name, (name,)

    async def _set_state(
        self, operation: str, user_id: str, *, is_active: bool, keep_an_admin: bool = False
    ) -> DualWriteResult[User]:
        async def unit(uow: UnitOfWork) -> User:
            repository = UserRepository(uow)
            user = await _locked(repository, user_id)
            if user.is_active is is_active:
                return user
            if keep_an_admin:
                await _check_admins(repository, user)
            await repository.change_state(user_id, is_active=is_active, now=self._now())
            return await self._told(uow, await _locked(repository, user_id), before=user)

        return await self.write(operation, unit, isolation=_isolation(keep_an_admin=keep_an_admin))

    async def _told(self, uow: UnitOfWork, user: User, *, before: User | None = None) -> User:
        """`user`, of whom others are told in the same transaction, unless what they would be told is what it was."""
        told = change_of(user)
        if self.outbox is not None and (before is None or change_of(before) != told):
            await self.outbox.record(uow, told)
        return user

    def _now(self) -> datetime:
        return storable(self.clock())


async def _locked(repository: UserRepository, user_id: str) -> User:
    user = await repository.hold(user_id)
    if user is None:
        raise NotFoundError("there is no such user")
    return user


def _isolation(*, keep_an_admin: bool) -> Isolation:
    """Two admins who bar each other at the same time each see the other one still there: no row that could be held says so."""
    return Isolation.SERIALIZABLE if keep_an_admin else Isolation.READ_COMMITTED


async def _check_admins(repository: UserRepository, user: User) -> None:
    if await repository.is_only_admin(user):
        raise ConflictError("this is the only admin, and somebody has to be able to let the others in")
