"""What an operator may set for the task service."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from backend.shared import ConfigurationError, DualWriteSettings
from backend.shared.database import DatabaseLimits
from backend.shared.environment import load_environment
from backend.shared.stores.mongo.limits import DocumentLimits
from backend.shared.stores.mongo.urls import is_mongo_url

from .document_rules import DocumentRules

SERVICE = "TASK"
DATABASE_VARIABLES = ("TASK_DATABASE_URL", "DATABASE_URL")
MONGO_VARIABLES = ("TASK_MONGO_URL", "MONGO_URL")
LEGACY_VARIABLES = ("TASK_LEGACY_DATABASE_URL", "LEGACY_DATABASE_URL")
Choice = TypeVar("Choice", bound=StrEnum)


class Orm(StrEnum):
    """What the service keeps its tasks with."""

    SQLALCHEMY = "sqlalchemy"
    PEEWEE = "peewee"
    MONGO = "mongo"
    DUAL = "dual"


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a store is, and the variable that says so. The URL may hold a password: only the variable is shown."""

    url: str
    variable: str

    def __repr__(self) -> str:
        return f"Address(variable={self.variable!r})"


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """Settings of the task service. Read with `from_env`; a wrong one raises `ConfigurationError` with its variable.

    Without a key set and without a public key every route that needs a token is refused.
    """

    orm: Orm = Orm.SQLALCHEMY
    database: Address | None = None
    mongo: Address | None = None
    limits: DatabaseLimits = field(default_factory=DatabaseLimits)
    document_limits: DocumentLimits = field(default_factory=DocumentLimits)
    document_rules: DocumentRules = field(default_factory=DocumentRules)
    dual_write: DualWriteSettings | None = None
    """Those of the engine, with ORM=dual."""
    jwks_url: str | None = None
    public_key_file: Path | None = None
    log_level: str = "INFO"
    run_relay: bool = True

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> TaskSettings:
        """Settings from `ORM`, `TASK_DATABASE_URL` (else `DATABASE_URL`), `TASK_MONGO_URL` (else `MONGO_URL`),
        `AUTH_JWKS_URL`, `AUTH_PUBLIC_KEY_FILE` (which wins over it), `LOG_LEVEL`, `TASK_VALIDATION_LEVEL`, `TASK_VALIDATION_ACTION`,
        `TASK_UNKNOWN_FIELDS`, the limits of pools and waits, and for
        ORM=dual `TASK_RUN_RELAY` and what `dual_write_settings` reads.
        """
        found = load_environment() if environment is None else environment
        orm = _choice(found, "ORM", Orm.SQLALCHEMY)
        key_file = found.get("AUTH_PUBLIC_KEY_FILE", "").strip()
        return cls(
            orm=orm,
            database=_address(found, DATABASE_VARIABLES),
            mongo=_address(found, MONGO_VARIABLES),
            limits=DatabaseLimits.from_env(SERVICE, found),
            document_limits=DocumentLimits.from_env(SERVICE, found),
            document_rules=_document_rules(found),
            dual_write=dual_write_settings(found) if orm is Orm.DUAL else None,
            jwks_url=found.get("AUTH_JWKS_URL", "").strip() or None,
            public_key_file=Path(key_file) if key_file else None,
            log_level=found.get("LOG_LEVEL", "").strip() or "INFO",
            run_relay=_flag(found, "TASK_RUN_RELAY", default=True),
        )

    def needed_database(self) -> Address:
        """Where the SQL database is. Raises ConfigurationError when nothing says so."""
        return _needed(self.database, DATABASE_VARIABLES, orm=self.orm)

    def needed_mongo(self) -> Address:
        """Where the document database is. Raises ConfigurationError when nothing says so."""
        return _needed(self.mongo, MONGO_VARIABLES, orm=self.orm)


def documents_address(environment: Mapping[str, str] | None = None) -> Address:
    """Where the documents are, alone or as one of two sides. Raises ConfigurationError when nothing says so."""
    found = load_environment() if environment is None else environment
    legacy = _address(found, LEGACY_VARIABLES)
    if legacy is not None and is_mongo_url(legacy.url):
        return legacy
    address = _address(found, MONGO_VARIABLES)
    if address is None:
        raise ConfigurationError(
            "is not set, so there are no documents to migrate", variable=MONGO_VARIABLES[0]
        )
    return address


def dual_write_settings(environment: Mapping[str, str] | None = None) -> DualWriteSettings:
    """The engine's settings for this service. Legacy is `LEGACY_DATABASE_URL`, or where that is not set `MONGO_URL`."""
    found = load_environment() if environment is None else environment
    settings = DualWriteSettings.from_env(SERVICE, found)
    address = _address(found, MONGO_VARIABLES)
    if settings.legacy_database_url or address is None:
        return settings
    return replace(settings, legacy_database_url=address.url)


def _document_rules(found: Mapping[str, str]) -> DocumentRules:
    standard = DocumentRules()
    unknown = found.get("TASK_UNKNOWN_FIELDS", "").strip()
    return DocumentRules(
        level=_choice(found, "TASK_VALIDATION_LEVEL", standard.level),
        action=_choice(found, "TASK_VALIDATION_ACTION", standard.action),
        unknown=_choice(found, "TASK_UNKNOWN_FIELDS", standard.unknown_in_documents) if unknown else None,
    )


def _choice(found: Mapping[str, str], variable: str, standard: Choice) -> Choice:
    text = found.get(variable, "").strip().lower() or standard.value
    kind = type(standard)
    if text not in set(kind):
        raise ConfigurationError(f"must be one of {', '.join(kind)}", variable=variable)
    return kind(text)


def _address(found: Mapping[str, str], variables: tuple[str, ...]) -> Address | None:
    for variable in variables:
        if url := found.get(variable, "").strip():
            return Address(url=url, variable=variable)
    return None


def _needed(address: Address | None, variables: tuple[str, ...], *, orm: Orm) -> Address:
    if address is None:
        raise ConfigurationError(f"is not set, and ORM={orm.value} needs it", variable=variables[0])
    return address


def _flag(found: Mapping[str, str], variable: str, *, default: bool) -> bool:
    text = found.get(variable, "").strip().lower()
    if text not in ("", "true", "false"):
        raise ConfigurationError("must be true or false", variable=variable)
    return text == "true" if text else default
