"""Which store the use cases run on."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import assert_never, cast

from backend.shared import ConfigurationError
from backend.shared.database import DatabaseLimits
from backend.shared.stores.mongo.limits import DocumentLimits

from .adapters.given import GivenRepositories
from .adapters.single import SingleStore
from .core.settings import Address, Orm, TaskSettings
from .ports import Repositories, TaskStore, Transactions

_PACKAGES = {
    "aiosqlite": "peewee",
    "peewee": "peewee",
    "playhouse": "peewee",
    "pymongo": "mongo",
    "bson": "mongo",
}
"""The extras that bring the packages of the stores."""


def make_store(settings: TaskSettings, *, repositories: Repositories | None = None) -> TaskStore:
    """The store that the settings ask for, or one over `repositories` that were made by hand. Connects to nothing yet.

    Raises ConfigurationError, with the variable, for a URL that is missing or wrong and for an extra that is not installed.
    """
    if repositories is not None:
        return GivenRepositories(repositories)
    match settings.orm:
        case Orm.SQLALCHEMY:
            return _single("sqlalchemy", settings.needed_database(), settings.limits)
        case Orm.PEEWEE:
            return _single("peewee", settings.needed_database(), settings.limits)
        case Orm.MONGO:
            return _single("mongo", settings.needed_mongo(), settings.document_limits)
        case Orm.DUAL:
            return _dual(settings)
        case _:
            assert_never(settings.orm)


def _dual(settings: TaskSettings) -> TaskStore:
    """The store over the migration engine."""
    try:
        manager = import_module(".core.dual_write_manager", package=__package__)
        store = import_module(".adapters.dual.store", package=__package__)
        made = manager.TaskDualWriteManager(
            settings=settings.dual_write, limits=settings.limits, document_limits=settings.document_limits
        )
        return cast("TaskStore", store.DualStore(made, run_relay=settings.run_relay))
    except ModuleNotFoundError as error:
        raise _lacking(error, "dual") from error


def _single(room: str, address: Address, limits: DatabaseLimits | DocumentLimits) -> TaskStore:
    """The store in a room of `adapters`, loaded only now: the packages of the others need not be installed."""
    try:
        module = import_module(f".adapters.{room}.transactions", package=__package__)
        open_transactions = cast("Callable[..., Transactions]", module.open_transactions)
        return SingleStore(open_transactions(address, limits=limits))
    except ModuleNotFoundError as error:
        raise _lacking(error, room) from error


def _lacking(error: ModuleNotFoundError, room: str) -> Exception:
    package = (error.name or "").split(".")[0]
    if package not in _PACKAGES:
        return error
    return ConfigurationError(
        f"{room} needs the package {package}: install the extra '{_PACKAGES[package]}'", variable="ORM"
    )
