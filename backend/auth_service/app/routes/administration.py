"""`/users` for admins: list, read, bar, let in, promote. Reading is open to other services too."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query

from backend.shared.api.fields import PathKey
from backend.shared.api.pagination import DepPage, Page

from ..entities import User, UserRole
from ..repositories import UserFilter
from ..schemas import LoginText, RoleChange, SearchText, UserOut
from .dependencies import DepAdmin, DepServices, reader

router = APIRouter(prefix="/users", tags=["administration"])
_LISTING = "users"
_READERS = [Depends(reader)]


def user_filter(
    email: Annotated[LoginText | None, Query(description="This address, in any letter case.")] = None,
    search: Annotated[SearchText | None, Query(description="Part of the address or of a name.")] = None,
    role: Annotated[Literal["user", "admin"] | None, Query()] = None,
    status: Annotated[Literal["active", "deactivated"] | None, Query()] = None,
) -> UserFilter:
    """The query parameters that narrow the listing."""
    return UserFilter(
        email=email,
        text=search,
        role=UserRole(role) if role else None,
        is_active=status == "active" if status else None,
    )


@router.get("", summary="List users, by id", dependencies=_READERS)
async def list_users(
    found: DepServices, wanted: Annotated[UserFilter, Depends(user_filter)], request: DepPage
) -> Page[UserOut]:
    seen = request.after(_LISTING, types=(str,))
    users = await found.administration.list(
        wanted, after_id=str(seen[0]) if seen else None, limit=request.limit + 1
    )
    page: Page[User] = request.page(users, listing=_LISTING, key=lambda user: (user.id,))
    return Page(items=[UserOut.of(user) for user in page.items], next_cursor=page.next_cursor)


@router.get("/{user_id}", summary="Read a user", dependencies=_READERS)
async def read_user(found: DepServices, user_id: PathKey) -> UserOut:
    return UserOut.of(await found.administration.get(user_id))


@router.post("/{user_id}/deactivate", summary="Bar a user from logging in")
async def deactivate_user(found: DepServices, admin: DepAdmin, user_id: PathKey) -> UserOut:
    return UserOut.of(await found.administration.deactivate(user_id, admin_id=admin.id))


@router.post("/{user_id}/reactivate", summary="Let a user log in again")
async def reactivate_user(found: DepServices, admin: DepAdmin, user_id: PathKey) -> UserOut:  # noqa: ARG001 - asked for its check
    return UserOut.of(await found.administration.reactivate(user_id))


@router.put("/{user_id}/role", summary="Give a user a role")
async def set_role(found: DepServices, admin: DepAdmin, user_id: PathKey, change: RoleChange) -> UserOut:
    return UserOut.of(await found.administration.set_role(user_id, change.wanted(), admin_id=admin.id))
