"""All repositories of one transaction over rows."""

from __future__ import annotations

from ...domain.people import (
    Assignment,
    AssignmentFilter,
    Label,
    LabelFilter,
    Team,
    TeamFilter,
    User,
    UserFilter,
    WatchList,
    WatchListFilter,
)
from ...domain.tasks import Task, TaskFilter
from ...ports import Repositories
from .repository import RowRepository, Statements
from .shapes import ASSIGNMENT, LABEL, TASK, TEAM, USER, WATCH_LIST


def row_repositories(statements: Statements) -> Repositories:
    """Repositories that work through `statements`."""
    return Repositories(
        tasks=RowRepository[Task, TaskFilter](statements, TASK),
        teams=RowRepository[Team, TeamFilter](statements, TEAM),
        labels=RowRepository[Label, LabelFilter](statements, LABEL),
        assignments=RowRepository[Assignment, AssignmentFilter](statements, ASSIGNMENT),
        watch_lists=RowRepository[WatchList, WatchListFilter](statements, WATCH_LIST),
        users=RowRepository[User, UserFilter](statements, USER),
    )
