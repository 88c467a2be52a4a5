"""Signed tokens: what they say, how they are checked, how they are made."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt.exceptions import ExpiredSignatureError, PyJWTError

from backend.shared.api.errors import InvalidTokenError
from backend.shared.api.keys import KeySource, StaticKeySource, verification_key
from backend.shared.domain.errors import ConfigurationError

DEFAULT_ISSUER = "tandem-auth"
DEFAULT_AUDIENCE = "tandem"
ACCESS_TOKEN_LIFETIME = timedelta(minutes=15)
REFRESH_TOKEN_LIFETIME = timedelta(days=14)
SERVICE_TOKEN_LIFETIME = timedelta(minutes=15)

_MAX_TOKEN_LENGTH = 8192
_MAX_SUBJECT_LENGTH = 255
_MAX_NAME_LENGTH = 200
_MAX_SCOPES = 64
_LATEST_SECOND = 253_402_300_799  # the last one that a datetime can hold
_REQUIRED_CLAIMS = ["exp", "iat", "iss", "aud", "sub", "jti", "typ", "role"]


class Role(StrEnum):
    """What a caller is allowed to be."""

    USER = "user"
    ADMIN = "admin"
    SERVICE = "service"


class TokenType(StrEnum):
    """What a token is for; one type never passes for another."""

    ACCESS = "access"
    REFRESH = "refresh"
    SERVICE = "service"


API_TOKENS = frozenset({TokenType.ACCESS, TokenType.SERVICE})
"""The types that open a route."""


@dataclass(frozen=True, kw_only=True)
class Principal:
    """Who calls, according to a verified token."""

    subject: str
    role: Role
    name: str | None
    is_active: bool
    issued_at: datetime
    expires_at: datetime
    token_id: str
    token_type: TokenType
    scopes: frozenset[str] = frozenset()


class TokenVerifier:
    """Checks a token's signature, issuer, audience, times and type."""

    def __init__(
        self,
        keys: KeySource,
        *,
        issuer: str = DEFAULT_ISSUER,
        audience: str = DEFAULT_AUDIENCE,
        leeway_seconds: float = 10.0,
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._leeway_seconds = leeway_seconds

    async def verify(self, token: str, *, types: Collection[TokenType] = API_TOKENS) -> Principal:
        """Who `token` speaks for.

        Raises InvalidTokenError for any token that is not perfectly in order, and KeysUnavailableError when the keys
        cannot be had. Its messages say nothing of the token's content.
        """
        if len(token) > _MAX_TOKEN_LENGTH or not token.isascii():
            raise InvalidTokenError("the token is malformed")
        key = await self._keys.find(_key_id(token))
        if key is None:
            raise InvalidTokenError("the token is signed with an unknown key")
        try:
            claims = jwt.decode(
                token,
                key.key,
                algorithms=[key.algorithm],
                issuer=self._issuer,
                audience=self._audience,
                leeway=self._leeway_seconds,
                options={"require": _REQUIRED_CLAIMS, "strict_aud": False},
            )
        except ExpiredSignatureError as error:
            raise InvalidTokenError("the token has expired") from error
        except (PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            raise InvalidTokenError("the token is not valid here") from error
        principal = _principal(claims)
        if principal.token_type not in types:
            raise InvalidTokenError(f"a token of type {principal.token_type.value} is not accepted here")
        return principal

    async def aclose(self) -> None:
        """Close the key source."""
        await self._keys.aclose()


class TokenIssuer:
    """Signs tokens with one private key."""

    def __init__(
        self,
        pem: bytes,
        *,
        issuer: str = DEFAULT_ISSUER,
        audience: str = DEFAULT_AUDIENCE,
        clock: Callable[[], datetime] = lambda: datetime.now(tz=UTC),
    ) -> None:
        self._key = _load_private_key(pem)
        try:
            self._public = verification_key(self._key.public_key())
        except ValueError as error:
            raise ConfigurationError(str(error)) from error
        self._issuer = issuer
        self._audience = audience
        self._clock = clock

    @classmethod
    def from_file(
        cls, path: Path, *, issuer: str = DEFAULT_ISSUER, audience: str = DEFAULT_AUDIENCE
    ) -> TokenIssuer:
        """An issuer for the PEM file at `path`. Raises ConfigurationError when that holds no usable private key."""
        try:
            pem = path.read_bytes()
        except OSError as error:
            raise ConfigurationError(f"cannot read the signing key {path}: {error.strerror}") from error
        return cls(pem, issuer=issuer, audience=audience)

    def issue(
        self,
        subject: str,
        *,
        role: Role,
        token_type: TokenType = TokenType.ACCESS,
        name: str | None = None,
        is_active: bool = True,
        scopes: Collection[str] = (),
        lifetime: timedelta | None = None,
        token_id: str | None = None,
    ) -> str:
        """A signed token. Without a `lifetime`: 15 minutes, a refresh token 14 days.

        Raises ValueError when role and type do not go together: a service's role needs a service's token.
        """
        if (role is Role.SERVICE) != (token_type is TokenType.SERVICE):
            raise ValueError(f"a token of type {token_type.value} cannot carry the role {role.value}")
        now = self._clock()
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": subject,
            "iat": int(now.timestamp()),
            "exp": int((now + (lifetime or _lifetime(token_type))).timestamp()),
            "jti": token_id or uuid.uuid4().hex,
            "typ": token_type.value,
            "role": role.value,
            "active": is_active,
        }
        if name:
            claims["name"] = name[:_MAX_NAME_LENGTH]
        if scopes:
            claims["scope"] = " ".join(sorted(scopes))
        return jwt.encode(
            claims, self._key, algorithm=self._public.algorithm, headers={"kid": self._public.kid}
        )

    def service_token(self, service: str) -> str:
        """A short-lived token for one service (or the command line) to call another with."""
        return self.issue(f"service:{service}", role=Role.SERVICE, token_type=TokenType.SERVICE, name=service)

    def jwks(self) -> dict[str, list[dict[str, str]]]:
        """The public key set to publish."""
        return {"keys": [self._public.to_jwk()]}

    def key_source(self) -> StaticKeySource:
        """The matching key, for a verifier in the same process."""
        return StaticKeySource([self._public])


def generate_signing_key() -> bytes:
    """A new Ed25519 private key as PEM."""
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _lifetime(token_type: TokenType) -> timedelta:
    match token_type:
        case TokenType.ACCESS:
            return ACCESS_TOKEN_LIFETIME
        case TokenType.REFRESH:
            return REFRESH_TOKEN_LIFETIME
        case TokenType.SERVICE:
            return SERVICE_TOKEN_LIFETIME


def _load_private_key(pem: bytes) -> Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey:
    try:
        key = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigurationError("the signing key is not an unencrypted PEM private key") from error
    if not isinstance(key, Ed25519PrivateKey | EllipticCurvePrivateKey | RSAPrivateKey):
        raise ConfigurationError("the signing key is neither Ed25519 nor P-256 nor RSA")
    return key


def _key_id(token: str) -> str:
    try:
        kid = jwt.get_unverified_header(token).get("kid")
    except (PyJWTError, ValueError, TypeError, RecursionError) as error:
        raise InvalidTokenError("the token is malformed") from error
    if not isinstance(kid, str) or not 0 < len(kid) <= _MAX_SUBJECT_LENGTH:
        raise InvalidTokenError("the token does not name its key")
    return kid


def _principal(claims: Mapping[str, Any]) -> Principal:
    try:
        token_type, role = TokenType(claims["typ"]), Role(claims["role"])
    except ValueError as error:
        raise InvalidTokenError("the token's type or role is unknown") from error
    if (role is Role.SERVICE) != (token_type is TokenType.SERVICE):
        raise InvalidTokenError("the token's type and role contradict each other")
    active = claims.get("active", True)
    if not isinstance(active, bool):
        raise InvalidTokenError("the token is malformed")
    return Principal(
        subject=_text(claims["sub"], longest=_MAX_SUBJECT_LENGTH),
        role=role,
        name=_text(claims["name"], longest=_MAX_NAME_LENGTH) if claims.get("name") is not None else None,
        is_active=active,
        issued_at=_moment(claims["iat"]),
        expires_at=_moment(claims["exp"]),
        token_id=_text(claims["jti"], longest=_MAX_SUBJECT_LENGTH),
        token_type=token_type,
        scopes=_scopes(claims.get("scope", "")),
    )


def _text(value: object, *, longest: int) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= longest or not value.isprintable():
        raise InvalidTokenError("the token is malformed")
    return value


def _moment(value: object) -> datetime:
    """A NumericDate; Python's JSON also reads NaN, Infinity and integers of any size."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(_bounded(value)):
        raise InvalidTokenError("the token is malformed")
    return datetime.fromtimestamp(value, tz=UTC)


def _bounded(value: float) -> float:
    return value if 0 <= value <= _LATEST_SECOND else math.inf


def _scopes(value: object) -> frozenset[str]:
    if not isinstance(value, str) or len(value.split()) > _MAX_SCOPES:
        raise InvalidTokenError("the token is malformed")
    return frozenset(value.split())
