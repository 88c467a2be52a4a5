"""What an error of a database with rows means, whichever driver and package it came through."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from backend.shared import ConflictError, ValidationError

from ...domain.errors import StoreError, StoreRefusedError, StoreTimeoutError, StoreUnavailableError

_UNIQUE, _FOREIGN = "23505", "23503"
_REPEATABLE = frozenset({"40001", "40P01"})
_TIMED_OUT = frozenset({"57014", "55P03"})
_AWAY = ("08", "40", "53", "57")
_SQLITE_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED})
_SQLITE_AWAY = frozenset({sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL})


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
            return _of_sqlstate(state, store=store)
        if isinstance(cause, sqlite3.Error):
            return _of_sqlite(cause, store=store)
    if any(isinstance(cause, TimeoutError) for cause in causes):
        return StoreTimeoutError("no answer in time", store=store)
    known = ("asyncpg", "aiosqlite", *packages)
    if isinstance(error, OSError) or type(error).__module__.split(".")[0] in known:
        return StoreUnavailableError(f"not reachable ({type(causes[-1]).__name__})", store=store)
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
        return ConflictError("there is one with this value already")
    if state == _FOREIGN:
        return ConflictError(
            "something that this refers to, or that refers to this, was changed at the same time"
        )
    if state.startswith(("22", "23")):
        return ValidationError(f"the {store} store cannot hold this value (SQLSTATE {state})")
    return None


def _of_sqlstate(state: str, *, store: str) -> Exception:
    if refusal := explain_refusal(state, store=store):
        return refusal
    if state in _TIMED_OUT:
        return StoreTimeoutError(f"gave up waiting (SQLSTATE {state})", store=store)
    if state.startswith(_AWAY):
        return StoreUnavailableError(f"could not answer (SQLSTATE {state})", store=store)
    return StoreRefusedError(f"refused (SQLSTATE {state})", store=store)


def _of_sqlite(error: sqlite3.Error, *, store: str) -> Exception:
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    name: str = getattr(error, "sqlite_errorname", type(error).__name__)
    match code & 0xFF:
        case sqlite3.SQLITE_CONSTRAINT if code == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
            return _of_sqlstate(_FOREIGN, store=store)
        case sqlite3.SQLITE_CONSTRAINT if code in (
            sqlite3.SQLITE_CONSTRAINT_UNIQUE,
            sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY,
        ):
            return _of_sqlstate(_UNIQUE, store=store)
        case sqlite3.SQLITE_CONSTRAINT | sqlite3.SQLITE_MISMATCH | sqlite3.SQLITE_TOOBIG:
            return ValidationError(f"the {store} store cannot hold this value ({name})")
        case kind if kind in _SQLITE_BUSY:
            return StoreTimeoutError(f"gave up waiting ({name})", store=store)
        case kind if kind in _SQLITE_AWAY:
            return StoreUnavailableError(f"could not answer ({name})", store=store)
        case _:
            return StoreRefusedError(f"refused ({name})", store=store)
