"""Labels of tasks. Reading asks for a token; writing is for admins and other services."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from backend.shared.api.pagination import DepPage, Page

from ..domain.people import LabelFilter
from ..fields import Name
from ..schemas import LabelCreate, LabelOut
from .dependencies import READERS, WRITERS, DepSorting
from .paging import after_id, page_of

router = APIRouter(prefix="/labels", tags=["tasks"])


@router.post("", summary="Make a label", status_code=201, dependencies=WRITERS)
async def create_label(sorting: DepSorting, body: LabelCreate) -> LabelOut:
    """409: there is one with this name."""
    return LabelOut.of(await sorting.create_label(name=body.name, color=body.color))


@router.get("", summary="List labels", dependencies=READERS)
async def list_labels(
    sorting: DepSorting,
    page: DepPage,
    name: Annotated[Name | None, Query(description="Only the one with this name.")] = None,
) -> Page[LabelOut]:
    """By id, which is by age."""
    wanted = LabelFilter(name=name)
    found = await sorting.list_labels(wanted, after=after_id(page, "labels"), limit=page.limit + 1)
    return page_of(found, page=page, listing="labels", shown=LabelOut.of)
