"""Limits of pools and waits, read from the environment: per service, within bounds, each error with its variable."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from backend.shared.domain.errors import ConfigurationError
from backend.shared.environment import load_environment

_FLAGS = {
    "1": True,
    "true": True,
    "yes": True,
    "on": True,
    "0": False,
    "false": False,
    "no": False,
    "off": False,
}


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A field of a class of limits: its variable, and from where to where it may go. Without bounds it is a flag."""

    field: str
    variable: str
    kind: type[int | float | bool]
    least: float = -math.inf
    most: float = math.inf

    def parse(self, text: str) -> int | float | bool:
        """The value that `text` stands for; raises `ValueError` with a reason for people."""
        plain = text.strip().lower()
        if self.kind is bool:
            if plain not in _FLAGS:
                raise ValueError("must be true or false")
            return _FLAGS[plain]
        try:
            value = self.kind(plain)
        except ValueError:
            raise ValueError(f"must be a {'whole ' if self.kind is int else ''}number") from None
        self.check(value)
        return value

    def check(self, value: float) -> None:
        """Raise `ValueError` if `value` is out of bounds; so is NaN."""
        if self.kind is not bool and not self.least <= value <= self.most:
            raise ValueError(f"must be from {self.least:g} to {self.most:g}")


def read_limits(
    limits: tuple[Limit, ...], *, service: str, environment: Mapping[str, str] | None
) -> dict[str, Any]:
    """The fields that the environment sets: `CART_DB_POOL_SIZE` wins over `DB_POOL_SIZE`; empty counts as unset."""
    found = load_environment() if environment is None else environment
    prefix = f"{service.upper()}_" if service else ""
    values: dict[str, Any] = {}
    for limit in limits:
        given = next((v for v in (prefix + limit.variable, limit.variable) if found.get(v, "").strip()), None)
        if given is None:
            continue
        try:
            values[limit.field] = limit.parse(found[given])
        except ValueError as error:
            raise ConfigurationError(str(error), variable=given) from None
    return values


def check_limits(limits: tuple[Limit, ...], values: object) -> None:
    """Raise `ConfigurationError` if a field of `values` is out of its bounds."""
    for limit in limits:
        try:
            limit.check(getattr(values, limit.field))
        except ValueError as error:
            raise ConfigurationError(str(error), variable=limit.variable) from None
