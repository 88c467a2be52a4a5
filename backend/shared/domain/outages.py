"""Why a database could not answer, in kinds that a caller can act on."""

from __future__ import annotations

from enum import StrEnum


class Outage(StrEnum):
    """What kept a database from answering. Nothing of it says anything about the data at hand."""

    UNREACHABLE = "unreachable"
    """No connection: refused, lost, no server found in time, or it is shutting down."""
    CIRCUIT_OPEN = "circuit_open"
    """It was unreachable a moment ago, and nobody asked."""
    POOL_FULL = "pool_full"
    """This process has no connection free, and waited for one as long as it may."""
    OVERLOADED = "overloaded"
    """The server has no connection, memory or disk left."""
    CONTENDED = "contended"
    """Deadlocks, serialization failures or write conflicts, each time that it was run again."""
    STATEMENT_TIMEOUT = "statement_timeout"
    """The server gave up a statement that took too long."""
    LOCK_TIMEOUT = "lock_timeout"
    """The server gave up waiting for a lock that somebody holds."""
    NO_ANSWER = "no_answer"
    """The question was sent and no answer came in time: a write may have been done."""
    OTHER = "other"
    """A permission or a table is missing, or something else that is not the data's fault."""

    @property
    def is_timeout(self) -> bool:
        """Whether the server was asked and time ran out: 504 at the edge, where the others are 503."""
        return self in _TIMEOUTS


_TIMEOUTS = frozenset({Outage.STATEMENT_TIMEOUT, Outage.LOCK_TIMEOUT, Outage.NO_ANSWER})
