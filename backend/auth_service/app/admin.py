"""`python -m backend.auth_service.app.admin`: what has to be done before anybody can log in."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer
from pydantic import ValidationError

from backend.shared import ConfigurationError, TandemError
from backend.shared.api.tokens import generate_signing_key
from backend.shared.environment import load_environment
from backend.shared.events.delivered_by import delivered_by
from backend.shared.events.outbox import Outbox

from .core.dual_write_manager import AuthDualWriteManager
from .core.settings import AuthSettings
from .message_api import TELLS
from .models import ROOM
from .schemas import RegisterRequest
from .services.first_admin import AdminOutcome, ensure_admin
from .services.passwords import Passwords

PASSWORD_VARIABLE = "TANDEM_ADMIN_PASSWORD"  # noqa: S105 - a name
EXIT_BAD_INPUT = 2

cli = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@cli.command("create-admin")
def create_admin(
    email: Annotated[str, typer.Option(help="The address that the admin logs in with.")],
) -> None:
    """See to it that there is an active admin with this address; her password is taken from TANDEM_ADMIN_PASSWORD.

    May be repeated. A user who is there already is promoted; a password that she has stays.
    """
    done = asyncio.run(_create_admin(_checked(email)))
    typer.echo(f"admin {email}: {done.value}")


@cli.command("create-signing-key")
def create_signing_key(
    path: Annotated[Path, typer.Argument(help="The file to make; one that is there is left alone.")],
) -> None:
    """Make an Ed25519 key for AUTH_SIGNING_KEY_FILE, readable for its owner only."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise ConfigurationError(f"cannot make {path}: {error.strerror}") from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(generate_signing_key())
    typer.echo(f"made {path}")


def _checked(email: str) -> RegisterRequest:
    password = load_environment().get(PASSWORD_VARIABLE)
    if not password:
        raise ConfigurationError("is not set; it holds the admin's password", variable=PASSWORD_VARIABLE)
    try:
        return RegisterRequest(email=email, password=password)
    except ValidationError as error:
        wrong = error.errors(include_input=False, include_url=False)[0]
        name = PASSWORD_VARIABLE if wrong["loc"][0] == "password" else "--email"
        raise ConfigurationError(str(wrong["msg"]), variable=name) from None


async def _create_admin(admin: RegisterRequest) -> AdminOutcome:
    settings = AuthSettings.from_env()
    manager, passwords = AuthDualWriteManager(), Passwords(settings)
    if settings.broker_url:
        manager.outbox = Outbox(ROOM, tells=TELLS, delivered_by=delivered_by("auth"))
    try:
        await manager.start()
        return await ensure_admin(manager, admin.email, password=admin.password, passwords=passwords)
    finally:
        await manager.close()
        await passwords.aclose()


def main() -> None:
    """Run a command; what Tandem raises on purpose becomes one line and exit code 2."""
    try:
        cli()
    except TandemError as error:
        typer.echo(f"auth admin: {' '.join(str(error).split())}", err=True)
        raise SystemExit(EXIT_BAD_INPUT) from None


if __name__ == "__main__":
    main()
