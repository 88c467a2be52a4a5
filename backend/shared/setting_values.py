"""Values of settings that are no dual-write settings. All raise `ConfigurationError` with the variable."""

from __future__ import annotations

import math
from collections.abc import Mapping
from urllib.parse import urlsplit

from backend.shared.domain.errors import ConfigurationError

MAX_TIMEOUT_SECONDS = 60.0


def http_url(found: Mapping[str, str], variable: str, *, of: str) -> str:
    """The address of another service, which has no default; `of` says whose it is."""
    text = found.get(variable, "").strip()
    if not text:
        raise ConfigurationError(f"is not set; it names {of}, as http://host:port", variable=variable)
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError("is not a URL like http://host:port", variable=variable)
    return text


def seconds(
    found: Mapping[str, str], variable: str, *, default: float, most: float = MAX_TIMEOUT_SECONDS
) -> float:
    """A time above 0, up to `most`."""
    value = number(found, variable)
    if value is None:
        return default
    if not 0 < value <= most:
        raise ConfigurationError(f"must be a number of seconds above 0, up to {most:g}", variable=variable)
    return value


def number(found: Mapping[str, str], variable: str) -> float | None:
    """What is set: NaN, which is in no range, for what is no number. None if nothing is."""
    text = found.get(variable, "").strip()
    if not text:
        return None
    try:
        return float(text)
    except ValueError:
        return math.nan


def flag(found: Mapping[str, str], variable: str, *, default: bool) -> bool:
    """`true` or `false`."""
    text = found.get(variable, "").strip().lower()
    if text not in ("", "true", "false"):
        raise ConfigurationError("must be true or false", variable=variable)
    return text == "true" if text else default
