"""Users, teams and watch lists: for admins and other services, for addresses and invite codes are nobody else's affair."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from backend.shared.api.pagination import DepPage, Page

from ..domain.people import AssignmentFilter, TeamFilter, UserFilter, WatchListFilter
from ..fields import Email, Id, TeamId, UserId, WatchListId
from ..schemas import (
    AssignmentOut,
    TeamCreate,
    TeamOut,
    UserCreate,
    UserOut,
    WatchListCreate,
    WatchListOut,
)
from .dependencies import CREATED, WRITERS, DepAssignments, DepPeople, DepSorting
from .paging import after_id, page_of

users = APIRouter(prefix="/users", tags=["people"], dependencies=WRITERS)
teams = APIRouter(prefix="/teams", tags=["people"], dependencies=WRITERS)
watch_lists = APIRouter(prefix="/watch-lists", tags=["people"], dependencies=WRITERS)


@users.post("", summary="Make a user known", status_code=201, responses=CREATED)
async def create_user(people: DepPeople, body: UserCreate, response: Response) -> UserOut:
    """409: somebody has this address."""
    user = await people.create_user(email=body.email, name=body.name, google_id=body.google_id)
    response.headers["Location"] = f"{users.prefix}/{user.id}"
    return UserOut.of(user)


@users.get("", summary="List users")
async def list_users(
    people: DepPeople,
    page: DepPage,
    email: Annotated[Email | None, Query(description="Only who has this address.")] = None,
) -> Page[UserOut]:
    """By id, which is by age."""
    wanted = UserFilter(email=email)
    found = await people.list_users(wanted, after=after_id(page, "users"), limit=page.limit + 1)
    return page_of(found, page=page, listing="users", shown=UserOut.of)


@users.get("/{user_id}", summary="One user")
async def get_user(people: DepPeople, user_id: UserId) -> UserOut:
    return UserOut.of(await people.get_user(user_id))


@users.get("/{user_id}/assignments", summary="What is a user's to do")
async def list_users_assignments(
    assignments: DepAssignments, page: DepPage, user_id: UserId
) -> Page[AssignmentOut]:
    wanted = AssignmentFilter(user_id=user_id)
    found = await assignments.list(wanted, after=after_id(page, "users-assignments"), limit=page.limit + 1)
    return page_of(found, page=page, listing="users-assignments", shown=AssignmentOut.of)


@teams.post("", summary="Make a team", status_code=201, responses=CREATED)
async def create_team(people: DepPeople, body: TeamCreate, response: Response) -> TeamOut:
    """409: its maker does not exist."""
    team = await people.create_team(name=body.name, created_by=body.created_by)
    response.headers["Location"] = f"{teams.prefix}/{team.id}"
    return TeamOut.of(team)


@teams.get("", summary="List teams")
async def list_teams(
    people: DepPeople,
    page: DepPage,
    created_by: Annotated[Id | None, Query(description="Only this user's making.")] = None,
) -> Page[TeamOut]:
    """By id, which is by age."""
    wanted = TeamFilter(created_by=created_by)
    found = await people.list_teams(wanted, after=after_id(page, "teams"), limit=page.limit + 1)
    return page_of(found, page=page, listing="teams", shown=TeamOut.of)


@teams.get("/{team_id}", summary="One team")
async def get_team(people: DepPeople, team_id: TeamId) -> TeamOut:
    return TeamOut.of(await people.get_team(team_id))


@watch_lists.post("", summary="Make a watch list", status_code=201)
async def create_watch_list(sorting: DepSorting, body: WatchListCreate) -> WatchListOut:
    """409: the user does not exist."""
    return WatchListOut.of(await sorting.create_watch_list(name=body.name, user_id=body.user_id))


@watch_lists.get("", summary="List watch lists")
async def list_watch_lists(
    sorting: DepSorting,
    page: DepPage,
    user_id: Annotated[Id | None, Query(description="Only this user's.")] = None,
) -> Page[WatchListOut]:
    """By id, which is by age."""
    wanted = WatchListFilter(user_id=user_id)
    found = await sorting.list_watch_lists(wanted, after=after_id(page, "watch-lists"), limit=page.limit + 1)
    return page_of(found, page=page, listing="watch-lists", shown=WatchListOut.of)


@watch_lists.delete("/{watch_list_id}", summary="Delete a watch list", status_code=204)
async def delete_watch_list(sorting: DepSorting, watch_list_id: WatchListId) -> None:
    await sorting.delete_watch_list(watch_list_id)
