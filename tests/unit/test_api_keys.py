"""Keys: only asymmetric ones, found by id, fetched seldom however many tokens come in."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from backend.shared.api.errors import KeysUnavailableError
from backend.shared.api.keys import JwksKeySource, StaticKeySource, parse_jwks, thumbprint, verification_key
from backend.shared.api.tokens import TokenIssuer, generate_signing_key
from backend.shared.domain.errors import ConfigurationError


class _Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class _Publisher:
    """An auth service's key page, with a count of how often it was asked."""

    def __init__(self, document: object) -> None:
        self.document = document
        self.fetch_count = 0
        self.status = 200
        self.delay_seconds = 0.0

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        self.fetch_count += 1
        await asyncio.sleep(self.delay_seconds)
        content = self.document if isinstance(self.document, bytes) else json.dumps(self.document).encode()
        return httpx.Response(self.status, content=content)


@pytest.fixture
def issuer() -> TokenIssuer:
    return TokenIssuer(generate_signing_key())


@pytest.fixture
def clock() -> _Clock:
    return _Clock()


def _kid(issuer: TokenIssuer) -> str:
    return issuer.jwks()["keys"][0]["kid"]


def _source(publisher: _Publisher, clock: _Clock) -> JwksKeySource:
    return JwksKeySource("http://auth/jwks", transport=httpx.MockTransport(publisher), clock=clock)


async def test_a_published_key_is_found_with_one_fetch(issuer: TokenIssuer, clock: _Clock) -> None:
    publisher = _Publisher(issuer.jwks())
    source = _source(publisher, clock)
    publisher.delay_seconds = 0.01
    found = await asyncio.gather(*(source.find(_kid(issuer)) for _ in range(50)))
    assert all(key is not None and key.algorithm == "EdDSA" for key in found)
    assert publisher.fetch_count == 1
    await source.aclose()


async def test_a_storm_of_unknown_keys_makes_one_fetch_at_most(issuer: TokenIssuer, clock: _Clock) -> None:
    publisher = _Publisher(issuer.jwks())
    source = _source(publisher, clock)
    await source.find(_kid(issuer))
    clock.now += 60
    publisher.fetch_count = 0
    found = await asyncio.gather(*(source.find(f"unknown-{number}") for number in range(500)))
    assert found == [None] * 500
    for number in range(500):
        assert await source.find(f"later-{number}") is None
    assert publisher.fetch_count == 1
    await source.aclose()


async def test_a_rotated_key_is_fetched(issuer: TokenIssuer, clock: _Clock) -> None:
    publisher = _Publisher(issuer.jwks())
    source = _source(publisher, clock)
    await source.find(_kid(issuer))
    fresh = TokenIssuer(generate_signing_key())
    publisher.document = {"keys": [*issuer.jwks()["keys"], *fresh.jwks()["keys"]]}
    assert await source.find(_kid(fresh)) is None
    clock.now += 11
    assert await source.find(_kid(fresh)) is not None
    await source.aclose()


async def test_a_withdrawn_key_is_forgotten(issuer: TokenIssuer, clock: _Clock) -> None:
    publisher = _Publisher(issuer.jwks())
    source = _source(publisher, clock)
    assert await source.find(_kid(issuer)) is not None
    publisher.document = {"keys": []}
    clock.now += 301
    assert await source.find(_kid(issuer)) is None
    await source.aclose()


async def test_known_keys_outlive_an_auth_service_that_is_down(issuer: TokenIssuer, clock: _Clock) -> None:
    publisher = _Publisher(issuer.jwks())
    source = _source(publisher, clock)
    await source.find(_kid(issuer))
    publisher.status = 500
    clock.now += 3600
    assert await source.find(_kid(issuer)) is not None
    clock.now += 86_400
    with pytest.raises(KeysUnavailableError):
        await source.find(_kid(issuer))
    await source.aclose()


async def test_while_one_fetches_the_others_use_what_they_have(issuer: TokenIssuer, clock: _Clock) -> None:
    publisher = _Publisher(issuer.jwks())
    source = _source(publisher, clock)
    await source.find(_kid(issuer))
    clock.now += 301
    publisher.delay_seconds = 5
    fetching = asyncio.create_task(source.find(_kid(issuer)))
    await asyncio.sleep(0)
    async with asyncio.timeout(1):
        assert await source.find(_kid(issuer)) is not None
    fetching.cancel()
    await asyncio.gather(fetching, return_exceptions=True)
    await source.aclose()


@pytest.mark.parametrize(
    "document",
    [b"", b"{", b"[]", b'{"keys": 1}', b'{"keys": [' + b"{}," * 40 + b"{}]}", b"x" * 70_000, b"[" * 60_000],
    ids=["empty", "broken", "list", "number", "too-many", "too-large", "deep"],
)
async def test_a_bad_key_page_is_no_key(document: bytes, clock: _Clock) -> None:
    publisher = _Publisher(document)
    source = _source(publisher, clock)
    with pytest.raises(KeysUnavailableError):
        await source.find("x")
    with pytest.raises(KeysUnavailableError):
        await source.find("x")
    assert publisher.fetch_count == 1
    clock.now += 1.1
    publisher.document = {"keys": []}
    assert await source.find("x") is None
    await source.aclose()


@pytest.mark.parametrize(
    "jwk",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "h", "alg": "HS256"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "h"},
        {"kty": "OKP", "crv": "Ed448", "x": "AA", "kid": "h"},
        {"kty": "OKP", "crv": "Ed25519", "x": "AA", "kid": "h"},
        {"kty": "nonsense"},
        {"kty": ["RSA"], "kid": "h"},
        {},
        "text",
        None,
    ],
)
def test_unfit_keys_are_left_out(jwk: Any) -> None:
    assert parse_jwks({"keys": [jwk]}) == {}


def test_a_key_under_another_algorithm_or_use_is_left_out(issuer: TokenIssuer) -> None:
    jwk = issuer.jwks()["keys"][0]
    assert parse_jwks({"keys": [jwk]})
    assert not parse_jwks({"keys": [{**jwk, "alg": "HS256"}]})
    assert not parse_jwks({"keys": [{**jwk, "use": "enc"}]})
    assert not parse_jwks({"keys": [{**jwk, "kid": 7}]})


def test_the_thumbprint_is_that_of_rfc_8037() -> None:
    key = ed25519.Ed25519PublicKey.from_public_bytes(
        bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    )
    assert thumbprint(key) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


def test_which_keys_are_fit() -> None:
    assert verification_key(ec.generate_private_key(ec.SECP256R1()).public_key()).algorithm == "ES256"
    assert verification_key(rsa.generate_private_key(65537, 2048).public_key()).algorithm == "RS256"
    for unfit in (
        rsa.generate_private_key(65537, 1024).public_key(),
        ec.generate_private_key(ec.SECP384R1()).public_key(),
        ed25519.Ed25519PrivateKey.generate(),
        b"secret",
    ):
        with pytest.raises(ValueError, match="Ed25519"):
            verification_key(unfit)


async def test_static_keys(issuer: TokenIssuer) -> None:
    source = StaticKeySource.from_jwks(issuer.jwks())
    key = await source.find(_kid(issuer))
    assert key is not None
    pem = key.key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    from_pem = await StaticKeySource.from_pem(pem).find(_kid(issuer))
    assert from_pem is not None
    assert from_pem.to_jwk() == key.to_jwk()
    assert await source.find("other") is None


@pytest.mark.parametrize(
    "document", [{}, {"keys": []}, {"keys": [{"kty": "oct", "k": "AA", "kid": "h"}]}, None]
)
def test_static_keys_without_a_key_are_a_configuration_error(document: object) -> None:
    with pytest.raises(ConfigurationError):
        StaticKeySource.from_jwks(document)


def test_a_bad_pem_is_a_configuration_error() -> None:
    for pem in (b"", b"nonsense", generate_signing_key()):
        with pytest.raises(ConfigurationError):
            StaticKeySource.from_pem(pem)


def test_an_address_of_another_kind_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError):
        JwksKeySource("file:///etc/passwd")
