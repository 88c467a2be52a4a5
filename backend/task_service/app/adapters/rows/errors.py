"""What an error of a database with rows means, whichever driver and package it came through."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from backend.shared import ConflictError, ValidationError
from backend.shared.domain.outages import Outage
from backend.shared.stores.postgres.errors import outage_of

from ...domain.errors import StoreError, StoreUnavailableError

_UNIQUE, _FOREIGN = "23505", "23503"
_TAKEN = "there is one with this value already"
_REFERRED = "something that this refers to, or that refers to this, was changed at the same time"
_REPEATABLE = frozenset({"40001", "40P01"})
_SQLITE_OUTAGES = {
    sqlite3.SQLITE_BUSY: Outage.LOCK_TIMEOUT,
    sqlite3.SQLITE_LOCKED: Outage.LOCK_TIMEOUT,
    sqlite3.SQLITE_CANTOPEN: Outage.UNREACHABLE,
    sqlite3.SQLITE_IOERR: Outage.UNREACHABLE,
    sqlite3.SQLITE_FULL: Outage.OVERLOADED,
}


def explain_row_error(error: Exception, *, store: str, packages: tuple[str, ...]) -> Exception | None:
    """`error` as an error of the ports, or None where it came neither from a driver nor from one of `packages`.

    Its message holds no value of a row: databases quote those in theirs.
    """
    if isinstance(error, StoreError):
        return error
    causes = list(_causes(error))
    for cause in causes:
        state = getattr(cause, "sqlstate", None)
        if isinstance(state, str):
            return explain_refusal(state, store=store) or _of_sqlstate(state, cause, store=store)
        if isinstance(cause, sqlite3.Error):
            return _of_sqlite(cause, store=store)
    known = ("asyncpg", "aiosqlite", *packages)
    if isinstance(error, OSError) or type(error).__module__.split(".")[0] in known:
        return _of_waiting(causes, store=store)
    return None


def is_repeatable_row_error(error: Exception) -> bool:
    """Whether the transaction left nothing behind and may simply be run again: deadlock, serialization failure."""
    return any(getattr(cause, "sqlstate", None) in _REPEATABLE for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and those that it stands for: SQLAlchemy names them `orig`, Peewee as the first argument."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        first = current.args[0] if current.args else None
        current = getattr(current, "orig", None) or (
            first if isinstance(first, BaseException) else current.__cause__
        )


def explain_refusal(state: str, *, store: str) -> Exception | None:
    """What an SQLSTATE says of the data at hand; None where it says nothing of it."""
    if state == _UNIQUE:
        return ConflictError(_TAKEN)
    if state == _FOREIGN:
        return ConflictError(_REFERRED)
    if state.startswith(("22", "23")):
        return ValidationError(f"the {store} store cannot hold this value (SQLSTATE {state})")
    return None


def _of_sqlstate(state: str, error: BaseException, *, store: str) -> Exception:
    outage = outage_of(error) or Outage.OTHER
    return StoreUnavailableError(f"could not answer (SQLSTATE {state})", store=store, outage=outage)


def _of_waiting(causes: Sequence[BaseException], *, store: str) -> Exception:
    """No server has said anything: somebody gave up waiting, or there is no connection."""
    waited = next((cause for cause in causes if isinstance(cause, PoolTimeoutError | TimeoutError)), None)
    outage = Outage.UNREACHABLE if waited is None else (outage_of(waited) or Outage.NO_ANSWER)
    text = {
        Outage.POOL_FULL: "no connection free in time",
        Outage.NO_ANSWER: "no answer in time",
    }.get(outage, f"not reachable ({type(causes[-1]).__name__})")
    return StoreUnavailableError(text, store=store, outage=outage)


def _of_sqlite(error: sqlite3.Error, *, store: str) -> Exception:
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    name: str = getattr(error, "sqlite_errorname", type(error).__name__)
    match code & 0xFF:
        case sqlite3.SQLITE_CONSTRAINT if code == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
            return ConflictError(_REFERRED)
        case sqlite3.SQLITE_CONSTRAINT if code in (
            sqlite3.SQLITE_CONSTRAINT_UNIQUE,
            sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
        ):
            return ConflictError(_TAKEN)
        case sqlite3.SQLITE_CONSTRAINT | sqlite3.SQLITE_MISMATCH | sqlite3.SQLITE_TOOBIG:
            return ValidationError(f"the {store} store cannot hold this value ({name})")
        case kind:
            outage = _SQLITE_OUTAGES.get(kind, Outage.OTHER)
            return StoreUnavailableError(f"could not answer ({name})", store=store, outage=outage)
