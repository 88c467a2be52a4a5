"""What trouble with a store means to a caller, and how a unit of work meets it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import asyncpg.exceptions
import peewee
import pytest
import sqlalchemy.exc
from bson.errors import InvalidDocument
from pymongo.errors import (
    AutoReconnect,
    DuplicateKeyError,
    ExecutionTimeout,
    NetworkTimeout,
    OperationFailure,
    PyMongoError,
    ServerSelectionTimeoutError,
    WaitQueueTimeoutError,
    WriteError,
)

from backend.shared import ConflictError, ValidationError
from backend.shared.domain.outages import Outage
from backend.task_service.app.adapters.mongo.errors import explain_mongo_error, is_repeatable_mongo_error
from backend.task_service.app.adapters.rows.errors import explain_row_error, is_repeatable_row_error
from backend.task_service.app.adapters.single import MAX_RUNS, SingleStore
from backend.task_service.app.domain.errors import StoreError, StoreUnavailableError
from backend.task_service.app.ports import Repositories
from tests.support.fake_task_store import FakeTransactions

SECRET = "row value"
Wrap = Callable[[Exception], Exception]


def through_sqlalchemy(error: Exception) -> Exception:
    return sqlalchemy.exc.DBAPIError("SELECT", {}, error)


def through_peewee(error: Exception) -> Exception:
    return peewee.OperationalError(error, *error.args)


def sqlite_error(kind: type[sqlite3.Error], code: int) -> sqlite3.Error:
    error = kind(SECRET)
    error.sqlite_errorcode, error.sqlite_errorname = code, "SQLITE_X"
    return error


def kind_of(error: Exception | None) -> type[Exception] | Outage:
    """The outage of a store that could not answer; of all else the type."""
    return error.outage if isinstance(error, StoreUnavailableError) else type(error)  # type: ignore[return-value]


@pytest.mark.parametrize("wrap", [lambda error: error, through_sqlalchemy, through_peewee])
@pytest.mark.parametrize(
    ("error", "meaning", "repeatable"),
    [
        (asyncpg.exceptions.UniqueViolationError(SECRET), ConflictError, False),
        (asyncpg.exceptions.ForeignKeyViolationError(SECRET), ConflictError, False),
        (asyncpg.exceptions.CheckViolationError(SECRET), ValidationError, False),
        (asyncpg.exceptions.StringDataRightTruncationError(SECRET), ValidationError, False),
        (asyncpg.exceptions.SerializationError(SECRET), Outage.CONTENDED, True),
        (asyncpg.exceptions.DeadlockDetectedError(SECRET), Outage.CONTENDED, True),
        (asyncpg.exceptions.TooManyConnectionsError(SECRET), Outage.OVERLOADED, False),
        (asyncpg.exceptions.AdminShutdownError(SECRET), Outage.UNREACHABLE, False),
        (asyncpg.exceptions.QueryCanceledError(SECRET), Outage.STATEMENT_TIMEOUT, False),
        (asyncpg.exceptions.LockNotAvailableError(SECRET), Outage.LOCK_TIMEOUT, False),
        (asyncpg.exceptions.UndefinedTableError(SECRET), Outage.OTHER, False),
        (asyncpg.exceptions.InsufficientPrivilegeError(SECRET), Outage.OTHER, False),
        (asyncpg.exceptions.ConnectionDoesNotExistError(SECRET), Outage.UNREACHABLE, False),
        (ConnectionRefusedError(SECRET), Outage.UNREACHABLE, False),
        (TimeoutError(SECRET), Outage.NO_ANSWER, False),
        (
            sqlite_error(sqlite3.IntegrityError, sqlite3.SQLITE_CONSTRAINT_UNIQUE),
            ConflictError,
            False,
        ),
        (sqlite_error(sqlite3.IntegrityError, sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY), ConflictError, False),
        (sqlite_error(sqlite3.IntegrityError, sqlite3.SQLITE_CONSTRAINT_CHECK), ValidationError, False),
        (sqlite_error(sqlite3.OperationalError, sqlite3.SQLITE_BUSY), Outage.LOCK_TIMEOUT, False),
        (sqlite_error(sqlite3.OperationalError, sqlite3.SQLITE_FULL), Outage.OVERLOADED, False),
        (sqlite_error(sqlite3.OperationalError, sqlite3.SQLITE_CANTOPEN), Outage.UNREACHABLE, False),
        (sqlite_error(sqlite3.OperationalError, sqlite3.SQLITE_ERROR), Outage.OTHER, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_errors_of_databases_with_rows(
    wrap: Wrap, error: Exception, meaning: type[Exception] | Outage, *, repeatable: bool
) -> None:
    found = explain_row_error(wrap(error), store="X", packages=("sqlalchemy", "peewee"))
    assert kind_of(found) is meaning
    assert SECRET not in str(found)
    assert is_repeatable_row_error(wrap(error)) is repeatable


def test_a_full_pool_is_no_timeout_of_the_database() -> None:
    full = sqlalchemy.exc.TimeoutError("QueuePool limit")
    assert kind_of(explain_row_error(full, store="X", packages=("sqlalchemy",))) is Outage.POOL_FULL


def labelled(error: PyMongoError) -> PyMongoError:
    error._add_error_label("TransientTransactionError")
    return error


@pytest.mark.parametrize(
    ("error", "meaning", "repeatable"),
    [
        (DuplicateKeyError(SECRET, 11000), ConflictError, False),
        (WriteError(SECRET, 121), ValidationError, False),
        (InvalidDocument(SECRET), ValidationError, False),
        (OverflowError(SECRET), ValidationError, False),
        (labelled(OperationFailure(SECRET, 112)), Outage.CONTENDED, True),
        (labelled(AutoReconnect(SECRET)), Outage.UNREACHABLE, True),
        (OperationFailure(SECRET, 10107), Outage.UNREACHABLE, False),
        (OperationFailure(SECRET, 13), Outage.OTHER, False),
        (ServerSelectionTimeoutError(SECRET), Outage.UNREACHABLE, False),
        (WaitQueueTimeoutError(SECRET), Outage.POOL_FULL, False),
        (NetworkTimeout(SECRET), Outage.NO_ANSWER, False),
        (ExecutionTimeout(SECRET, 50), Outage.STATEMENT_TIMEOUT, False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_errors_of_the_store_of_documents(
    error: Exception, meaning: type[Exception] | Outage, *, repeatable: bool
) -> None:
    found = explain_mongo_error(error)
    assert kind_of(found) is meaning
    assert SECRET not in str(found)
    assert is_repeatable_mongo_error(error) is repeatable


def test_what_is_no_error_of_a_store_is_nobody_elses_either() -> None:
    for error in (KeyError("x"), ValueError("x"), NotImplementedError(), ConflictError("x")):
        assert explain_row_error(error, store="X", packages=("sqlalchemy", "peewee")) is None
        assert explain_mongo_error(error) is None
    own = StoreUnavailableError("x", store="X", outage=Outage.OTHER)
    assert explain_row_error(own, store="X", packages=()) is own
    assert explain_mongo_error(own) is own


class Troubled(FakeTransactions):
    """Each transaction fails at its commit, as long as there are errors left."""

    def __init__(self, *errors: Exception) -> None:
        super().__init__()
        self.left = list(errors)

    @asynccontextmanager
    async def begin(self, *, only_reads: bool = False) -> AsyncIterator[Repositories]:
        async with super().begin(only_reads=only_reads) as repositories:
            yield repositories
            if self.left:
                raise self.left.pop(0)

    def explain(self, error: Exception) -> Exception | None:
        return (
            StoreUnavailableError("x", store="X", outage=Outage.OTHER) if isinstance(error, OSError) else None
        )

    def is_repeatable(self, error: Exception) -> bool:
        return isinstance(error, ConnectionResetError)


@pytest.mark.parametrize(
    ("errors", "runs", "outcome"),
    [
        ([], 1, None),
        ([ConnectionResetError()] * (MAX_RUNS - 1), MAX_RUNS, None),
        ([ConnectionResetError()] * MAX_RUNS, MAX_RUNS, StoreUnavailableError),
        ([ConnectionRefusedError()], 1, StoreUnavailableError),
        ([KeyError("a mistake")], 1, KeyError),
        ([ConflictError("no")], 1, ConflictError),
    ],
)
async def test_what_left_nothing_behind_is_run_again_so_many_times(
    monkeypatch: pytest.MonkeyPatch, errors: list[Exception], runs: int, outcome: type[Exception] | None
) -> None:
    pauses: list[float] = []

    async def no_pause(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("backend.task_service.app.adapters.single.asyncio.sleep", no_pause)
    seen: list[Any] = []

    async def unit(repositories: Repositories) -> str:
        seen.append(repositories)
        return "done"

    store = SingleStore(Troubled(*errors))
    if outcome is None:
        assert await store.write("x", unit) == "done"
    else:
        with pytest.raises(outcome):
            await store.write("x", unit)
    assert len(seen) == runs
    assert len({id(repositories) for repositories in seen}) == runs
    growing = [pause for pause in pauses if pause > 0]
    assert len(growing) == runs - 1
    assert all(0.02 * 2**n <= pause <= 0.04 * 2**n for n, pause in enumerate(growing))


def test_store_errors_name_the_store() -> None:
    error: StoreError = StoreUnavailableError("gave up", store="MongoDB", outage=Outage.NO_ANSWER)
    assert str(error) == "MongoDB: gave up"
