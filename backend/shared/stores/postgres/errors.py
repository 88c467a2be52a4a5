"""What a PostgreSQL error means to the engine, by SQLSTATE (PostgreSQL manual, appendix A)."""

from __future__ import annotations

from sqlalchemy.exc import DBAPIError, InterfaceError, MultipleResultsFound, NoResultFound, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from backend.shared.domain.outages import Outage
from backend.shared.stores.protocol import OutdatedReadError, Trouble

UNIQUE_VIOLATION = "23505"
FOREIGN_KEY_VIOLATION = "23503"
SERIALIZATION_FAILURE = "40001"
DEADLOCK_DETECTED = "40P01"
LOCK_NOT_AVAILABLE = "55P03"
INTERNAL_PYTHON_VALUE = "22000"

# Class 22 is "data exception", 23 "integrity constraint violation", 44 "with check option"; P0001 is RAISE EXCEPTION
# in a trigger of the user's. All else says nothing about the row at hand.
_REFUSALS = ("22", "23", "44", "P0001")
_WIRE_ERRORS = (OSError, InterfaceError)


class ConnectTimeoutError(TimeoutError):
    """No connection could be made in time. Nothing was sent."""


def sqlstate_of(error: BaseException) -> str | None:
    """The SQLSTATE of an error that came through SQLAlchemy or straight from asyncpg, if it has one."""
    for candidate in (
        error,
        getattr(error, "orig", None),
        getattr(getattr(error, "orig", None), "__cause__", None),
    ):
        state = getattr(candidate, "sqlstate", None)
        if isinstance(state, str):
            return state
    return None


def constraint_of(error: BaseException) -> tuple[str | None, str | None]:
    """(table, constraint) that an integrity error names."""
    for candidate in (
        getattr(getattr(error, "orig", None), "__cause__", None),
        getattr(error, "orig", None),
        error,
    ):
        name = getattr(candidate, "constraint_name", None)
        if isinstance(name, str):
            return getattr(candidate, "table_name", None), name
    return None, None


def classify(error: BaseException) -> Trouble:
    """What to do about `error`. Only `REFUSED` (and an unresolved `CLASH`) counts as an attempt."""
    state = sqlstate_of(error)
    if state == UNIQUE_VIOLATION:
        return Trouble.CLASH
    if state == FOREIGN_KEY_VIOLATION:
        return Trouble.MISSING_PARENT
    if state and state.startswith(_REFUSALS):
        return Trouble.REFUSED
    return Trouble.UNAVAILABLE


def is_connection_loss(error: BaseException) -> bool:
    """Whether the connection is gone. A full pool and a statement that takes too long are no such thing."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    state = sqlstate_of(error)
    if state is not None:
        return state.startswith(("08", "57P"))
    if is_timeout(error):
        return False
    return isinstance(error, _WIRE_ERRORS) or "connection" in str(error).lower()


def is_timeout(error: BaseException) -> bool:
    """Whether somebody gave up waiting: for the pool, for the server to accept, or for a statement."""
    return isinstance(error, TimeoutError | PoolTimeoutError) or isinstance(
        getattr(error, "orig", None), TimeoutError
    )


def is_unreachable(error: BaseException) -> bool:
    """Whether the server could not be reached or did not answer in time; a full pool is this process's own affair."""
    return is_connection_loss(error) or (is_timeout(error) and not isinstance(error, PoolTimeoutError))


def outage_of(error: BaseException) -> Outage | None:
    """What kept the database from answering; None where it refused the data."""
    if classify(error) is not Trouble.UNAVAILABLE:
        return None
    if isinstance(error, PoolTimeoutError):
        return Outage.POOL_FULL
    state = sqlstate_of(error)
    if state is not None and (known := _OUTAGES.get(state) or _OUTAGE_CLASSES.get(state[:2])):
        return known
    if is_connection_loss(error) or isinstance(error, ConnectTimeoutError):
        return Outage.UNREACHABLE
    return Outage.NO_ANSWER if is_timeout(error) else Outage.OTHER


def says_nothing_of_a_commit(error: BaseException) -> bool:
    """Whether a COMMIT that ended so may have been done or not."""
    return sqlstate_of(error) is None or is_connection_loss(error)


def is_repeatable(error: BaseException) -> bool:
    """Whether the transaction may simply be run again: a deadlock or a serialization failure."""
    return sqlstate_of(error) in (SERIALIZATION_FAILURE, DEADLOCK_DETECTED)


def may_pass(error: BaseException) -> bool:
    """Whether the same may succeed later without anybody's doing: outages, deadlocks, full pools and disks."""
    if isinstance(error, OutdatedReadError) or is_connection_loss(error) or is_timeout(error):
        return True
    state = sqlstate_of(error)
    return state is None or state == LOCK_NOT_AVAILABLE or state.startswith(("08", "40", "53", "57", "58"))


def is_database_error(error: BaseException) -> bool:
    """Whether `error` came from a database, its driver or the way to it. An answer that the caller did not expect is her own affair."""
    if isinstance(error, NoResultFound | MultipleResultsFound):
        return False
    return (
        isinstance(error, SQLAlchemyError | OSError | TimeoutError)
        or sqlstate_of(error) is not None
        or (type(error).__module__.startswith("asyncpg"))
    )


def describe(error: BaseException) -> str:
    """One line about `error` that holds no row's values and no password.

    PostgreSQL puts values of the row into DETAIL and, for class 22, into the message itself: so neither is repeated.
    """
    state = sqlstate_of(error)
    table, constraint = constraint_of(error)
    if isinstance(error, OutdatedReadError):
        return "a backfill copies newer state faster than this one can be read"
    if state is None:
        if isinstance(error, PoolTimeoutError):
            return "no connection free in time"
        root = getattr(error, "orig", None) or error
        return f"not reachable ({type(root).__name__})"
    text = _STATES.get(state) or _CLASSES.get(state[:2]) or "database error"
    where = f" by {constraint}" if constraint else ""
    column = getattr(getattr(getattr(error, "orig", None), "__cause__", None), "column_name", None)
    where += f" in column {column}" if isinstance(column, str) else ""
    where += f" of {table}" if table else ""
    return f"{text}{where} (SQLSTATE {state})"


_STATES = {
    UNIQUE_VIOLATION: "unique value refused",
    FOREIGN_KEY_VIOLATION: "foreign key refused",
    "23502": "null refused",
    "23514": "check refused",
    "22001": "text too long",
    "22003": "number out of range",
    "22P02": "text is not a value of the column's type",
    SERIALIZATION_FAILURE: "serialization failure",
    DEADLOCK_DETECTED: "deadlock",
    LOCK_NOT_AVAILABLE: "lock not available in time",
    "57014": "statement cancelled or timed out",
    "42501": "permission missing",
    "42P01": "table missing",
    "42703": "column missing",
}
_CLASSES = {
    "08": "connection failed",
    "22": "data refused",
    "23": "constraint refused",
    "28": "login refused",
    "3D": "database missing",
    "53": "out of resources",
    "57": "server is shutting down or starting",
    "P0": "refused by a trigger",
}
_OUTAGES = {
    SERIALIZATION_FAILURE: Outage.CONTENDED,
    DEADLOCK_DETECTED: Outage.CONTENDED,
    "55P03": Outage.LOCK_TIMEOUT,
    "57014": Outage.STATEMENT_TIMEOUT,
}
_OUTAGE_CLASSES = {"08": Outage.UNREACHABLE, "53": Outage.OVERLOADED, "57": Outage.UNREACHABLE}
