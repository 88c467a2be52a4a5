"""`/auth`: log in, stay in, log out; and the keys that others check tokens with."""

from __future__ import annotations

from fastapi import APIRouter, Response, status

from backend.shared.api.problems import problem_responses

from ..schemas import JsonWebKeySet, LoginRequest, RefreshRequest, TokensOut
from ..services.sessions import IssuedTokens
from .dependencies import DepServices

router = APIRouter(prefix="/auth", tags=["sessions"])
keys_router = APIRouter(tags=["sessions"])
_REFUSED = problem_responses(401, 403)
KEYS_CACHE_SECONDS = 300


@router.post("/login", summary="Log in", responses=_REFUSED)
async def log_in(found: DepServices, request: LoginRequest, response: Response) -> TokensOut:
    return _answer(await found.sessions.log_in(request.email, password=request.password), response)


@router.post("/refresh", summary="Exchange a refresh token for new tokens", responses=_REFUSED)
async def refresh(found: DepServices, request: RefreshRequest, response: Response) -> TokensOut:
    return _answer(await found.sessions.refresh(request.refresh_token), response)


@router.post("/logout", status_code=status.HTTP_204_NO_CONTENT, summary="End a session")
async def log_out(found: DepServices, request: RefreshRequest) -> None:
    await found.sessions.log_out(request.refresh_token)


@keys_router.get("/.well-known/jwks.json", summary="Public keys to check access tokens with")
async def read_keys(found: DepServices, response: Response) -> JsonWebKeySet:
    response.headers["Cache-Control"] = f"public, max-age={KEYS_CACHE_SECONDS}"
    return JsonWebKeySet.model_validate(found.issuer.jwks())


def _answer(tokens: IssuedTokens, response: Response) -> TokensOut:
    response.headers["Cache-Control"] = "no-store"
    return TokensOut(
        access_token=tokens.access_token,
        expires_in=int(tokens.expires_in.total_seconds()),
        refresh_token=tokens.refresh_token,
    )
