"""Puts the validators onto the collections of a server: the migration of the documents' side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import structlog
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import CollectionInvalid, OperationFailure

from ..core.document_rules import UnknownFields, ValidationAction, ValidationLevel
from .models import DOCUMENTS
from .schemas import json_schema

log = structlog.get_logger(__name__)

_NAMESPACE_EXISTS = 48


async def apply_validators(
    database: AsyncDatabase[dict[str, Any]],
    *,
    level: ValidationLevel,
    action: ValidationAction,
    unknown: UnknownFields = UnknownFields.ALLOW,
) -> tuple[str, ...]:
    """Give each of the ten collections its validator, creating those that are missing; answers which were changed.

    No document is looked at. Each collection is a step by itself: after an error, run it again. Raises what the driver
    raises.
    """
    changed = []
    for name in DOCUMENTS:
        wanted = {
            "validator": {"$jsonSchema": json_schema(name, unknown=unknown)},
            "validationLevel": level.value,
            "validationAction": action.value,
        }
        if await _apply(database, name, wanted):
            changed.append(name)
            log.info("validator_applied", collection=name, level=level.value, action=action.value)
    return tuple(changed)


async def _apply(database: AsyncDatabase[dict[str, Any]], name: str, wanted: Mapping[str, Any]) -> bool:
    found = await _options(database, name)
    if found is None:
        try:
            await database.create_collection(name, **wanted)
        except (CollectionInvalid, OperationFailure) as error:
            # A writer, or another migration, was there first.
            if isinstance(error, OperationFailure) and error.code != _NAMESPACE_EXISTS:
                raise
        else:
            return True
    elif all(found.get(option) == value for option, value in wanted.items()):
        return False
    await database.command("collMod", name, **wanted)
    return True


async def _options(database: AsyncDatabase[dict[str, Any]], name: str) -> Mapping[str, Any] | None:
    """The options of a collection; None if there is none."""
    async with await database.list_collections(filter={"name": name}) as cursor:
        async for entry in cursor:
            options: Mapping[str, Any] = entry.get("options", {})
            return options
    return None
