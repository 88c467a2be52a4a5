"""A side of documents as one process of the notes' service sees it."""

from __future__ import annotations

from typing import Any

from backend.shared.domain.phases import Side
from backend.shared.stores.mongo.collections import Client
from backend.shared.stores.mongo.side import MongoSide
from backend.shared.stores.postgres.names import EngineNames
from tests.support.notes import CATALOG

NAMES = EngineNames("notes")


def note_side(client: Client, database: str, **how: Any) -> MongoSide:
    """The legacy side; `how` is what else `MongoSide` takes."""
    return MongoSide(client, database, Side.LEGACY, names=NAMES, catalog=CATALOG, **how)
