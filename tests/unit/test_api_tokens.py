"""Tokens: what the issuer makes the verifier takes; anything else is refused with InvalidTokenError and no other."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st

from backend.shared.api.errors import InvalidTokenError
from backend.shared.api.tokens import Role, TokenIssuer, TokenType, TokenVerifier, generate_signing_key
from backend.shared.domain.errors import ConfigurationError

PEM = generate_signing_key()
ISSUER = TokenIssuer(PEM)
VERIFIER = TokenVerifier(ISSUER.key_source())
KID = ISSUER.jwks()["keys"][0]["kid"]


def _claims(**changes: Any) -> dict[str, Any]:
    now = int(datetime.now(tz=UTC).timestamp())
    claims = {
        "iss": "tandem-auth",
        "aud": "tandem",
        "sub": "17850",
        "iat": now,
        "exp": now + 60,
        "jti": "j-1",
        "typ": "access",
        "role": "user",
        **changes,
    }
    return {name: value for name, value in claims.items() if value is not ...}


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _signed(payload: bytes, *, header: dict[str, Any] | None = None) -> str:
    """A token with our signature over any payload at all."""
    head = json.dumps(header or {"alg": "EdDSA", "typ": "JWT", "kid": KID}).encode()
    signing_input = f"{_b64(head)}.{_b64(payload)}"
    key: Any = load_pem_private_key(PEM, password=None)
    return f"{signing_input}.{_b64(key.sign(signing_input.encode()))}"


def _token(**changes: Any) -> str:
    return _signed(json.dumps(_claims(**changes)).encode())


async def test_an_access_token_says_who_calls() -> None:
    token = ISSUER.issue("17850", role=Role.ADMIN, name="Ada Löv", scopes={"b", "a"})
    principal = await VERIFIER.verify(token)
    assert principal.subject == "17850"
    assert principal.role is Role.ADMIN
    assert principal.name == "Ada Löv"
    assert principal.is_active
    assert principal.token_type is TokenType.ACCESS
    assert principal.scopes == {"a", "b"}
    assert principal.expires_at - principal.issued_at == timedelta(minutes=15)


async def test_a_service_token() -> None:
    principal = await VERIFIER.verify(ISSUER.service_token("cart"))
    assert principal.role is Role.SERVICE
    assert principal.token_type is TokenType.SERVICE
    assert principal.subject == "service:cart"


async def test_types_do_not_pass_for_each_other() -> None:
    access = ISSUER.issue("1", role=Role.USER)
    refresh = ISSUER.issue("1", role=Role.USER, token_type=TokenType.REFRESH)
    with pytest.raises(InvalidTokenError):
        await VERIFIER.verify(refresh)
    with pytest.raises(InvalidTokenError):
        await VERIFIER.verify(access, types={TokenType.REFRESH})
    assert (await VERIFIER.verify(refresh, types={TokenType.REFRESH})).subject == "1"


@pytest.mark.parametrize(
    ("role", "token_type"),
    [(Role.SERVICE, TokenType.ACCESS), (Role.ADMIN, TokenType.SERVICE), (Role.SERVICE, TokenType.REFRESH)],
)
async def test_role_and_type_go_together(role: Role, token_type: TokenType) -> None:
    with pytest.raises(ValueError, match="cannot carry"):
        ISSUER.issue("1", role=role, token_type=token_type)
    with pytest.raises(InvalidTokenError):
        await VERIFIER.verify(_token(role=role.value, typ=token_type.value), types=set(TokenType))


async def test_our_own_forgery_by_hand_is_taken() -> None:
    assert (await VERIFIER.verify(_token())).subject == "17850"


HUGE = 10**400
NAN, INF = float("nan"), float("inf")


BAD_CLAIMS: dict[str, list[Any]] = {
    "exp": [0, 1, -1, HUGE, -HUGE, 1e300, "soon", None, [], {}, True, NAN, INF, -INF, 253_402_300_800, ...],
    "iat": [HUGE, -HUGE, -1, "x", None, True, NAN, INF, 253_402_300_799, ...],
    "nbf": [HUGE, "x", 253_402_300_799, NAN],
    "aud": ["other", [], ["other"], 7, {}, None, ...],
    "iss": ["other", 7, ["tandem-auth"], None, ...],
    "sub": ["", 7, "x" * 256, "a\x00b", "a\nb", None, ["1"], ...],
    "role": ["root", "Admin", 7, ["admin"], {}, None, ...],
    "typ": ["JWT", "", 7, [], None, ...],
    "jti": ["", 7, None, ...],
    "name": [7, "x" * 201, "a\x00", []],
    "active": [0, "false", None, []],
    "scope": [7, ["admin"], "a " * 65, None],
}


@pytest.mark.parametrize(
    ("claim", "number"),
    [(claim, number) for claim, values in BAD_CLAIMS.items() for number in range(len(values))],
)
async def test_a_token_with_a_bad_claim_is_refused(claim: str, number: int) -> None:
    with pytest.raises(InvalidTokenError):
        await VERIFIER.verify(_token(**{claim: BAD_CLAIMS[claim][number]}))


async def test_an_expired_token_is_refused_beyond_the_leeway() -> None:
    now = int(datetime.now(tz=UTC).timestamp())
    assert (await VERIFIER.verify(_token(exp=now - 5))).subject == "17850"
    with pytest.raises(InvalidTokenError, match="expired"):
        await VERIFIER.verify(_token(exp=now - 11))


async def test_the_audience_may_be_one_of_several() -> None:
    assert (await VERIFIER.verify(_token(aud=["other", "tandem"]))).subject == "17850"


def _unsigned(algorithm: str) -> str:
    head = json.dumps({"alg": algorithm, "kid": KID}).encode()
    return f"{_b64(head)}.{_b64(json.dumps(_claims(role='admin')).encode())}."


def _public_pem() -> bytes:
    key: Any = load_pem_private_key(PEM, password=None)
    public: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return public


def _signed_with_the_public_key() -> str:
    """The classic confusion: HMAC keyed with what everybody knows."""
    head = json.dumps({"alg": "HS256", "kid": KID}).encode()
    text = f"{_b64(head)}.{_b64(json.dumps(_claims(role='admin')).encode())}"
    return f"{text}.{_b64(hmac.new(_public_pem(), text.encode(), hashlib.sha256).digest())}"


def _forged() -> str:
    """Signed with somebody else's key under our key's id."""
    key: Any = load_pem_private_key(generate_signing_key(), password=None)
    return jwt.encode(_claims(role="admin"), key, algorithm="EdDSA", headers={"kid": KID})


def _tampered() -> str:
    head, _, signature = ISSUER.issue("1", role=Role.USER).split(".")
    return f"{head}.{_b64(json.dumps(_claims(role='admin')).encode())}.{signature}"


def _with_header(**header: Any) -> str:
    return _signed(json.dumps(_claims()).encode(), header={"alg": "EdDSA", "kid": KID, **header})


BAD_TOKENS: dict[str, Callable[[], str]] = {
    "alg_none": lambda: _unsigned("none"),
    "alg_none_in_capitals": lambda: _unsigned("None"),
    "no_signature": lambda: _unsigned("EdDSA"),
    "no_hmac": lambda: _unsigned("HS256"),
    "hmac_with_the_public_key": _signed_with_the_public_key,
    "forged_under_our_key_id": _forged,
    "tampered": _tampered,
    "unknown_key": lambda: TokenIssuer(generate_signing_key()).issue("1", role=Role.ADMIN),
    "other_issuer": lambda: TokenIssuer(PEM, issuer="other").issue("1", role=Role.ADMIN),
    "other_audience": lambda: TokenIssuer(PEM, audience="other").issue("1", role=Role.ADMIN),
    "kid_null": lambda: _with_header(kid=None),
    "kid_number": lambda: _with_header(kid=7),
    "kid_empty": lambda: _with_header(kid=""),
    "kid_path": lambda: _with_header(kid="../../etc/passwd"),
    "signed_but_alg_none": lambda: _with_header(alg="none"),
    "signed_but_other_alg": lambda: _with_header(alg="ES256"),
    "alg_number": lambda: _with_header(alg=7),
    "detached": lambda: _with_header(b64=False, crit=["b64"]),
    "critical_extension": lambda: _with_header(crit=["unheard-of"]),
    "payload_list": lambda: _signed(b"[]"),
    "payload_null": lambda: _signed(b"null"),
    "payload_broken": lambda: _signed(b"{"),
    "payload_binary": lambda: _signed(b"\xff"),
    "payload_deep": lambda: _signed(b"[" * 3000),
    "payload_huge_number": lambda: _signed(b'{"exp": ' + b"9" * 4500 + b"}"),
    "empty": str,
    "dot": lambda: ".",
    "dots": lambda: "..",
    "letters": lambda: "a.b.c",
    "accents": lambda: "é.é.é",
    "too_long": lambda: "x" * 9000,
    "nul": lambda: "\x00",
}


@pytest.mark.parametrize("name", BAD_TOKENS)
async def test_anything_else_is_refused(name: str) -> None:
    with pytest.raises(InvalidTokenError) as refusal:
        await VERIFIER.verify(BAD_TOKENS[name]())
    assert "17850" not in str(refusal.value)


@given(st.text(max_size=200) | st.tuples(st.text(), st.text(), st.text()).map(".".join))
async def test_no_text_makes_the_verifier_fail_otherwise(token: str) -> None:
    with pytest.raises(InvalidTokenError):
        await VERIFIER.verify(token)


@given(
    st.dictionaries(st.sampled_from(sorted(_claims())), st.integers() | st.floats() | st.text() | st.none())
)
async def test_no_claim_makes_the_verifier_fail_otherwise(changes: dict[str, Any]) -> None:
    with suppress(InvalidTokenError):
        await VERIFIER.verify(_token(**changes))


def _pem(key: Any) -> bytes:
    encoded: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return encoded


@pytest.mark.parametrize(
    "make_key",
    [lambda: ec.generate_private_key(ec.SECP256R1()), lambda: rsa.generate_private_key(65537, 2048)],
)
async def test_other_asymmetric_keys_work_too(make_key: Callable[[], Any]) -> None:
    issuer = TokenIssuer(_pem(make_key()))
    principal = await TokenVerifier(issuer.key_source()).verify(issuer.issue("1", role=Role.USER))
    assert principal.subject == "1"


def test_the_published_keys_hold_nothing_private() -> None:
    for pem in (
        PEM,
        _pem(ec.generate_private_key(ec.SECP256R1())),
        _pem(rsa.generate_private_key(65537, 2048)),
    ):
        (jwk,) = TokenIssuer(pem).jwks()["keys"]
        assert not {"d", "p", "q", "dp", "dq", "qi", "k"} & set(jwk)
        assert {"kty", "kid", "alg", "use"} <= set(jwk)


def test_a_bad_signing_key_is_a_configuration_error(tmp_path: Path) -> None:
    bad = [b"", b"secret", _public_pem(), _pem(rsa.generate_private_key(65537, 1024))]
    bad.append(_pem(ec.generate_private_key(ec.SECP384R1())))
    for pem in bad:
        with pytest.raises(ConfigurationError):
            TokenIssuer(pem)
    with pytest.raises(ConfigurationError, match="cannot read"):
        TokenIssuer.from_file(tmp_path / "missing.pem")
    (tmp_path / "key.pem").write_bytes(PEM)
    assert TokenIssuer.from_file(tmp_path / "key.pem").jwks() == ISSUER.jwks()
