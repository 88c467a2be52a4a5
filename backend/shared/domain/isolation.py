"""How much of what others do at the same time a unit of work may see (SQL standard; PostgreSQL manual, 13.2)."""

from __future__ import annotations

from enum import StrEnum


class Isolation(StrEnum):
    """What a unit asks for. Above the first one it may be refused for what others did meanwhile, and is run again then."""

    READ_COMMITTED = "READ COMMITTED"
    """Each statement sees what was committed before it. Whoever decides by what she has read holds the rows (`lock`)."""
    REPEATABLE_READ = "REPEATABLE READ"
    """All statements see the same moment. A row that somebody else has changed since is not written."""
    SERIALIZABLE = "SERIALIZABLE"
    """As if such units ran one after the other: for a rule over rows that cannot be held, as which are not there yet."""
