"""What goes over the wire.

Everything that a request may hold is said in the schema itself, patterns included: whoever keeps to the published
document is not refused for the form of what she sent.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from .entities import Profile, ProfileChanges, User, UserRole

MIN_PASSWORD_LENGTH = 10
MAX_PASSWORD_LENGTH = 200
# PostgreSQL's text holds every character but this one.
_NO_NUL = r"^[^\x00]*$"
# HTML's definition of an address, with a dot in the domain and no empty parts between dots in front of the @.
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_EMAIL = rf"^{_ATOM}(?:\.{_ATOM})*@{_LABEL}(?:\.{_LABEL})+$"

NewPassword = Annotated[
    str, Field(min_length=MIN_PASSWORD_LENGTH, max_length=MAX_PASSWORD_LENGTH, pattern=_NO_NUL, repr=False)
]
Password = Annotated[str, Field(min_length=1, max_length=MAX_PASSWORD_LENGTH, pattern=_NO_NUL, repr=False)]
RefreshToken = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[A-Za-z0-9_-]+$", repr=False)]
EmailText = Annotated[str, Field(min_length=6, max_length=254, pattern=_EMAIL, examples=["ada@example.com"])]
"""An address to register: ASCII, up to 254 characters."""

# As long as legacy has room for, in characters.
_Name = Annotated[str, Field(max_length=100, pattern=_NO_NUL)]
_Phone = Annotated[str, Field(max_length=40, pattern=_NO_NUL)]
_Address = Annotated[str, Field(max_length=200, pattern=_NO_NUL)]

LoginText = Annotated[str, Field(min_length=1, max_length=255, pattern=_NO_NUL)]
"""An address to log in with: whatever legacy may hold."""
SearchText = Annotated[str, Field(min_length=1, max_length=100, pattern=_NO_NUL)]


class _Request(BaseModel):
    # Strict: true is not "yes", and a number is no text.
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class RegisterRequest(_Request):
    """A new account. The address is kept as typed; it counts as taken in any letter case."""

    email: EmailText
    password: NewPassword
    first_name: _Name | None = None
    last_name: _Name | None = None
    phone: _Phone | None = None
    address_line: _Address | None = None
    city: _Name | None = None
    country: _Name | None = None
    newsletter: bool = False

    def profile(self) -> Profile:
        """The part that is not needed to log in."""
        return Profile(**self.model_dump(exclude={"email", "password"}))


class ProfilePatch(_Request):
    """What to change of a profile; what is left out stays, null takes a value away."""

    first_name: _Name | None = None
    last_name: _Name | None = None
    phone: _Phone | None = None
    address_line: _Address | None = None
    city: _Name | None = None
    country: _Name | None = None
    newsletter: bool = False

    def changes(self) -> ProfileChanges:
        """What the caller named, and nothing else."""
        changes: ProfileChanges = self.model_dump(exclude_unset=True)  # type: ignore[assignment]  # the same names
        return changes


class PasswordChange(_Request):
    """The password of now, and the one from now on."""

    current_password: Password
    new_password: NewPassword


class RoleChange(_Request):
    """The role to give."""

    role: Literal["user", "admin"]

    def wanted(self) -> UserRole:
        """The role as the service speaks of it."""
        return UserRole(self.role)


class LoginRequest(_Request):
    """Who, and the proof."""

    email: LoginText
    password: Password


class RefreshRequest(_Request):
    """A refresh token, to be exchanged or ended."""

    refresh_token: RefreshToken


class TokensOut(BaseModel):
    """Tokens. The refresh token is good for one exchange; one that is used twice ends the session."""

    access_token: str
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - a type, no token
    expires_in: int = Field(description="Seconds until the access token expires.")
    refresh_token: str | None = Field(
        description="Null while sessions cannot be kept; log in again when the access token has expired."
    )


class UserOut(BaseModel):
    """An account, without its password."""

    id: str
    email: str
    role: Literal["user", "admin"]
    is_active: bool
    first_name: str | None
    last_name: str | None
    phone: str | None
    address_line: str | None
    city: str | None
    country: str | None
    newsletter: bool
    created_at: datetime | None = Field(
        description="Null where the old shop's records hold no readable time."
    )
    updated_at: datetime | None

    @classmethod
    def of(cls, user: User) -> UserOut:
        """The account as a caller may see it."""
        return cls(
            id=user.id,
            email=user.email,
            role=user.role.value,
            is_active=user.is_active,
            created_at=user.created_at,
            updated_at=user.updated_at,
            **vars(user.profile),
        )


class JsonWebKey(BaseModel):
    """A public key (RFC 7517, RFC 8037)."""

    model_config = ConfigDict(extra="allow")

    kty: str
    kid: str
    alg: str
    use: str


class JsonWebKeySet(BaseModel):
    """The keys that access tokens are signed with."""

    keys: list[JsonWebKey]
