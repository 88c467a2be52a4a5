"""What an operator may set for the auth service, beside the dual-write settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from backend.shared import ConfigurationError
from backend.shared.environment import load_environment
from backend.shared.events.pruning import MessageRetention


@dataclass(frozen=True, kw_only=True)
class AuthSettings:
    """Settings of the auth service. Read with `from_env`; a wrong one raises `ConfigurationError` with its variable.

    The cost of a password hash is OWASP's least for argon2id (2 passes over 19 MiB, one lane; Password Storage Cheat
    Sheet): log-ins share the cores with everything else. `run_relay`: whether the service carries its own changes;
    a relay process beside it does no harm, nor does its absence. Without `broker_url` it tells nobody of users.
    """

    signing_key_file: Path
    access_token_lifetime: timedelta = timedelta(minutes=15)
    refresh_token_lifetime: timedelta = timedelta(days=14)
    hash_memory_kib: int = 19_456
    hash_passes: int = 2
    hash_threads: int = 2
    hash_queue_length: int = 64
    run_relay: bool = True
    broker_url: str | None = None
    retention: MessageRetention = field(default_factory=MessageRetention)
    log_level: str = "INFO"

    @classmethod
    def from_env(cls, environment: Mapping[str, str] | None = None) -> AuthSettings:
        """Settings from `AUTH_…` variables, of which only `AUTH_SIGNING_KEY_FILE` has no default, `BROKER_URL`, those of `MessageRetention`, and
        `LOG_LEVEL`.
        """
        found = load_environment() if environment is None else environment
        key_file = found.get("AUTH_SIGNING_KEY_FILE", "").strip()
        if not key_file:
            raise ConfigurationError(
                "is not set; it names a PEM file with an Ed25519 private key",
                variable="AUTH_SIGNING_KEY_FILE",
            )
        access = _number(found, "AUTH_ACCESS_TOKEN_SECONDS", default=900, least=30, most=86_400)
        refresh = _number(found, "AUTH_REFRESH_TOKEN_SECONDS", default=1_209_600, least=60, most=31_536_000)
        return cls(
            signing_key_file=Path(key_file),
            access_token_lifetime=timedelta(seconds=access),
            refresh_token_lifetime=timedelta(seconds=refresh),
            hash_memory_kib=_number(found, "AUTH_HASH_MEMORY_KIB", default=19_456, least=64, most=4_194_304),
            hash_passes=_number(found, "AUTH_HASH_PASSES", default=2, least=1, most=100),
            hash_threads=_number(found, "AUTH_HASH_THREADS", default=2, least=1, most=64),
            hash_queue_length=_number(found, "AUTH_HASH_QUEUE_LENGTH", default=64, least=1, most=10_000),
            run_relay=_flag(found, "AUTH_RUN_RELAY", default=True),
            broker_url=found.get("BROKER_URL", "").strip() or None,
            retention=MessageRetention.from_env(found),
            log_level=found.get("LOG_LEVEL", "").strip() or "INFO",
        )


def _flag(found: Mapping[str, str], variable: str, *, default: bool) -> bool:
    text = found.get(variable, "").strip().lower()
    if text not in ("", "true", "false"):
        raise ConfigurationError("must be true or false", variable=variable)
    return text == "true" if text else default


def _number(found: Mapping[str, str], variable: str, *, default: int, least: int, most: int) -> int:
    text = found.get(variable, "").strip()
    if not text:
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 12 and least <= int(text) <= most):
        raise ConfigurationError(f"must be a whole number from {least} to {most}", variable=variable)
    return int(text)
