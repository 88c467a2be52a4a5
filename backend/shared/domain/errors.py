"""Every error that Tandem raises on purpose, under one root.

A message names the side, the entity and the key where there are any, and never a password or a value of a row.
"""

from __future__ import annotations

from backend.shared.domain.outages import Outage
from backend.shared.domain.phases import Side


class TandemError(Exception):
    """Root of all errors raised by Tandem."""


class AwayError(TandemError):
    """Something that is no database of ours does not answer. Nothing was changed; it is worth trying again."""


class ConfigurationError(TandemError):
    """Settings that are unknown, contradict each other, or lead nowhere.

    `variable` is the environment variable to look at.
    """

    def __init__(self, message: str, *, variable: str | None = None) -> None:
        super().__init__(f"{variable}: {message}" if variable else message)
        self.variable = variable


class InstallationError(ConfigurationError):
    """The journal, its triggers or a migration is missing in a database."""


class ValidationError(TandemError):
    """What the caller asked for cannot be: bad input. Nothing was changed."""


class NotFoundError(ValidationError):
    """The thing asked for does not exist."""


class ConflictError(ValidationError):
    """The request clashes with what is there."""


class PermissionDeniedError(ValidationError):
    """The caller may not do this."""


class UnauthenticatedError(PermissionDeniedError):
    """The caller has not shown who she is."""


class SideError(TandemError):
    """One of the two databases refused, or could not be reached.

    `unavailable` tells the two apart: True when the database could not answer (lost connection, timeout, full pool,
    deadlock), False when it refused the data itself. `outage` says what kept it from answering.
    """

    def __init__(
        self,
        message: str,
        *,
        side: Side,
        entity: str | None = None,
        key: str | None = None,
        unavailable: bool = False,
        sqlstate: str | None = None,
        outage: Outage | None = None,
    ) -> None:
        place = f"{side.value} side"
        if entity:
            place += f", {entity}" + (f" {key}" if key else "")
        super().__init__(f"{place}: {message}")
        self.reason = message
        self.side = side
        self.entity = entity
        self.key = key
        self.unavailable = unavailable
        self.sqlstate = sqlstate
        self.outage = outage or (Outage.OTHER if unavailable else None)


class LegacySideError(SideError):
    """An error of the legacy database."""

    def __init__(
        self,
        message: str,
        *,
        side: Side = Side.LEGACY,
        entity: str | None = None,
        key: str | None = None,
        unavailable: bool = False,
        sqlstate: str | None = None,
        outage: Outage | None = None,
    ) -> None:
        super().__init__(
            message,
            side=side,
            entity=entity,
            key=key,
            unavailable=unavailable,
            sqlstate=sqlstate,
            outage=outage,
        )


class NewSideError(SideError):
    """An error of the service's own, new database."""

    def __init__(
        self,
        message: str,
        *,
        side: Side = Side.NEW,
        entity: str | None = None,
        key: str | None = None,
        unavailable: bool = False,
        sqlstate: str | None = None,
        outage: Outage | None = None,
    ) -> None:
        super().__init__(
            message,
            side=side,
            entity=entity,
            key=key,
            unavailable=unavailable,
            sqlstate=sqlstate,
            outage=outage,
        )


def side_error(
    side: Side,
    message: str,
    *,
    entity: str | None = None,
    key: str | None = None,
    unavailable: bool = False,
    sqlstate: str | None = None,
    outage: Outage | None = None,
) -> SideError:
    """The error type that belongs to `side`."""
    kind = LegacySideError if side is Side.LEGACY else NewSideError
    return kind(message, entity=entity, key=key, unavailable=unavailable, sqlstate=sqlstate, outage=outage)


def outcome_unknown(side: Side) -> SideError:
    """The connection was lost at COMMIT, and nobody can say what became of the transaction."""
    return side_error(
        side, "connection lost at COMMIT, outcome unknown", unavailable=True, outage=Outage.NO_ANSWER
    )


class FencedError(SideError):
    """A side refused a write because it is not in the state (open or closed, epoch) that the writer believed."""
