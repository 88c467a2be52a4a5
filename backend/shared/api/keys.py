"""The public keys that tokens are checked with, and where they come from.

Asymmetric keys only. What a key may verify follows from the key itself, never from a token's header (RFC 8725).
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import httpx
import structlog
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import PyJWK
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import PyJWTError

from backend.shared.api.errors import KeysUnavailableError
from backend.shared.domain.errors import ConfigurationError

PublicKey = Ed25519PublicKey | EllipticCurvePublicKey | RSAPublicKey

_MIN_RSA_BITS = 2048
_MAX_RSA_BITS = 8192
_MAX_KEYS = 32
_MAX_JWKS_BYTES = 65_536
_THUMBPRINT_MEMBERS = {"OKP": ("crv", "kty", "x"), "EC": ("crv", "kty", "x", "y"), "RSA": ("e", "kty", "n")}

logger = structlog.stdlib.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class VerificationKey:
    """A public key with its id and the one algorithm it serves."""

    kid: str
    algorithm: str
    key: PublicKey

    def to_jwk(self) -> dict[str, str]:
        """The key as it is published."""
        return {**_jwk_members(self.key), "kid": self.kid, "alg": self.algorithm, "use": "sig"}


class KeySource(Protocol):
    """Finds the key that a token names."""

    async def find(self, kid: str) -> VerificationKey | None:
        """The key, or None when there is none of that id. Raises KeysUnavailableError when that cannot be told."""

    async def aclose(self) -> None: ...


def verification_key(key: object, *, kid: str | None = None) -> VerificationKey:
    """Wrap a public key; its id is its thumbprint (RFC 7638) unless given. Raises ValueError for unfit keys."""
    match key:
        case Ed25519PublicKey():
            algorithm = "EdDSA"
        case EllipticCurvePublicKey() if isinstance(key.curve, SECP256R1):
            algorithm = "ES256"
        case RSAPublicKey() if _MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS:
            algorithm = "RS256"
        case _:
            raise ValueError("only Ed25519, P-256 and RSA public keys of 2048 bits and more are accepted")
    return VerificationKey(kid=kid or thumbprint(key), algorithm=algorithm, key=key)


def thumbprint(key: PublicKey) -> str:
    """The key's SHA-256 thumbprint, base64url, as in RFC 7638."""
    members = _jwk_members(key)
    required = {name: members[name] for name in _THUMBPRINT_MEMBERS[members["kty"]]}
    digest = hashlib.sha256(json.dumps(required, sort_keys=True, separators=(",", ":")).encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def parse_jwks(document: object) -> dict[str, VerificationKey]:
    """The usable keys of a JWKS document by id; keys of other kinds are left out. Raises ValueError for a bad one."""
    keys = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(keys, list) or len(keys) > _MAX_KEYS:
        raise ValueError("not a JSON Web Key Set")
    found = (_parse_jwk(item) for item in keys)
    return {key.kid: key for key in found if key is not None}


class StaticKeySource:
    """Keys known from the start."""

    def __init__(self, keys: Iterable[VerificationKey]) -> None:
        self._keys = {key.kid: key for key in keys}

    @classmethod
    def from_jwks(cls, document: object) -> StaticKeySource:
        """Keys of a JWKS document. Raises ConfigurationError when it holds none."""
        try:
            keys = parse_jwks(document)
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
        if not keys:
            raise ConfigurationError("the key set holds no Ed25519, P-256 or RSA public key")
        return cls(keys.values())

    @classmethod
    def from_pem(cls, pem: bytes) -> StaticKeySource:
        """One public key; its id is its thumbprint. Raises ConfigurationError for anything else."""
        try:
            return cls([verification_key(load_pem_public_key(pem))])
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConfigurationError("the PEM file holds no usable public key") from error

    async def find(self, kid: str) -> VerificationKey | None:
        return self._keys.get(kid)

    async def aclose(self) -> None:
        """Nothing to close."""


class JwksKeySource:
    """Keys published at a URL, fetched when first needed.

    They are fetched again once they are older than `cache_seconds`, and for a key id not seen before, but never more
    often than every `min_refresh_seconds`, whatever tokens come in. When a fetch fails, keys already known go on
    serving for `stale_seconds`: an auth service that restarts takes no one else down.
    """

    def __init__(
        self,
        url: str,
        *,
        cache_seconds: float = 300.0,
        min_refresh_seconds: float = 10.0,
        stale_seconds: float = 86_400.0,
        timeout_seconds: float = 2.0,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not url.startswith(("http://", "https://")):
            raise ConfigurationError("the address of the key set must begin with http:// or https://")
        self._url = url
        self._cache_seconds = cache_seconds
        self._min_refresh_seconds = min_refresh_seconds
        self._stale_seconds = stale_seconds
        # These keys decide who is an admin: no proxy or netrc out of the environment has a say in it.
        self._client = httpx.AsyncClient(
            timeout=timeout_seconds, transport=transport, trust_env=False, follow_redirects=False
        )
        self._timeout_seconds = timeout_seconds
        self._clock = clock
        self._lock = asyncio.Lock()
        self._keys: dict[str, VerificationKey] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None

    async def find(self, kid: str) -> VerificationKey | None:
        key = self._keys.get(kid)
        # While one caller fetches, the others go on with the key they have.
        if key is not None and (self._age() < self._cache_seconds or self._is_refreshing()):
            return key
        if self._may_try():
            async with self._lock:
                # Whoever waited here finds the answer of the one before.
                if self._may_try():
                    await self._refresh()
        if self._age() > self._stale_seconds:
            raise KeysUnavailableError("the keys that tokens are checked with cannot be fetched")
        return self._keys.get(kid)

    async def aclose(self) -> None:
        await self._client.aclose()

    def _age(self) -> float:
        return float("inf") if self._fetched_at is None else self._clock() - self._fetched_at

    def _is_refreshing(self) -> bool:
        return self._lock.locked() and self._age() <= self._stale_seconds

    def _may_try(self) -> bool:
        if self._tried_at is None:
            return True
        # Without any key every request fails, so the next try comes sooner.
        pause = (
            self._min_refresh_seconds if self._fetched_at is not None else min(1.0, self._min_refresh_seconds)
        )
        return self._clock() - self._tried_at >= pause

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                keys = parse_jwks(await self._fetch())
        except (httpx.HTTPError, httpx.InvalidURL, ValueError, RecursionError, TimeoutError) as error:
            logger.warning("jwks_fetch_failed", url=self._url, error=f"{type(error).__name__}: {error}")
        else:
            self._keys, self._fetched_at = keys, self._clock()
        # Not set before the answer is there: a caller cancelled on the way does not count as a try.
        self._tried_at = self._clock()

    async def _fetch(self) -> object:
        body = b""
        async with self._client.stream("GET", self._url, headers={"Accept": "application/json"}) as response:
            response.raise_for_status()
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _MAX_JWKS_BYTES:
                    raise ValueError("the key set is too large")
        document: object = json.loads(body)
        return document


def _parse_jwk(item: object) -> VerificationKey | None:
    if not isinstance(item, dict) or item.get("use", "sig") != "sig":
        return None
    kid = item.get("kid")
    if kid is not None and not isinstance(kid, str):
        return None
    try:
        found = verification_key(PyJWK.from_dict(item).key, kid=kid)
    except (PyJWTError, ValueError, TypeError, KeyError, UnsupportedAlgorithm):
        return None
    return found if item.get("alg", found.algorithm) == found.algorithm else None


def _jwk_members(key: PublicKey) -> dict[str, Any]:
    match key:
        case Ed25519PublicKey():
            return OKPAlgorithm.to_jwk(key, as_dict=True)
        case EllipticCurvePublicKey():
            return ECAlgorithm.to_jwk(key, as_dict=True)
        case RSAPublicKey():
            members = RSAAlgorithm.to_jwk(key, as_dict=True)
            return {name: members[name] for name in ("kty", "n", "e")}
