"""Clients of MongoDB: bounded pools, a timeout on every wait, UTC, writes that a majority has on disk."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

from bson.codec_options import DatetimeConversion
from pymongo import AsyncMongoClient
from pymongo.errors import PyMongoError
from pymongo.monitoring import _EventListener
from pymongo.uri_parser import parse_uri, parse_userinfo, split_hosts, split_options

from backend.shared.domain.errors import ConfigurationError

from .driver_waits import mend_driver_waits
from .limits import DocumentLimits
from .urls import is_mongo_url

_OF_LIMITS = {
    "maxpoolsize": "MONGO_MAX_POOL_SIZE",
    "minpoolsize": "MONGO_MIN_POOL_SIZE",
    "waitqueuetimeoutms": "MONGO_WAIT_QUEUE_TIMEOUT_MS",
    "connecttimeoutms": "MONGO_CONNECT_TIMEOUT_MS",
    "serverselectiontimeoutms": "MONGO_SERVER_SELECTION_TIMEOUT_MS",
    "sockettimeoutms": "MONGO_SOCKET_TIMEOUT_MS",
    "timeoutms": "MONGO_MAX_TIME_MS",
}
# A write is told to have succeeded only if no failover takes it back.
_NEEDED = {"w": "majority", "journal": "true"}
_OPTION_NAME = re.compile(r"[A-Za-z]{1,60}")
# OSError: a certificate's file cannot be read.
_BAD_URL = (PyMongoError, ValueError, TypeError, OSError)
_BAD_DATABASE = re.compile(r'[/\\. "$\x00]')


@dataclass(frozen=True, kw_only=True)
class MongoUrl:
    """A MongoDB URL that can be used. `url` is secret."""

    url: str
    database: str

    def __repr__(self) -> str:
        return f"MongoUrl(database={self.database!r})"


def parse_mongo_url(url: str, *, variable: str) -> MongoUrl:
    """A MongoDB URL with its database; a wrong one raises `ConfigurationError` without showing it. Asks no name server.

    Limits belong into variables of their own, and what weakens a write is refused, so that neither is overruled unseen.
    """
    if not is_mongo_url(url):
        raise ConfigurationError("is no MongoDB URL", variable=variable)
    scheme, _, rest = url.partition("://")
    place, _, query = rest.partition("?")
    for part in filter(None, re.split("[&;]", query)):
        _check_option(part, variable=variable)
    try:
        if scheme == "mongodb":
            parse_uri(url, validate=True, warn=False)
        else:
            _check_srv(place, query)
    except _BAD_URL:
        raise ConfigurationError(
            "is no MongoDB URL that can be read; in names and passwords '@', ':', '/' and '%' must be percent-encoded",
            variable=variable,
        ) from None
    database = unquote_plus(place.partition("/")[2])
    if not database:
        raise ConfigurationError("names no database", variable=variable)
    if _BAD_DATABASE.search(database):
        raise ConfigurationError("names a database that cannot be", variable=variable)
    return MongoUrl(url=url, database=database)


def create_client(
    url: str,
    *,
    limits: DocumentLimits | None = None,
    application_name: str,
    variable: str = "DATABASE_URL",
    listeners: Sequence[_EventListener] = (),
) -> AsyncMongoClient[dict[str, Any]]:
    """A client for one side, whose `get_default_database()` is the URL's. Connects to nothing yet; the caller closes it.

    `listeners` (of `pymongo.monitoring`) hear what the pool and the commands do. Dates come in UTC with their zone, and as
    `DatetimeMS` where Python has no such year. Any error of the driver's while it reads the URL is a `ConfigurationError`.
    """
    mend_driver_waits()
    limits = limits or DocumentLimits()
    parsed = parse_mongo_url(url, variable=variable)
    try:
        return AsyncMongoClient(
            parsed.url,
            appname=application_name[:128],
            tz_aware=True,
            datetime_conversion=DatetimeConversion.DATETIME_AUTO,
            uuidRepresentation="standard",
            w="majority",
            journal=True,
            maxPoolSize=limits.max_pool_size,
            minPoolSize=limits.min_pool_size,
            waitQueueTimeoutMS=limits.wait_queue_timeout_ms,
            connectTimeoutMS=limits.connect_timeout_ms,
            serverSelectionTimeoutMS=limits.server_selection_timeout_ms,
            socketTimeoutMS=limits.socket_timeout_ms,
            event_listeners=list(listeners),
            connect=False,
        )
    except _BAD_URL:
        raise ConfigurationError("is refused by MongoDB's driver", variable=variable) from None


def _check_option(part: str, *, variable: str) -> None:
    """One `name=value` of a URL."""
    name, _, value = part.partition("=")
    shown = f"the parameter {name!r}" if _OPTION_NAME.fullmatch(name) else "a parameter"
    if instead := _OF_LIMITS.get(name.lower()):
        raise ConfigurationError(f"has {shown}; set {instead} instead", variable=variable)
    needed = _NEEDED.get(name.lower())
    if needed is not None and value.lower() != needed:
        raise ConfigurationError(f"has {shown}, which must be {needed}", variable=variable)
    try:
        split_options(part, validate=True, warn=False)
    except _BAD_URL:
        raise ConfigurationError(
            f"has {shown}, which MongoDB's driver does not take", variable=variable
        ) from None


def _check_srv(place: str, query: str) -> None:
    """The driver's own parser would ask the name server."""
    account, at, hosts = place.partition("/")[0].rpartition("@")
    if at:
        parse_userinfo(account)
    nodes = split_hosts(hosts, default_port=None)
    if len(nodes) != 1 or nodes[0][1] is not None:
        raise ValueError("one host without a port")
    if query:
        split_options(query, validate=True, warn=False)


__all__ = [
    "DocumentLimits",
    "MongoUrl",
    "create_client",
    "is_mongo_url",
    "parse_mongo_url",
]
