"""What an error of MongoDB's driver means."""

from __future__ import annotations

from bson.errors import BSONError
from pymongo.errors import PyMongoError

from backend.shared import ConflictError, ValidationError
from backend.shared.domain.outages import Outage
from backend.shared.stores.mongo.errors import classify, describe, is_repeatable, outage_of
from backend.shared.stores.protocol import Trouble

from ...domain.errors import StoreError, StoreUnavailableError

_STORE = "MongoDB"


def explain_mongo_error(error: Exception) -> Exception | None:
    """`error` as an error of the ports, or None where it is not the driver's. Its message holds no value of a document."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, OverflowError):
        return ValidationError(f"the {_STORE} store cannot hold this value")
    if not isinstance(error, PyMongoError | BSONError | TimeoutError):
        return None
    match classify(error):
        case Trouble.CLASH:
            return ConflictError("there is one with this value already")
        case Trouble.REFUSED:
            return ValidationError(f"the {_STORE} store cannot hold this value: {describe(error)}")
        case _:
            outage = outage_of(error) or Outage.OTHER
            return StoreUnavailableError(describe(error), store=_STORE, outage=outage)


def is_repeatable_mongo_error(error: Exception) -> bool:
    """Whether the transaction met another one, or lost its connection before the commit, and may simply be run again."""
    return isinstance(error, PyMongoError) and is_repeatable(error)
