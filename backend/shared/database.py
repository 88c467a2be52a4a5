"""Engines for the two sides: bounded pools, a timeout on every wait, UTC, TLS as the URL asks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

from sqlalchemy import event, make_url
from sqlalchemy.engine import URL, Engine
from sqlalchemy.exc import ArgumentError, DisconnectionError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine
from sqlalchemy.pool import Pool

from backend.shared.domain.errors import ConfigurationError
from backend.shared.journal.capture import UNIT_NOTICE
from backend.shared.limits import Limit, check_limits, read_limits
from backend.shared.stores.postgres.errors import ConnectTimeoutError

_URL_PARAMETERS = frozenset({"ssl", "pgbouncer", "target_session_attrs", "passfile", "direct_tls"})
XID = "tandem_xid"
"""Where a connection keeps the id of the transaction that its unit of work runs in."""
_MADE_AT = "tandem_made_at"


_HOUR = 3600.0

DATABASE_LIMITS = (
    Limit(field="pool_size", variable="DB_POOL_SIZE", kind=int, least=1, most=1000),
    Limit(field="max_overflow", variable="DB_MAX_OVERFLOW", kind=int, least=0, most=1000),
    Limit(field="pool_wait_seconds", variable="DB_POOL_TIMEOUT", kind=float, least=0.001, most=_HOUR),
    Limit(field="pool_recycle_seconds", variable="DB_POOL_RECYCLE", kind=int, least=1, most=24 * _HOUR),
    Limit(field="pool_pre_ping", variable="DB_POOL_PRE_PING", kind=bool),
    Limit(field="connect_seconds", variable="DB_CONNECT_TIMEOUT", kind=float, least=0.001, most=_HOUR),
    Limit(
        field="statement_seconds", variable="DB_STATEMENT_TIMEOUT", kind=float, least=0.001, most=24 * _HOUR
    ),
    Limit(field="lock_seconds", variable="DB_LOCK_TIMEOUT", kind=float, least=0.001, most=24 * _HOUR),
    Limit(
        field="idle_in_transaction_seconds",
        variable="DB_IDLE_IN_TRANSACTION_TIMEOUT",
        kind=float,
        least=0.001,
        most=24 * _HOUR,
    ),
)


@dataclass(frozen=True, kw_only=True)
class DatabaseLimits:
    """Bounds of one side's pool. Times are in seconds; out of bounds raises `ConfigurationError`.

    `max_overflow` connections more than `pool_size` are made when all are in use, and closed when they are given back.
    `pool_pre_ping` asks each connection whether it lives before it is used: a round trip for every transaction, which the
    engine does not need, since it repeats a unit whose connection was lost.
    """

    pool_size: int = 10
    max_overflow: int = 0
    pool_wait_seconds: float = 5.0
    pool_recycle_seconds: int = 1800
    pool_pre_ping: bool = False
    connect_seconds: float = 5.0
    statement_seconds: float = 30.0
    lock_seconds: float = 5.0
    idle_in_transaction_seconds: float = 60.0

    def __post_init__(self) -> None:
        check_limits(DATABASE_LIMITS, self)

    @classmethod
    def from_env(cls, service: str, environment: Mapping[str, str] | None = None) -> DatabaseLimits:
        """Limits of `service` ("CART"): `CART_DB_POOL_SIZE`, else `DB_POOL_SIZE`, else the default."""
        return cls(**read_limits(DATABASE_LIMITS, service=service, environment=environment))


def parse_url(url: str, *, variable: str) -> URL:
    """A PostgreSQL URL as SQLAlchemy wants it; a wrong one raises `ConfigurationError` without showing it."""
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigurationError("is no database URL", variable=variable) from None
    if parsed.drivername.split("+")[0] not in ("postgresql", "postgres"):
        raise ConfigurationError(
            f"{parsed.drivername!r} is no kind of database that a side can be", variable=variable
        )
    if not parsed.database:
        raise ConfigurationError("names no database", variable=variable)
    query = dict(parsed.query)
    if "sslmode" in query:
        query["ssl"] = query.pop("sslmode")
    if unknown := sorted(set(query) - _URL_PARAMETERS):
        known = ", ".join(sorted(_URL_PARAMETERS | {"sslmode"}))
        raise ConfigurationError(f"has the parameter {unknown[0]!r}; known are {known}", variable=variable)
    return parsed.set(drivername="postgresql+asyncpg", query=query)


_TRUSTED_SINCE = WeakKeyDictionary[Pool, float]()
"""Since when a pool's connections may be trusted (monotonic seconds), where one of them was lost."""


def distrust_pool(engine: AsyncEngine) -> None:
    """Hand none of the connections that there are now out again: one was lost, so the others may be dead too.

    Those lent out come back as ever and are made anew before they are lent again. (To dispose of the engine would strand
    them: they would come back to a pool that nobody closes any more.)
    """
    _TRUSTED_SINCE[engine.pool] = time.monotonic()


def create_side_engine(
    url: str, *, application_name: str, variable: str = "DATABASE_URL", limits: DatabaseLimits | None = None
) -> AsyncEngine:
    """An engine for one side. Connects to nothing yet; the caller disposes of it.

    `?pgbouncer=true` in the URL is for PgBouncer in transaction mode: no settings at start-up, no named prepared
    statements.
    """
    limits = limits or DatabaseLimits()
    pgbouncer = goes_through_pgbouncer(url, variable=variable)
    parsed = parse_url(url, variable=variable).difference_update_query(["pgbouncer"])
    engine = create_async_engine(
        parsed,
        pool_size=limits.pool_size,
        max_overflow=limits.max_overflow,
        pool_timeout=limits.pool_wait_seconds,
        pool_recycle=limits.pool_recycle_seconds,
        pool_pre_ping=limits.pool_pre_ping,
        hide_parameters=True,
        connect_args=_connect_args(application_name, limits, pgbouncer=pgbouncer),
    )
    event.listen(engine.sync_engine, "do_connect", _connect)
    event.listen(engine.sync_engine, "connect", _listen_for_xid)
    event.listen(engine.sync_engine, "connect", _note_when_made)
    event.listen(engine.sync_engine, "checkout", lambda _connection, record, _fairy: _check(record, engine))
    like_it = partial(create_side_engine, url, application_name=application_name, variable=variable)
    _OPENED[engine.sync_engine] = (like_it, limits)
    return engine


_OPENED = WeakKeyDictionary[Engine, tuple[Callable[..., AsyncEngine], DatabaseLimits]]()
"""What opens another like it, and its limits."""


def engine_beside(engine: AsyncEngine, *, pool_size: int) -> AsyncEngine:
    """Another engine for the database of one that `create_side_engine` has made, with so many connections of its own.

    It is for work that holds connections for good: out of the first one's pool these would be missing for all else. Connects to
    nothing yet; the caller disposes of it.
    """
    like_it, limits = _OPENED[engine.sync_engine]
    return like_it(limits=replace(limits, pool_size=pool_size, max_overflow=0))


def goes_through_pgbouncer(url: str, *, variable: str = "DATABASE_URL") -> bool:
    """Whether the URL says so (`?pgbouncer=true`)."""
    parsed = parse_url(url, variable=variable)
    return str(parsed.query.get("pgbouncer", "")).lower() in ("1", "true", "yes")


def plain_url(url: str, *, variable: str = "DATABASE_URL") -> str:
    """The URL as the driver itself takes it, password included: never to be shown."""
    parsed = parse_url(url, variable=variable).difference_update_query(["pgbouncer"])
    query = {("sslmode" if name == "ssl" else name): value for name, value in parsed.query.items()}
    return parsed.set(drivername="postgresql", query=query).render_as_string(hide_password=False)


def _connect_args(application_name: str, limits: DatabaseLimits, *, pgbouncer: bool) -> Mapping[str, Any]:
    arguments: dict[str, Any] = {
        "timeout": limits.connect_seconds,
        # A little longer than the server's own limit, whose error says more.
        "command_timeout": limits.statement_seconds + min(5.0, limits.statement_seconds),
    }
    if pgbouncer:
        return arguments | {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
    milliseconds = {
        "statement_timeout": limits.statement_seconds,
        "lock_timeout": limits.lock_seconds,
        "idle_in_transaction_session_timeout": limits.idle_in_transaction_seconds,
    }
    settings = {name: str(int(seconds * 1000)) for name, seconds in milliseconds.items()}
    arguments["server_settings"] = settings | {
        "application_name": application_name,
        "timezone": "UTC",
        # A mapping may turn a value into text: that must not depend on how a database happens to be set.
        "datestyle": "ISO, MDY",
        "intervalstyle": "postgres",
        "bytea_output": "hex",
        "extra_float_digits": "1",
        "jit": "off",
    }
    return arguments


def _connect(dialect: Any, _record: Any, args: Any, arguments: Any) -> Any:
    """Connect as usual; a timeout here is told from one of a statement that was sent."""
    try:
        return dialect.connect(*args, **arguments)
    except TimeoutError as error:
        raise ConnectTimeoutError from error


def _listen_for_xid(dbapi_connection: Any, record: Any) -> None:
    def note(_connection: object, message: Any) -> None:
        text = str(message.message)
        if text.startswith(UNIT_NOTICE):
            record.info[XID] = int(text.removeprefix(UNIT_NOTICE))

    dbapi_connection.driver_connection.add_log_listener(note)


def _note_when_made(_connection: object, record: Any) -> None:
    record.info[_MADE_AT] = time.monotonic()


def _check(record: Any, engine: AsyncEngine) -> None:
    """Have the pool make a connection anew that is not to be trusted any more."""
    if record.info[_MADE_AT] <= _TRUSTED_SINCE.get(engine.pool, 0.0):
        raise DisconnectionError("older than a loss")
