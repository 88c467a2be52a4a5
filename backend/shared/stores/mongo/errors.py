"""What a MongoDB error means to the engine, by code (MongoDB manual, "Error Codes") and by label.

The functions are those of `stores.postgres.errors`; `stores.errors` chooses between the two.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from bson.errors import BSONError
from pymongo.errors import (
    BulkWriteError,
    ClientBulkWriteException,
    ConnectionFailure,
    DocumentTooLarge,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteError,
)

from backend.shared.domain.outages import Outage
from backend.shared.stores.protocol import OutdatedReadError, Trouble


class UnfitRowsError(BSONError):
    """Rows of keys that no document can hold: a refusal. `reasons`, by canonical key, hold no value."""

    def __init__(self, reasons: Mapping[str, str]) -> None:
        super().__init__("; ".join(list(dict.fromkeys(reasons.values()))[:_MAX_FIELDS]))
        self.reasons = dict(reasons)


TRANSIENT = "TransientTransactionError"
UNKNOWN_COMMIT = "UnknownTransactionCommitResult"
WRITE_CONFLICT = "mongo:112"
LOCK_TIMEOUT = "mongo:24"
DUPLICATE_KEY = "mongo:11000"
VALIDATION_FAILURE = "mongo:121"

_PREFIX = "mongo:"
_DUPLICATE_KEYS = frozenset({11000, 11001, 12582})
# All else says nothing about the document at hand.
_REFUSALS: Mapping[int, str] = {
    2: "value refused",
    14: "value of the wrong type",
    15: "number out of range",
    22: "not valid BSON",
    28: "path into a value that is no document",
    52: "field name begins with a dollar",
    54: "several values for a field that takes one",
    56: "field name is empty",
    57: "field name holds a dot",
    66: "field cannot be changed",
    121: "refused by the collection's schema",
    171: "two arrays in one index",
    10334: "document too large",
    16755: "no geometry that the index can take",
    17280: "key too long for its index",
    17419: "document too large after the update",
    17420: "document too large after the update",
}
_CONNECTION_LOSSES = frozenset({6, 7, 89, 91, 189, 9001, 10058, 10107, 11600, 11602, 13435, 13436})
_TIMEOUTS: Mapping[int, str] = {
    24: "lock not available in time",
    50: "operation timed out",
    202: "operation timed out between servers",
    262: "operation timed out",
}
_OTHERS: Mapping[int, str] = {
    13: "permission missing",
    18: "login refused",
    26: "collection missing",
    64: "not written durably in time",
    91: "server is shutting down or starting",
    112: "write conflict",
    133: "no server that may be written to",
    146: "out of memory",
    251: "transaction is gone",
    286: "change stream's history is lost",
    8000: "refused by the provider",
    11600: "server is shutting down or starting",
    11602: "interrupted: the primary has changed",
    10107: "not the primary",
    13435: "not the primary",
    13436: "server is recovering",
    14031: "out of disk space",
}
_OUTAGES = {
    24: Outage.LOCK_TIMEOUT,
    50: Outage.STATEMENT_TIMEOUT,
    64: Outage.NO_ANSWER,
    112: Outage.CONTENDED,
    133: Outage.UNREACHABLE,
    146: Outage.OVERLOADED,
    251: Outage.CONTENDED,
    262: Outage.STATEMENT_TIMEOUT,
    14031: Outage.OVERLOADED,
}
_TEXTS = {**dict.fromkeys(_DUPLICATE_KEYS, "unique value refused"), **_REFUSALS, **_TIMEOUTS, **_OTHERS}
# What follows are values.
_DUPLICATE = re.compile(
    r"E11\d+ duplicate key error (?:collection|index): (.+?) (?:index: (.+?) )?dup key", re.DOTALL
)
_MAX_FIELDS = 5


def sqlstate_of(error: BaseException) -> str | None:
    """The server's code of an error as `mongo:112`, if it has one; of a bulk write the first write's that failed."""
    code = _code_of(error)
    return None if code is None else f"{_PREFIX}{code}"


def constraint_of(error: BaseException) -> tuple[str | None, str | None]:
    """(collection, index) that a duplicate key error names."""
    if _code_of(error) not in _DUPLICATE_KEYS:
        return None, None
    found = _DUPLICATE.match(_details_of(error).get("errmsg") or str(error))
    if found is None or found[2] is None:
        return None, None
    return found[1].partition(".")[2] or found[1], found[2]


def classify(error: BaseException) -> Trouble:
    """What to do about `error`. Only `REFUSED` (and an unresolved `CLASH`) counts as an attempt."""
    code = _code_of(error)
    if code in _DUPLICATE_KEYS:
        return Trouble.CLASH
    if code in _REFUSALS or isinstance(error, BSONError):
        return Trouble.REFUSED
    return Trouble.UNAVAILABLE


def is_connection_loss(error: BaseException) -> bool:
    """Whether the connection, or the primary, is gone. A full pool and an operation that takes too long are no such thing."""
    if is_timeout(error) or has_label(error, UNKNOWN_COMMIT):
        return False  # whoever repeats after a loss must not repeat what may have been done
    return isinstance(error, ConnectionFailure | OSError) or _code_of(error) in _CONNECTION_LOSSES


def is_timeout(error: BaseException) -> bool:
    """Whether somebody gave up waiting: for the pool, for a server to be found, or for an operation."""
    if isinstance(error, PyMongoError) and error.timeout:
        return True
    return isinstance(error, TimeoutError) or _code_of(error) in _TIMEOUTS


def is_unreachable(error: BaseException) -> bool:
    """Whether the server could not be reached or did not answer in time; a full pool is this process's own affair.

    An operation that the server itself gave up has been answered.
    """
    if isinstance(error, WaitQueueTimeoutError):
        return False
    return isinstance(error, ConnectionFailure | TimeoutError) or is_connection_loss(error)


def outage_of(error: BaseException) -> Outage | None:
    """What kept the database from answering; None where it refused the data."""
    if classify(error) is not Trouble.UNAVAILABLE:
        return None
    if isinstance(error, WaitQueueTimeoutError):
        return Outage.POOL_FULL
    if has_label(error, UNKNOWN_COMMIT):
        return Outage.NO_ANSWER
    if known := _OUTAGES.get(_code_of(error) or 0):
        return known
    if isinstance(error, ServerSelectionTimeoutError) or is_connection_loss(error):
        return Outage.UNREACHABLE
    if is_timeout(error):
        return Outage.NO_ANSWER
    return Outage.CONTENDED if is_repeatable(error) else Outage.OTHER


def says_nothing_of_a_commit(error: BaseException) -> bool:
    """Whether a commit that ended so may have been done or not."""
    if has_label(error, UNKNOWN_COMMIT):
        return True
    if has_label(error, TRANSIENT):
        return False
    return is_unreachable(error) or not isinstance(error, PyMongoError)


def is_repeatable(error: BaseException) -> bool:
    """Whether the transaction may simply be run again: it met a conflict, or its connection was lost before the commit.

    Of what took as long as it may, once is enough: a full pool, a server that is not found, one that does not answer. (The
    wait for a lock inside a transaction is 5 ms.)
    """
    if has_label(error, UNKNOWN_COMMIT):
        return False
    code = sqlstate_of(error)
    if is_timeout(error) and code != LOCK_TIMEOUT:
        return False
    return has_label(error, TRANSIENT) or code == WRITE_CONFLICT


def may_pass(error: BaseException) -> bool:
    """Whether the same may succeed later without anybody's doing: outages, conflicts, full pools and disks."""
    if isinstance(error, OutdatedReadError):
        return True
    passing = is_connection_loss(error) or is_timeout(error) or is_repeatable(error)
    return passing or _code_of(error) in (64, 133, 14031)


def is_database_error(error: BaseException) -> bool:
    """Whether `error` came from MongoDB, its driver or the way to it."""
    return isinstance(error, PyMongoError | BSONError | OSError | TimeoutError)


def has_label(error: BaseException, label: str) -> bool:
    """Whether the server or the driver gave `error` this label."""
    return isinstance(error, PyMongoError) and error.has_error_label(label)


def describe(error: BaseException) -> str:
    """One line about `error` that holds no document's values and no password.

    MongoDB puts values into the message (duplicate keys) and into the details (schemas); so neither is repeated, and of
    a schema's refusal only the names of fields that the schema itself has.
    """
    if isinstance(error, OutdatedReadError):
        return "a backfill copies newer state faster than this one can be read"
    if isinstance(error, UnfitRowsError):
        return str(error)
    if isinstance(error, BSONError):
        return "document too large" if isinstance(error, DocumentTooLarge) else "cannot be written as BSON"
    code = _code_of(error)
    if code is None:
        return _describe_without_code(error)
    collection, index = constraint_of(error)
    where = f" by {index}" if index else ""
    if code == 121:
        fields = list(dict.fromkeys(_refused_fields(_details_of(error))))[:_MAX_FIELDS]
        where += f" in {', '.join(fields)}" if fields else ""
    where += f" of {collection}" if collection else ""
    return f"{_TEXTS.get(code, 'database error')}{where} (code {code})"


def _describe_without_code(error: BaseException) -> str:
    if has_label(error, UNKNOWN_COMMIT):
        return "no answer to the commit, outcome unknown"
    if isinstance(error, WaitQueueTimeoutError):
        return "no connection free in time"
    if isinstance(error, ServerSelectionTimeoutError):
        return "not reachable (no server found in time)"
    if isinstance(error, NetworkTimeout):
        return "not reachable (no answer in time)"
    if is_unreachable(error):
        return f"not reachable ({type(error).__name__})"
    return f"database error ({type(error).__name__})"


def _details_of(error: BaseException) -> Mapping[str, Any]:
    """What the server said, of a bulk write about the first write that failed."""
    if isinstance(error, ClientBulkWriteException) and error.write_errors:
        first: Any = error.write_errors[0]
        return first if isinstance(first, Mapping) else (first.details or {})
    found = getattr(error, "details", None)
    details: Mapping[str, Any] = found if isinstance(found, Mapping) else {}
    if isinstance(error, BulkWriteError):
        failed = [*details.get("writeErrors", ()), *details.get("writeConcernErrors", ())]
        return failed[0] if failed else details
    return details


def _code_of(error: BaseException) -> int | None:
    bulk = isinstance(error, BulkWriteError | ClientBulkWriteException)
    if isinstance(error, OperationFailure | WriteError) and not bulk:
        return error.code
    code = _details_of(error).get("code")
    return code if isinstance(code, int) else None


def _refused_fields(details: Mapping[str, Any]) -> Iterator[str]:
    """Fields that the schema asks for, as the server names them when it refuses a document.

    Names of fields that the schema does not know come from the document, and are left out.
    """
    said = details.get("errInfo", {}).get("details", {})
    for rule in said.get("schemaRulesNotSatisfied", ()):
        yield from (str(name) for name in rule.get("missingProperties", ()))
        for field in rule.get("propertiesNotSatisfied", ()):
            yield str(field.get("propertyName"))


__all__ = [
    "DUPLICATE_KEY",
    "LOCK_TIMEOUT",
    "TRANSIENT",
    "UNKNOWN_COMMIT",
    "VALIDATION_FAILURE",
    "WRITE_CONFLICT",
    "UnfitRowsError",
    "classify",
    "constraint_of",
    "describe",
    "has_label",
    "is_connection_loss",
    "is_database_error",
    "is_repeatable",
    "is_timeout",
    "is_unreachable",
    "may_pass",
    "outage_of",
    "says_nothing_of_a_commit",
    "sqlstate_of",
]
