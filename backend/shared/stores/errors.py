"""What an error of either kind of database means to the engine: each function asks the room that the error came from.

MongoDB's driver is an extra: its room is entered only once an error of that driver is at hand.
"""

from __future__ import annotations

from types import ModuleType
from typing import cast

from backend.shared.domain.errors import SideError, side_error
from backend.shared.domain.outages import Outage
from backend.shared.domain.phases import Side
from backend.shared.stores.postgres import errors as postgres
from backend.shared.stores.protocol import Trouble

_OF_MONGO = frozenset({"pymongo", "bson"})


def sqlstate_of(error: BaseException) -> str | None:
    """The code that the database gave an error: an SQLSTATE, or `mongo:112`; None if it gave none."""
    return cast("str | None", _room_of(error).sqlstate_of(error))


def constraint_of(error: BaseException) -> tuple[str | None, str | None]:
    """(table, constraint) or (collection, index) that an error names."""
    return cast("tuple[str | None, str | None]", _room_of(error).constraint_of(error))


def classify(error: BaseException) -> Trouble:
    """What to do about `error`. Only `REFUSED` (and an unresolved `CLASH`) counts as an attempt."""
    return cast("Trouble", _room_of(error).classify(error))


def is_connection_loss(error: BaseException) -> bool:
    """Whether the connection is gone. A full pool and a statement that takes too long are no such thing."""
    return bool(_room_of(error).is_connection_loss(error))


def is_timeout(error: BaseException) -> bool:
    """Whether somebody gave up waiting: for the pool, for the server to accept, or for a statement."""
    return bool(_room_of(error).is_timeout(error))


def is_unreachable(error: BaseException) -> bool:
    """Whether the server could not be reached or did not answer in time; a full pool is this process's own affair."""
    return bool(_room_of(error).is_unreachable(error))


def outage_of(error: BaseException) -> Outage | None:
    """What kept the database from answering; None where it refused the data."""
    return cast("Outage | None", _room_of(error).outage_of(error))


def says_nothing_of_a_commit(error: BaseException) -> bool:
    """Whether a COMMIT that ended so may have been done or not."""
    return bool(_room_of(error).says_nothing_of_a_commit(error))


def is_repeatable(error: BaseException) -> bool:
    """Whether the transaction may simply be run again: a deadlock, a serialization failure, a write conflict."""
    return bool(_room_of(error).is_repeatable(error))


def may_pass(error: BaseException) -> bool:
    """Whether the same may succeed later without anybody's doing: outages, deadlocks, full pools and disks."""
    return bool(_room_of(error).may_pass(error))


def is_database_error(error: BaseException) -> bool:
    """Whether `error` came from a database, its driver or the way to it."""
    return bool(_room_of(error).is_database_error(error))


def describe(error: BaseException) -> str:
    """One line about `error` that holds no row's or document's values and no password."""
    return str(_room_of(error).describe(error))


def to_side_error(
    error: BaseException, side: Side, *, entity: str | None = None, key: str | None = None
) -> SideError:
    """`error` as the error type of `side`."""
    if isinstance(error, SideError):
        return error
    return side_error(
        side,
        describe(error),
        entity=entity,
        key=key,
        unavailable=classify(error) is Trouble.UNAVAILABLE,
        sqlstate=sqlstate_of(error),
        outage=outage_of(error),
    )


def _room_of(error: BaseException) -> ModuleType:
    if any(ancestor.__module__.partition(".")[0] in _OF_MONGO for ancestor in type(error).__mro__):
        from backend.shared.stores.mongo import errors as mongo  # noqa: PLC0415 - its driver is an extra

        return mongo
    return postgres


__all__ = [
    "classify",
    "constraint_of",
    "describe",
    "is_connection_loss",
    "is_database_error",
    "is_repeatable",
    "is_timeout",
    "is_unreachable",
    "may_pass",
    "outage_of",
    "says_nothing_of_a_commit",
    "sqlstate_of",
    "to_side_error",
]
