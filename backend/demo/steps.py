"""The steps of setting a stack up that are somebody else's work: each asks the one who knows how."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import asyncpg
from argon2 import PasswordHasher
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from backend.legacy_shop.generator import load_generated
from backend.legacy_shop.report import LoadReport
from backend.legacy_shop.retail import load_retail
from backend.legacy_shop.schema import create_schema
from backend.shared.cli.services import manager_class
from backend.shared.domain.errors import ConfigurationError
from backend.shared.dual_write_config import DualWriteSettings
from backend.shared.migration.backfill import Backfill

from .errors import StepError
from .record import write_private
from .registry import RegisteredService

_LEGACY_ZONE = ZoneInfo("Europe/London")
_ADMIN_ID = "admin"


@dataclass(frozen=True)
class ShopSource:
    """Where the shop's rows come from: the retail file `data`, or, without one, the generator.

    `size` is the generator's number of cart lines; None is its own default.
    """

    seed: int = 1
    size: int | None = None
    data: Path | None = None

    def check(self) -> None:
        """Raises ConfigurationError if there is no such file, before anything is started."""
        if self.data is not None and not (self.data.is_file() and os.access(self.data, os.R_OK)):
            raise ConfigurationError(f"--data: {self.data} is not a file that can be read")


async def load_shop(dsn: str, *, source: ShopSource) -> LoadReport:
    """Make the legacy tables and fill them."""
    await create_schema(dsn)
    if source.data is not None:
        return await load_retail(dsn, source.data, seed=source.seed)
    return await load_generated(dsn, seed=source.seed, size=source.size)


async def add_admin(dsn: str, *, email: str, password: str) -> None:
    """Put the shop's administrator among the legacy users, so that she goes the way of all history."""
    connection = await asyncpg.connect(dsn, timeout=10, command_timeout=10)
    try:
        await connection.execute(
            "INSERT INTO users (usr_id, login_email, pwd_hash, first_nm, role_cd, reg_date)"
            " VALUES ($1, $2, $3, 'Admin', 'A', $4) ON CONFLICT DO NOTHING",
            _ADMIN_ID,
            email,
            PasswordHasher().hash(password),
            datetime.now(_LEGACY_ZONE).strftime("%Y-%m-%d %H:%M:%S"),
        )
    finally:
        await connection.close()


async def migrate(service: RegisteredService, *, env: Mapping[str, str], log: Path) -> None:
    """`alembic upgrade head` in the service's folder."""
    await _run(
        [sys.executable, "-m", "alembic", "-c", str(service.folder / "alembic.ini"), "upgrade", "head"],
        what=f"the migration of {service.name}",
        env=env,
        log=log,
        cwd=service.folder,
    )


async def install(service: RegisteredService, *, env: Mapping[str, str]) -> None:
    """What `tandem install SERVICE` does: journal, triggers, guards and marks on both sides."""
    settings = DualWriteSettings.from_env(service.name, env)
    manager = manager_class(service.name)(settings=settings)
    try:
        await manager.runtime.reach_both()
        await manager.install()
    finally:
        await manager.close()


async def backfill(service: RegisteredService, *, env: Mapping[str, str]) -> None:
    """What `tandem backfill SERVICE` does, unless it has been done to the end."""
    manager = manager_class(service.name)(settings=DualWriteSettings.from_env(service.name, env))
    try:
        await manager.start()
        work = Backfill(manager.runtime)
        if not (await work.status()).is_complete:
            await work.run()
    finally:
        await manager.close()


async def checkpoint(url: str) -> None:
    """Have the server write down what it holds in memory: killed soon after, it comes back with little to redo."""
    connection = await asyncpg.connect(url, timeout=10, command_timeout=120)
    try:
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


def tandem_argv(*arguments: str) -> list[str]:
    """How to call the `tandem` command of this very installation."""
    return [sys.executable, "-m", "backend.shared.cli.main", *arguments]


def write_signing_key(path: Path) -> None:
    """Make an Ed25519 key that only its owner may read, unless there is one."""
    if not path.exists():
        key = Ed25519PrivateKey.generate()
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        write_private(path, pem.decode("ascii"))


async def _run(
    argv: list[str], *, what: str, env: Mapping[str, str], log: Path, cwd: Path | None = None
) -> None:
    child = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=dict(env),
        cwd=cwd,
    )
    try:
        output, _ = await child.communicate()
    except asyncio.CancelledError:
        child.kill()
        await child.wait()
        raise
    with log.open("ab") as file:
        file.write(output)
    if child.returncode:
        lines = output.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        raise StepError(f"{what} failed: {lines[-1].removeprefix('tandem: ')} (all of it in {log})")
