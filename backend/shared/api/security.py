"""Who may call a route: FastAPI dependencies on top of token verification.

A service without a key to check tokens with answers 503 on these routes: refused, not open.
"""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from backend.shared.api.errors import InvalidTokenError, KeysUnavailableError
from backend.shared.api.keys import JwksKeySource, StaticKeySource
from backend.shared.api.tokens import DEFAULT_AUDIENCE, DEFAULT_ISSUER, Principal, Role, TokenVerifier
from backend.shared.domain.errors import ConfigurationError, PermissionDeniedError, UnauthenticatedError

BEARER = HTTPBearer(
    auto_error=False,
    bearerFormat="JWT",
    scheme_name="bearer",
    description="An access token of the auth service, or a service token.",
)
_Credentials = Annotated[HTTPAuthorizationCredentials | None, Depends(BEARER)]


def set_token_verifier(app: FastAPI, verifier: TokenVerifier | None) -> None:
    """Give `app` the verifier for its routes; None makes it refuse all that ask for a token."""
    app.state.token_verifier = verifier


def make_verifier(
    *,
    jwks_url: str | None = None,
    public_key_file: Path | None = None,
    issuer: str = DEFAULT_ISSUER,
    audience: str = DEFAULT_AUDIENCE,
) -> TokenVerifier | None:
    """A verifier for the keys configured, or None when there are none. Raises ConfigurationError for a bad file."""
    if public_key_file is not None:
        try:
            pem = public_key_file.read_bytes()
        except OSError as error:
            raise ConfigurationError(
                f"cannot read the public key {public_key_file}: {error.strerror}"
            ) from error
        return TokenVerifier(StaticKeySource.from_pem(pem), issuer=issuer, audience=audience)
    if jwks_url:
        return TokenVerifier(JwksKeySource(jwks_url), issuer=issuer, audience=audience)
    return None


async def current_principal(request: Request, credentials: _Credentials) -> Principal:
    """The caller. 401 without a valid token, 403 when her account is not active, 503 when tokens cannot be checked."""
    verifier: TokenVerifier | None = getattr(request.app.state, "token_verifier", None)
    if verifier is None:
        raise KeysUnavailableError("this service has no key to check tokens with")
    if credentials is None:
        if request.headers.get("Authorization"):
            raise InvalidTokenError("the Authorization header holds no bearer token")
        raise UnauthenticatedError("this needs a bearer token")
    principal = await verifier.verify(credentials.credentials)
    if not principal.is_active:
        raise PermissionDeniedError("this account is not active")
    return principal


DepPrincipal = Annotated[Principal, Depends(current_principal)]


def require_role(*roles: Role) -> Callable[[Principal], Awaitable[Principal]]:
    """A dependency that lets only these roles pass and yields the caller: `Depends(require_role(Role.ADMIN))`."""

    async def with_role(principal: DepPrincipal) -> Principal:
        if principal.role not in roles:
            raise PermissionDeniedError(f"this is for {' or '.join(role.value for role in roles)} only")
        return principal

    return with_role


DepAdmin = Annotated[Principal, Depends(require_role(Role.ADMIN))]
DepOperator = Annotated[Principal, Depends(require_role(Role.ADMIN, Role.SERVICE))]
"""An admin, or another service."""
