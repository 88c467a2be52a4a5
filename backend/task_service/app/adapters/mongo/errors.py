"""What an error of MongoDB's driver means."""

from __future__ import annotations

from bson.errors import BSONError
from pymongo.errors import (
    ConnectionFailure,
    DuplicateKeyError,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
)

from backend.shared import ConflictError, ValidationError

from ...domain.errors import StoreError, StoreRefusedError, StoreTimeoutError, StoreUnavailableError

_STORE = "MongoDB"
_FAILED_VALIDATION = 121
_RETRYABLE = "TransientTransactionError"
_AWAY = frozenset({91, 189, 10107, 11600, 11602, 13435, 13436})
"""Codes of a server that shuts down, or is no primary any more."""


def explain_mongo_error(error: Exception) -> Exception | None:
    """`error` as an error of the ports, or None where it is not the driver's. Its message holds no value of a document."""
    if isinstance(error, StoreError):
        return error
    if isinstance(error, BSONError | OverflowError):
        return ValidationError(f"the {_STORE} store cannot hold this value")
    if not isinstance(error, PyMongoError):
        return None
    if isinstance(error, DuplicateKeyError):
        return ConflictError("there is one with this value already")
    if isinstance(error, ServerSelectionTimeoutError | WaitQueueTimeoutError):
        return StoreUnavailableError(f"not reachable ({type(error).__name__})", store=_STORE)
    if error.timeout:
        return StoreTimeoutError(f"no answer in time ({type(error).__name__})", store=_STORE)
    if isinstance(error, OperationFailure) and not isinstance(error, ConnectionFailure):
        return _of_code(error)
    return StoreUnavailableError(f"not reachable ({type(error).__name__})", store=_STORE)


def is_repeatable_mongo_error(error: Exception) -> bool:
    """Whether the transaction met another one, left nothing behind, and may simply be run again."""
    return (
        isinstance(error, PyMongoError)
        and error.has_error_label(_RETRYABLE)
        and not isinstance(error, ConnectionFailure)
    )


def _of_code(error: OperationFailure) -> Exception:
    if error.code == _FAILED_VALIDATION:
        return ValidationError(f"the {_STORE} store cannot hold this value (code {error.code})")
    if error.has_error_label(_RETRYABLE) or error.code in _AWAY:
        return StoreUnavailableError(f"could not answer (code {error.code})", store=_STORE)
    return StoreRefusedError(f"refused (code {error.code})", store=_STORE)
