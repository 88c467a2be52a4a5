"""`DualWriteSettings`: what an operator may set, where it comes from, and what contradicts itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any

from backend.shared.domain.errors import ConfigurationError, ValidationError
from backend.shared.domain.mapping import EntityCatalog
from backend.shared.domain.phases import Phase, Side
from backend.shared.environment import load_environment, mask_url

MAX_BATCH_SIZE = 10_000
MAX_LAG_WINDOW_SECONDS = 60.0
"""A process remembers so much of what it has measured."""


def _flag(text: str) -> bool:
    value = text.strip().lower()
    if value in ("1", "true", "yes", "on"):
        return True
    if value in ("0", "false", "no", "off"):
        return False
    raise ValueError(f"{text!r} is neither true nor false")


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text!r} is no finite number")
    return value


class ForeignWrites(StrEnum):
    """What becomes of what other programs write to the side that is closed."""

    REPORT = "report"
    """It stands, and is kept as a conflict with both images until somebody settles it."""
    REJECT = "reject"
    """The database refuses it."""


class ReadFallback(StrEnum):
    """When a read that the authoritative side did not answer is asked of the other side."""

    OFF = "off"
    ERROR = "error"
    """When the authoritative side fails."""
    MISSING = "missing"
    """Also when it has no such row, and none is on its way."""


class Availability(StrEnum):
    """Which sides have to be there for a write."""

    AUTHORITATIVE = "authoritative"
    """The authoritative one (I4)."""
    ANY = "any"
    """Either. What was written on the secondary side alone is settled when the authoritative one answers again."""


class Ping(StrEnum):
    """How a write learns which sides are there."""

    BREAKER = "breaker"
    """The circuit breakers know already."""
    ALWAYS = "always"
    """Both are asked before each write, at the same time."""
    OFF = "off"
    """It finds out by itself."""


def _choice(kind: type[StrEnum]) -> Callable[[str], StrEnum]:
    def parse(text: str) -> StrEnum:
        try:
            return kind(text.strip().lower())
        except ValueError:
            raise ValueError(f"{text!r} is none of {', '.join(kind)}") from None

    return parse


def _phase(text: str) -> Phase:
    try:
        return Phase(text.strip().lower())
    except ValueError:
        raise ValueError(f"{text!r} is no phase; the phases are {', '.join(Phase)}") from None


_VARIABLES: dict[str, tuple[str, Callable[[str], Any]]] = {
    "DUAL_WRITE_ENABLED": ("enabled", _flag),
    "DUAL_WRITE_TO_LEGACY": ("write_to_legacy", _flag),
    "DUAL_WRITE_TO_NEW": ("write_to_new", _flag),
    "DUAL_WRITE_PHASE": ("phase", _phase),
    "DUAL_WRITE_FAIL_ON_NEW_ERROR": ("fail_on_new_error", _flag),
    "DUAL_WRITE_FAIL_ON_LEGACY_ERROR": ("fail_on_legacy_error", _flag),
    "DUAL_WRITE_ASYNC_LEGACY": ("async_legacy", _flag),
    "DUAL_WRITE_TIMEOUT": ("timeout_seconds", _number),
    "DUAL_WRITE_PING": ("ping", _choice(Ping)),
    "DUAL_WRITE_AVAILABILITY": ("availability", _choice(Availability)),
    "DUAL_WRITE_VALIDATE_SYNC": ("validate_sync", _flag),
    "DUAL_WRITE_SYNC_INTERVAL": ("sync_interval_seconds", _number),
    "DUAL_WRITE_FULL_SYNC_INTERVAL": ("full_sync_interval_seconds", _number),
    "DUAL_WRITE_BATCH_SIZE": ("batch_size", int),
    "DUAL_WRITE_RETRY_ATTEMPTS": ("retry_attempts", int),
    "DUAL_WRITE_RETRY_DELAY": ("retry_delay_seconds", _number),
    "DUAL_WRITE_LOG_ALL": ("log_all", _flag),
    "DUAL_WRITE_LOG_ERRORS_ONLY": ("log_errors_only", _flag),
    "DUAL_WRITE_METRICS_ENABLED": ("metrics_enabled", _flag),
    "DUAL_WRITE_FOREIGN_WRITES": ("foreign_writes", _choice(ForeignWrites)),
    "DUAL_WRITE_MAX_LAG": ("max_lag_seconds", _number),
    "DUAL_WRITE_LAG_WINDOW": ("lag_window_seconds", _number),
    "DUAL_WRITE_VALIDATION_MAX_AGE": ("validation_max_age_seconds", _number),
    "DUAL_WRITE_MIN_SHADOW_READS": ("min_shadow_reads", int),
    "DUAL_WRITE_MAX_MISMATCH_RATE": ("max_mismatch_rate", _number),
    "DUAL_READ_FALLBACK": ("dual_read_fallback", _choice(ReadFallback)),
    "SHADOW_READ_SAMPLE_RATE": ("shadow_read_sample_rate", _number),
    "NEW_READ_SHARE": ("new_read_share", _number),
}
_VARIABLE_OF = {name: variable for variable, (name, _) in _VARIABLES.items()}
_FIELD_OF = {variable.removeprefix("DUAL_WRITE_").lower(): name for variable, (name, _) in _VARIABLES.items()}
RUN_TIME = frozenset(_FIELD_OF) - {"phase"}
"""Settings that can be changed while replicas run, by their variable's name without `DUAL_WRITE_`.

The phase has its own way.
"""


_BOUNDS: tuple[tuple[str, float, float], ...] = (
    ("timeout_seconds", 1, 60),
    ("batch_size", 1, MAX_BATCH_SIZE),
    ("retry_attempts", 1, 1000),
    ("retry_delay_seconds", 0, math.inf),
    ("lag_window_seconds", 0, MAX_LAG_WINDOW_SECONDS),
    ("min_shadow_reads", 0, math.inf),
    ("max_mismatch_rate", 0, 1),
    ("shadow_read_sample_rate", 0, 1),
    ("new_read_share", 0, 1),
)
_ABOVE_ZERO = (
    "sync_interval_seconds",
    "full_sync_interval_seconds",
    "max_lag_seconds",
    "validation_max_age_seconds",
)


@dataclass(frozen=True, kw_only=True)
class DualWriteSettings:
    """Settings of one service. Read with `from_env`; a contradiction raises `ConfigurationError`.

    `batch_size` is in keys, `sync_interval_seconds`, `full_sync_interval_seconds` and `retry_delay_seconds` in seconds; the
    delay doubles with each attempt. A full interval below the other one makes every validation a full one. The URLs are
    secret: they are shown without password.

    `timeout_seconds` bounds each side's part of a write that goes to both.

    What a step up asks for: `max_lag_seconds` not exceeded for `lag_window_seconds`, a validation not older than
    `validation_max_age_seconds`, and at least `min_shadow_reads` compared reads of which at most the share
    `max_mismatch_rate` differed. Of the reads, the share `shadow_read_sample_rate` is compared, and in `shadow` the share
    `new_read_share` of the keys is read from the new side.
    """

    service: str = ""
    legacy_database_url: str = field(default="", repr=False)
    database_url: str = field(default="", repr=False)
    enabled: bool = True
    write_to_legacy: bool = True
    write_to_new: bool = True
    phase: Phase = Phase.RAMPDOWN
    fail_on_new_error: bool = True
    fail_on_legacy_error: bool = False
    async_legacy: bool = True
    timeout_seconds: float = 5.0
    ping: Ping = Ping.BREAKER
    availability: Availability = Availability.AUTHORITATIVE
    validate_sync: bool = True
    sync_interval_seconds: float = 300.0
    full_sync_interval_seconds: float = 86_400.0
    batch_size: int = 100
    retry_attempts: int = 3
    retry_delay_seconds: float = 5.0
    log_all: bool = False
    log_errors_only: bool = True
    metrics_enabled: bool = True
    foreign_writes: ForeignWrites = ForeignWrites.REPORT
    max_lag_seconds: float = 5.0
    lag_window_seconds: float = 60.0
    validation_max_age_seconds: float = 3600.0
    min_shadow_reads: int = 1000
    max_mismatch_rate: float = 0.001
    dual_read_fallback: ReadFallback = ReadFallback.OFF
    shadow_read_sample_rate: float = 0.1
    new_read_share: float = 0.0

    def __post_init__(self) -> None:
        for name, least, most in _BOUNDS:
            if not least <= getattr(self, name) <= most:
                limit = (
                    f"must be from {least:g} to {most:g}"
                    if most < math.inf
                    else f"must be at least {least:g}"
                )
                raise self._error(name, limit)
        for name in _ABOVE_ZERO:
            if getattr(self, name) <= 0:
                raise self._error(name, "must be above zero")
        if not self.write_to_legacy and not self.write_to_new:
            raise self._error("write_to_legacy", "both sides are switched off, so there is no side to write")

    @classmethod
    def from_env(cls, service: str, environment: Mapping[str, str] | None = None) -> DualWriteSettings:
        """Settings of `service` ("CART"): `CART_DUAL_WRITE_…`, else `DUAL_WRITE_…`, else the defaults."""
        found = load_environment() if environment is None else environment
        prefix = service.upper() + "_"
        _refuse_unknown(found, prefix)
        values: dict[str, Any] = {"service": service.lower()}
        for variable, (name, parse) in _VARIABLES.items():
            given = next((v for v in (prefix + variable, variable) if v in found), None)
            if given is None:
                continue
            try:
                values[name] = parse(found[given])
            except ValueError as error:
                raise ConfigurationError(str(error), variable=given) from None
        for variable, name in (
            ("LEGACY_DATABASE_URL", "legacy_database_url"),
            ("DATABASE_URL", "database_url"),
        ):
            values[name] = found.get(prefix + variable) or found.get(variable) or ""
        values.setdefault("phase", _phase_of_flags(values))
        settings = cls(**values)
        settings.check_phase(settings.phase)
        return settings

    def writes(self, side: Side) -> bool:
        """Whether `side` is switched on."""
        return self.write_to_legacy if side is Side.LEGACY else self.write_to_new

    def fails_on(self, side: Side) -> bool:
        """Whether an error on `side` fails the call."""
        return self.fail_on_legacy_error if side is Side.LEGACY else self.fail_on_new_error

    def carries(self, phase: Phase) -> bool:
        """Whether the relay may write the secondary side in `phase`."""
        secondary = phase.policy.secondary
        return self.enabled and secondary is not None and self.writes(secondary)

    def check_phase(self, phase: Phase) -> None:
        """Raise `ConfigurationError` if `phase` writes a side that is switched off."""
        policy = phase.policy
        for side in (policy.authoritative, policy.secondary):
            if side is not None and not self.writes(side):
                name = "write_to_legacy" if side is Side.LEGACY else "write_to_new"
                raise self._error(name, f"is false, but phase {phase.value} writes the {side.value} side")

    def check_entities(self, catalog: EntityCatalog) -> None:
        """Raise `ConfigurationError` if something is set that the entities of `catalog` do not allow.

        Two sides that each make keys on their own would give the same one to two things.
        """
        if self.availability is Availability.ANY:
            for entity in catalog.ordered:
                if entity.document is None:
                    raise self._error(
                        "availability",
                        f"any is for documents, whose keys no database makes: {entity.name} is none",
                    )

    def changed(self, changes: Mapping[str, Any]) -> DualWriteSettings:
        """These settings with run-time `changes`, named as in `RUN_TIME`; raises `ValidationError` for a wrong one."""
        types = {item.name: str(item.type) for item in fields(self)}
        values: dict[str, Any] = {}
        for name, value in changes.items():
            if name not in RUN_TIME:
                raise ValidationError(f"{name!r} is no setting that can be changed at run time")
            values[_FIELD_OF[name]] = _fitting(name, value, kind=types[_FIELD_OF[name]])
        try:
            return replace(self, **values)
        except ConfigurationError as error:
            raise ValidationError(str(error)) from None

    def to_dict(self) -> dict[str, Any]:
        """Every setting by its variable's name without `DUAL_WRITE_`; the URLs without passwords."""
        shown = {stem: getattr(self, name) for stem, name in _FIELD_OF.items()}
        for name in ("legacy_database_url", "database_url"):
            shown[name] = mask_url(getattr(self, name)) if getattr(self, name) else None
        return shown | {"phase": self.phase.value}

    def _error(self, name: str, message: str) -> ConfigurationError:
        prefix = f"{self.service.upper()}_" if self.service else ""
        return ConfigurationError(message, variable=prefix + _VARIABLE_OF[name])


_CHOICES: Mapping[str, type[StrEnum]] = {
    kind.__name__: kind for kind in (ForeignWrites, ReadFallback, Availability, Ping)
}


def _fitting(name: str, value: object, *, kind: str) -> object:
    """`value` as a setting of the type named `kind`."""
    if choices := _CHOICES.get(kind):
        try:
            return choices(str(value))
        except ValueError:
            raise ValidationError(f"{name}: must be one of {', '.join(choices)}") from None
    fits = isinstance(value, {"bool": bool, "int": int, "float": int | float}[kind])
    if not fits or (isinstance(value, bool) and kind != "bool"):
        raise ValidationError(f"{name}: must be of type {kind}")
    return value


def _phase_of_flags(values: Mapping[str, Any]) -> Phase:
    if not values.get("write_to_legacy", True):
        return Phase.COMPLETE
    if not values.get("write_to_new", True):
        return Phase.OFF
    return Phase.RAMPDOWN


def _refuse_unknown(environment: Mapping[str, str], prefix: str) -> None:
    for variable in environment:
        for start in (prefix, ""):
            if variable.startswith(start + "DUAL_WRITE_") and variable.removeprefix(start) not in _VARIABLES:
                raise ConfigurationError("is no setting of Tandem", variable=variable)
