"""Routes that need a caller: refused without keys, without a token, with a wrong one, and for the wrong role."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import httpx
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from fastapi import APIRouter, Depends, FastAPI
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from backend.shared.api.application import build_app
from backend.shared.api.keys import JwksKeySource
from backend.shared.api.security import (
    DepAdmin,
    DepPrincipal,
    make_verifier,
    require_role,
    set_token_verifier,
)
from backend.shared.api.tokens import (
    Principal,
    Role,
    TokenIssuer,
    TokenType,
    TokenVerifier,
    generate_signing_key,
)
from backend.shared.domain.errors import ConfigurationError
from backend.shared.observability.metrics import Metrics

PEM = generate_signing_key()
ISSUER = TokenIssuer(PEM)
routes = APIRouter()


@routes.get("/me")
async def me(principal: DepPrincipal) -> dict[str, str]:
    return {"subject": principal.subject}


@routes.get("/admin")
async def admin(principal: DepAdmin) -> dict[str, str]:
    return {"subject": principal.subject}


@routes.get("/operator")
async def operator(
    principal: Annotated[Principal, Depends(require_role(Role.ADMIN, Role.SERVICE))],
) -> dict[str, str]:
    return {"subject": principal.subject}


@pytest.fixture
def app() -> FastAPI:
    verifier = TokenVerifier(ISSUER.key_source())
    return build_app(
        "test", version="1", metrics=Metrics(CollectorRegistry()), routers=[routes], token_verifier=verifier
    )


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as made:
        yield made


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    ("role", "path", "status"),
    [
        (Role.USER, "/me", 200),
        (Role.USER, "/admin", 403),
        (Role.USER, "/operator", 403),
        (Role.ADMIN, "/admin", 200),
        (Role.ADMIN, "/operator", 200),
    ],
)
async def test_roles(client: httpx.AsyncClient, role: Role, path: str, status: int) -> None:
    response = await client.get(path, headers=_bearer(ISSUER.issue("17850", role=role)))
    assert response.status_code == status


@pytest.mark.parametrize(("path", "status"), [("/me", 200), ("/admin", 403), ("/operator", 200)])
async def test_a_service(client: httpx.AsyncClient, path: str, status: int) -> None:
    response = await client.get(path, headers=_bearer(ISSUER.service_token("cart")))
    assert response.status_code == status


@pytest.mark.parametrize("path", ["/me", "/admin", "/operator"])
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic dTpw"},
        {"Authorization": "Bearer x.y.z"},
        {"Authorization": b"Bearer \xff\xfe"},
        _bearer(TokenIssuer(generate_signing_key()).issue("1", role=Role.ADMIN)),
        _bearer(TokenIssuer(PEM, audience="other").issue("1", role=Role.ADMIN)),
        _bearer(ISSUER.issue("1", role=Role.ADMIN, lifetime=timedelta(hours=-1))),
        _bearer(ISSUER.issue("1", role=Role.ADMIN, token_type=TokenType.REFRESH)),
    ],
    ids=[
        "none",
        "empty",
        "no-token",
        "basic",
        "malformed",
        "binary",
        "forged",
        "audience",
        "expired",
        "refresh",
    ],
)
async def test_401_without_a_valid_token(
    client: httpx.AsyncClient, path: str, headers: dict[str, str | bytes]
) -> None:
    raw = {name: value if isinstance(value, bytes) else value.encode() for name, value in headers.items()}
    response = await client.get(path, headers=[(name.encode(), value) for name, value in raw.items()])
    assert response.status_code == 401
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["www-authenticate"].startswith('Bearer realm="tandem"')


async def test_an_inactive_account_is_refused(client: httpx.AsyncClient) -> None:
    token = ISSUER.issue("1", role=Role.ADMIN, is_active=False)
    assert (await client.get("/me", headers=_bearer(token))).status_code == 403


@pytest.mark.parametrize("path", ["/me", "/admin", "/operator"])
async def test_without_a_key_the_routes_are_refused_not_open(
    app: FastAPI, client: httpx.AsyncClient, path: str
) -> None:
    set_token_verifier(app, None)
    for headers in ({}, _bearer(ISSUER.issue("1", role=Role.ADMIN))):
        response = await client.get(path, headers=headers)
        assert response.status_code == 503
        assert response.headers["retry-after"]


async def test_503_while_the_keys_cannot_be_fetched(app: FastAPI, client: httpx.AsyncClient) -> None:
    async def down(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("down", request=request)

    set_token_verifier(
        app, TokenVerifier(JwksKeySource("http://auth/jwks", transport=httpx.MockTransport(down)))
    )
    response = await client.get("/me", headers=_bearer(ISSUER.issue("1", role=Role.ADMIN)))
    assert response.status_code == 503


async def test_a_token_is_in_no_log_and_no_answer(client: httpx.AsyncClient) -> None:
    token = ISSUER.issue("1", role=Role.USER, lifetime=timedelta(hours=-1))
    with capture_logs() as lines:
        response = await client.get("/me", headers=_bearer(token))
    assert token not in response.text
    assert token not in str(lines)


async def test_the_verifier_follows_from_the_settings(tmp_path: Path) -> None:
    assert make_verifier() is None
    by_url = make_verifier(jwks_url="http://auth/jwks")
    assert by_url is not None
    await by_url.aclose()
    key = load_pem_private_key(PEM, password=None).public_key()
    (tmp_path / "public.pem").write_bytes(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    by_file = make_verifier(public_key_file=tmp_path / "public.pem")
    assert by_file is not None
    assert (await by_file.verify(ISSUER.issue("1", role=Role.USER))).subject == "1"
    with pytest.raises(ConfigurationError):
        make_verifier(public_key_file=tmp_path / "missing.pem")
