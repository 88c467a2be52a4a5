"""Sessions: log-in, and the refresh tokens that keep one alive.

A refresh token is good for one exchange. One that comes a second time was copied, by whoever came first or second: so
the whole family, all that descends from one log-in, is ended (RFC 9700, section 4.14.2). Each token also remembers a
fingerprint of the password hash that it was opened with: a changed password ends every session at once, on whichever
side the change was made.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from backend.shared import PermissionDeniedError, SideError, UnauthenticatedError, UnitOfWork
from backend.shared.api.tokens import Role, TokenIssuer

from ..core.dual_write_manager import AuthDualWriteManager
from ..core.settings import AuthSettings
from ..entities import User
from ..legacy import USER
from ..repositories import RefreshTokenRepository, StoredRefreshToken, UserRepository
from .passwords import Passwords, fingerprint

log = structlog.get_logger(__name__)

_TOKEN_BYTES = 32


@dataclass(frozen=True, kw_only=True)
class IssuedTokens:
    """What a log-in or an exchange yields. Without a `refresh_token`, log in again when the access token ends."""

    access_token: str = field(repr=False)
    expires_in: timedelta
    refresh_token: str | None = field(repr=False)


class SessionService:
    """Log in, exchange a refresh token, log out."""

    def __init__(
        self,
        manager: AuthDualWriteManager,
        *,
        passwords: Passwords,
        issuer: TokenIssuer,
        settings: AuthSettings,
        clock: Callable[[], datetime],
    ) -> None:
        self._manager = manager
        self._passwords = passwords
        self._issuer = issuer
        self._settings = settings
        self._clock = clock

    async def log_in(self, email: str, *, password: str) -> IssuedTokens:
        """Tokens for whoever knows the password.

        Raises `UnauthenticatedError`, the same after the same time for a wrong password and an unknown address, and
        `PermissionDeniedError` for a deactivated account, to those only who know its password.
        """

        async def unit(uow: UnitOfWork) -> User | None:
            return await UserRepository(uow).find_by_email(email)

        # Without a key: that would be the address, which is nobody's business in a log.
        user = await self._manager.read(unit, entity=USER.name, operation="log_in")
        matches = await self._passwords.matches(password, password_hash=user.password_hash if user else None)
        if user is None or not matches:
            raise UnauthenticatedError("the e-mail address or the password is wrong")
        _refuse_inactive(user)
        return self._tokens(user, refresh_token=await self._open(user))

    async def refresh(self, token: str) -> IssuedTokens:
        """Exchange a refresh token for new tokens. A token that was exchanged before ends its whole family.

        Raises `UnauthenticatedError` for a token that is unknown, expired, used or ended, and `PermissionDeniedError`
        for a deactivated account.
        """
        async with self._manager.new_session() as session:
            stored = await RefreshTokenRepository(session).find(_hash(token))
        if stored is None:
            raise _refused()
        if stored.used_at is None:
            user = await self._owner(stored)
            if (successor := await self._exchange(stored)) is not None:
                return self._tokens(user, refresh_token=successor)
        await self._end_family(stored)
        raise _refused()

    async def log_out(self, token: str) -> None:
        """End the session that a refresh token belongs to. May be repeated; says nothing of tokens it does not know."""
        async with self._manager.new_session() as session:
            repository = RefreshTokenRepository(session)
            stored = await repository.find(_hash(token))
            if stored is not None:
                await repository.revoke_family(stored.family_id, now=self._clock())

    async def end_all(self, user_id: str) -> None:
        """End all sessions of a user, as far as the new side can be reached.

        Nothing hangs on it: a changed password or a deactivated account makes their tokens worthless anyhow.
        """
        try:
            async with self._manager.new_session() as session:
                await RefreshTokenRepository(session).revoke_user(user_id, now=self._clock())
        except SideError as error:
            log.warning("sessions_not_ended", user_id=user_id, error=str(error))

    async def _owner(self, stored: StoredRefreshToken) -> User:
        async def unit(uow: UnitOfWork) -> User | None:
            return await UserRepository(uow).get(stored.user_id)

        user = await self._manager.read(
            unit, entity=USER.name, key=(stored.user_id,), operation="refresh_session"
        )
        if user is None or fingerprint(user.password_hash) != stored.credential:
            raise _refused()
        _refuse_inactive(user)
        return user

    async def _open(self, user: User) -> str | None:
        """The first token of a new family; None while the new side cannot be reached, which bars nobody from the shop."""
        try:
            async with self._manager.new_session() as session:
                repository = RefreshTokenRepository(session)
                await repository.remove_expired(now=self._clock())
                return await self._add(
                    repository,
                    family_id=uuid.uuid4(),
                    user_id=user.id,
                    credential=fingerprint(user.password_hash),
                )
        except SideError as error:
            if not error.unavailable:
                raise
            log.warning("refresh_token_withheld", user_id=user.id, error=str(error))
            return None

    async def _exchange(self, stored: StoredRefreshToken) -> str | None:
        """The successor of a token; None if the token is no longer good. Of several callers at once, one gets it."""
        async with self._manager.new_session() as session:
            repository = RefreshTokenRepository(session)
            if not await repository.use(stored.id, now=self._clock()):
                return None
            return await self._add(
                repository, family_id=stored.family_id, user_id=stored.user_id, credential=stored.credential
            )

    async def _add(
        self, repository: RefreshTokenRepository, *, family_id: uuid.UUID, user_id: str, credential: str
    ) -> str:
        token, now = secrets.token_urlsafe(_TOKEN_BYTES), self._clock()
        await repository.add(
            _hash(token),
            family_id=family_id,
            user_id=user_id,
            credential=credential,
            issued_at=now,
            expires_at=now + self._settings.refresh_token_lifetime,
        )
        return token

    async def _end_family(self, stored: StoredRefreshToken) -> None:
        """Committed before the caller is refused, so that the refusal does not undo it."""
        async with self._manager.new_session() as session:
            await RefreshTokenRepository(session).revoke_family(stored.family_id, now=self._clock())
        log.warning("refresh_token_refused", user_id=stored.user_id, family_id=str(stored.family_id))

    def _tokens(self, user: User, *, refresh_token: str | None) -> IssuedTokens:
        lifetime = self._settings.access_token_lifetime
        access = self._issuer.issue(
            user.id,
            role=Role(user.role.value),
            name=user.display_name,
            is_active=user.is_active,
            lifetime=lifetime,
        )
        return IssuedTokens(access_token=access, expires_in=lifetime, refresh_token=refresh_token)


def _hash(token: str) -> str:
    # Not a slow hash: the token is 256 random bits, not something that could be guessed.
    return hashlib.sha256(token.encode()).hexdigest()


def _refused() -> UnauthenticatedError:
    return UnauthenticatedError("the refresh token is not valid; log in again")


def _refuse_inactive(user: User) -> None:
    if not user.is_active:
        raise PermissionDeniedError("this account is deactivated")
