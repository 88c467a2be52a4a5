"""All SQL of the service. What concerns users runs on whichever side is authoritative, through the new side's shape."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import FromClause, Select, and_, case, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from backend.shared import Repository, UnitOfWork

from .entities import NewUser, Profile, ProfileChanges, User, UserRole
from .legacy import USER
from .models import refresh_tokens, user_profiles

_PROFILE_COLUMNS = tuple(column.name for column in user_profiles.c if column.name != "user_id")
_EXPIRED_TOKENS_PER_SWEEP = 100


@dataclass(frozen=True, kw_only=True)
class UserFilter:
    """Which users to list; None asks for all."""

    email: str | None = None
    text: str | None = None
    role: UserRole | None = None
    is_active: bool | None = None


class UserRepository(Repository[User]):
    """Users of the side that a unit of work runs on."""

    entity = USER

    def __init__(self, uow: UnitOfWork) -> None:
        super().__init__(uow)
        self._profiles = uow.shape(user_profiles)

    async def find_by_email(self, email: str) -> User | None:
        """The user of this address as typed; else the only one whose address differs by letter case alone.

        It takes as long for an address that nobody has. Legacy has no index for it: where many thousands of users log
        in there, one on `lower(login_email)` pays.
        """
        matches = (
            select(self._root)
            .where(func.lower(self._root.c.email) == func.lower(email))
            .order_by(case((self._root.c.email == email, 0), else_=1), self._root.c.id)
            .limit(2)
            .subquery(
                "matches"
            )  # limited before the join, or the planner expects many and reads all profiles
        )
        found = await self._all(self._with_profiles(matches))
        if exact := [user for user in found if user.email == email]:
            return exact[0]
        # Twins of an old program's making: neither is meant more than the other.
        return found[0] if len(found) == 1 else None

    async def is_taken(self, email: str) -> bool:
        """Whether an address is in use, in any letter case. From here on nobody else can take it until the unit ends."""
        lock = func.pg_advisory_xact_lock(func.hashtextextended(func.lower(f"tandem auth e-mail {email}"), 0))
        await self._work.execute(select(lock))
        # A statement of its own, so that it sees what the one before us in the queue has committed.
        query = select(self._root.c.id).where(func.lower(self._root.c.email) == func.lower(email)).limit(1)
        return bool(await self._work.rows(query))

    async def is_only_admin(self, user: User) -> bool:
        """Whether nobody else is an active admin, while she is one."""
        if user.role is not UserRole.ADMIN or not user.is_active:
            return False
        wanted = UserFilter(role=UserRole.ADMIN, is_active=True)
        others = self._filtered(select(self._root.c.id), wanted).where(self._root.c.id != user.id)
        return not await self._work.rows(others.limit(1))

    async def list(self, wanted: UserFilter, *, after_id: str | None, limit: int) -> Sequence[User]:
        """Up to `limit` users with ids above `after_id`, by rising id."""
        query = self._filtered(self._with_profiles(self._root, after_id=after_id), wanted)
        if after_id is not None:
            query = query.where(self._root.c.id > after_id)
        return await self._all(query.order_by(self._root.c.id).limit(limit))

    async def ids(self, *, after_id: str | None, limit: int) -> Sequence[str]:
        """Up to `limit` ids above `after_id`, in the order of this side."""
        query = select(self._root.c.id).order_by(self._root.c.id).limit(limit)
        if after_id is not None:
            query = query.where(self._root.c.id > after_id)
        return [row["id"] for row in await self._work.rows(query)]

    async def hold_many(self, user_ids: Sequence[str]) -> Sequence[User]:
        """Those of `user_ids` that exist; nobody changes them until the unit ends."""
        await self._work.keep_still(USER, [(user_id,) for user_id in user_ids])
        return await self._all(self._with_profiles(self._root).where(self._root.c.id.in_(user_ids)))

    async def add(self, user: NewUser, *, now: datetime) -> User:
        """Insert a user; her id is made here if she has none."""
        user_id = user.id or f"u{uuid.uuid4().hex}"
        await self._insert(
            id=user_id,
            email=user.email,
            password_hash=user.password_hash,
            role=user.role.value,
            is_active=user.is_active,
            created_at=now,
            updated_at=None,
            **{name: getattr(user.profile, name) for name in _PROFILE_COLUMNS},
        )
        return User(
            id=user_id,
            email=user.email,
            password_hash=user.password_hash,
            role=user.role,
            is_active=user.is_active,
            created_at=now,
            updated_at=None,
            profile=user.profile,
        )

    async def change_profile(self, user_id: str, changes: ProfileChanges, *, now: datetime) -> None:
        """Change what `changes` names."""
        await self._change(user_id, **changes, updated_at=now)

    async def change_password(self, user_id: str, password_hash: str, *, now: datetime) -> None:
        """Put another hash in the place of the present one."""
        await self._change(user_id, password_hash=password_hash, updated_at=now)

    async def change_state(self, user_id: str, *, is_active: bool, now: datetime) -> None:
        """Activate or deactivate a user."""
        await self._change(user_id, is_active=is_active, updated_at=now)

    async def change_role(self, user_id: str, role: UserRole, *, now: datetime) -> None:
        """Give a user another role."""
        await self._change(user_id, role=role.value, updated_at=now)

    def _query(self) -> Select[Any]:
        return self._with_profiles(self._root)

    def _with_profiles(self, found: FromClause, *, after_id: str | None = None) -> Select[Any]:
        """The users `found`, each with her profile; `after_id` spares reading the profiles of those before."""
        joined = self._profiles.c.user_id == found.c.id
        if after_id is not None:
            joined = and_(joined, self._profiles.c.user_id > after_id)
        profile = [self._profiles.c[name] for name in _PROFILE_COLUMNS]
        return select(found, *profile).select_from(found.outerjoin(self._profiles, joined))

    def _filtered(self, query: Select[Any], wanted: UserFilter) -> Select[Any]:
        found = self._root
        if wanted.email is not None:
            query = query.where(func.lower(found.c.email) == func.lower(wanted.email))
        if wanted.text is not None:
            fields = (found.c.email, self._profiles.c.first_name, self._profiles.c.last_name)
            query = query.where(or_(*(item.icontains(wanted.text, autoescape=True) for item in fields)))
        if wanted.role is not None:
            query = query.where(found.c.role == wanted.role.value)
        if wanted.is_active is not None:
            query = query.where(found.c.is_active.is_(wanted.is_active))
        return query

    def _object(self, row: dict[str, Any]) -> User:
        """A row as an entity. A role or flag that legacy holds and nobody understands opens nothing."""
        profile = {name: row[name] for name in _PROFILE_COLUMNS}
        return User(
            id=row["id"],
            email=row["email"],
            password_hash=row["password_hash"],
            role=UserRole(row["role"] or UserRole.USER),
            is_active=bool(row["is_active"]),
            created_at=row["created_at"],
            updated_at=row["updated_at"],
            profile=Profile(**profile | {"newsletter": bool(profile["newsletter"])}),
        )


@dataclass(frozen=True, kw_only=True)
class StoredRefreshToken:
    """What is known of a refresh token."""

    id: int
    family_id: uuid.UUID
    user_id: str
    credential: str
    expires_at: datetime
    used_at: datetime | None
    revoked_at: datetime | None


class RefreshTokenRepository:
    """Refresh tokens, kept on the new side alone. The caller owns the session and its transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def find(self, token_hash: str) -> StoredRefreshToken | None:
        """The token of this hash, in whatever state."""
        row = (
            (
                await self._session.execute(
                    select(
                        *(refresh_tokens.c[name] for name in StoredRefreshToken.__dataclass_fields__)
                    ).where(refresh_tokens.c.token_hash == token_hash)
                )
            )
            .mappings()
            .first()
        )
        return StoredRefreshToken(**row) if row is not None else None

    async def add(
        self,
        token_hash: str,
        *,
        family_id: uuid.UUID,
        user_id: str,
        credential: str,
        issued_at: datetime,
        expires_at: datetime,
    ) -> None:
        """Remember a token that is being given out."""
        await self._session.execute(
            insert(refresh_tokens).values(
                token_hash=token_hash,
                family_id=family_id,
                user_id=user_id,
                credential=credential,
                issued_at=issued_at,
                expires_at=expires_at,
            )
        )

    async def use(self, token_id: int, *, now: datetime) -> bool:
        """Mark a token as exchanged; False if it no longer can be. Of several callers at once, one gets True."""
        found = await self._session.execute(
            update(refresh_tokens)
            .where(
                refresh_tokens.c.id == token_id,
                refresh_tokens.c.used_at.is_(None),
                refresh_tokens.c.revoked_at.is_(None),
                refresh_tokens.c.expires_at > now,
            )
            .values(used_at=now)
            .returning(refresh_tokens.c.id)
        )
        return found.first() is not None

    async def revoke_family(self, family_id: uuid.UUID, *, now: datetime) -> None:
        """End every token that descends from one log-in."""
        await self._revoke(refresh_tokens.c.family_id == family_id, now=now)

    async def revoke_user(self, user_id: str, *, now: datetime) -> None:
        """End every token of a user."""
        await self._revoke(refresh_tokens.c.user_id == user_id, now=now)

    async def remove_expired(self, *, now: datetime) -> None:
        """Remove some of the tokens that expired, whoever's they are. Never waits for another who does the same."""
        expired = (
            select(refresh_tokens.c.id)
            .where(refresh_tokens.c.expires_at < now)
            .order_by(refresh_tokens.c.expires_at)
            .limit(_EXPIRED_TOKENS_PER_SWEEP)
            .with_for_update(skip_locked=True)
        )
        await self._session.execute(delete(refresh_tokens).where(refresh_tokens.c.id.in_(expired)))

    async def _revoke(self, condition: Any, *, now: datetime) -> None:
        await self._session.execute(
            update(refresh_tokens)
            .where(condition, refresh_tokens.c.revoked_at.is_(None))
            .values(revoked_at=now)
        )
