"""`/users` and `/users/me`: one's own account."""

from __future__ import annotations

from fastapi import APIRouter, Response, status

from backend.shared.api.problems import problem_responses

from ..schemas import PasswordChange, ProfilePatch, RegisterRequest, UserOut
from .dependencies import DepServices, DepUser

router = APIRouter(prefix="/users", tags=["accounts"])
_GONE = problem_responses(404)


@router.post("", status_code=status.HTTP_201_CREATED, summary="Register")
async def register(found: DepServices, request: RegisterRequest, response: Response) -> UserOut:
    user = await found.accounts.register(request.email, password=request.password, profile=request.profile())
    response.headers["Location"] = "/users/me"
    return UserOut.of(user)


@router.get("/me", summary="Read one's account")
async def read_me(user: DepUser) -> UserOut:
    return UserOut.of(user)


@router.patch("/me", summary="Change one's profile", responses=_GONE)
async def update_me(found: DepServices, user: DepUser, patch: ProfilePatch) -> UserOut:
    return UserOut.of(await found.accounts.update_profile(user.id, patch.changes()))


@router.post(
    "/me/password",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Change one's password; ends all sessions",
    responses=_GONE,
)
async def change_password(found: DepServices, user: DepUser, change: PasswordChange) -> None:
    await found.accounts.change_password(user, current=change.current_password, new=change.new_password)


@router.delete(
    "/me",
    status_code=status.HTTP_204_NO_CONTENT,
    summary="Deactivate one's account; not that of the only admin",
    responses=_GONE,
)
async def deactivate_me(found: DepServices, user: DepUser) -> None:
    await found.accounts.deactivate(user.id)
