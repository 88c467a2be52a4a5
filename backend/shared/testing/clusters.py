"""A PostgreSQL server of our own that can be started, killed and frozen."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import asyncpg
import psutil

from backend.shared.domain.errors import TandemError

from .ports import LOOPBACK, free_port, is_free
from .programs import postgres_programs, server_account
from .server_memory import remove_with_servers
from .watchdog import WATCHDOG, kill_tree

StopMode = Literal["smart", "fast", "immediate"]

_STOP_SIGNALS = {"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}
_POLL_SECONDS = 0.01
_START_TIMEOUT_SECONDS = 30.0
_STOP_TIMEOUT_SECONDS = 30.0
_SUPERUSER = "postgres"
_STATUS_LINE = 7  # of postmaster.pid
_INITDB = (
    "--auth=scram-sha-256",
    "--encoding=UTF8",
    # The same order and the same letters on every machine.
    "--locale=C",
    "--locale-provider=builtin",
    "--builtin-locale=C.UTF-8",
    f"--username={_SUPERUSER}",
)
_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "128MB",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "lc_messages": "C",
    "log_line_prefix": "%m [%p] %d ",
}


class ClusterError(TandemError):
    """A server of ours could not be made, started or stopped."""


@dataclass(frozen=True)
class Databases:
    """A fresh pair of databases, one for each side."""

    legacy_url: str
    new_url: str


class Cluster:
    """One PostgreSQL server with its data folder, listening on the loopback address only.

    Everything lies under `directory`, also the port and the random password, so that another process can come back to the
    same cluster by naming the folder. `fsync=False` is for tests: data outlives a killed server, not a killed machine.
    Until `detach()`, the server is killed when the process that started it ends, however that ends. All methods but the two on databases
    block: from a coroutine call them through `asyncio.to_thread`.
    """

    def __init__(self, directory: Path, *, fsync: bool = False, port: int | None = None) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.log = directory / "postgres.log"
        self._fsync = fsync
        self._wanted_port = port
        self._account = server_account()
        self._programs = postgres_programs(self._account)

    @property
    def programs(self) -> Path:
        """The folder with `psql` and its kin."""
        return self._programs

    @property
    def port(self) -> int:
        return int(self._read("port"))

    @property
    def password(self) -> str:
        return self._read("password")

    def url(self, database: str = "postgres") -> str:
        """`postgresql://…` for the superuser, with password."""
        return f"postgresql://{_SUPERUSER}:{self.password}@{LOOPBACK}:{self.port}/{database}"

    @property
    def pid(self) -> int | None:
        """The process number of the running server, if it runs."""
        process = self._server()
        return process.pid if process else None

    @property
    def is_running(self) -> bool:
        return self._server() is not None

    def initialise(self) -> None:
        """Make the data folder. Does nothing where there is one; a half-made one of a killed run is made again."""
        if (self.directory / "password").exists() and (self.data / "PG_VERSION").exists():
            return
        shutil.rmtree(self.data, ignore_errors=True)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.directory.chmod(0o711)
        self.data.mkdir(mode=0o700)
        self._account.own(self.data)
        password = secrets.token_hex(16)
        with tempfile.NamedTemporaryFile("w", dir=self.directory) as secret:
            secret.write(password)
            secret.flush()
            self._account.own(Path(secret.name))
            self._run("initdb", f"--pgdata={self.data}", "--no-sync", f"--pwfile={secret.name}", *_INITDB)
        self._write("password", password)

    def start(self) -> None:
        """Start the server, and wait until it takes connections. Does nothing where it runs.

        Without a port given, a free one is found the first time and kept from then on.
        """
        if self.is_running:
            return
        self.initialise()
        for attempts_left in (3, 2, 1, 0):
            if self._wanted_port is not None:
                self._write("port", str(self._wanted_port))
            elif not (self.directory / "port").exists():
                self._write("port", str(free_port()))
            try:
                self._start_once()
            except ClusterError:
                has_port_of_its_own = self._wanted_port is None and not (self.directory / "started").exists()
                if not (has_port_of_its_own and attempts_left and not is_free(self.port)):
                    raise
                (self.directory / "port").unlink()  # somebody took it between our look and the start
            else:
                (self.directory / "started").touch()
                return

    def stop(self, mode: StopMode = "fast") -> None:
        """Shut the server down and wait for it. Does nothing where it does not run."""
        process = self._server()
        if process is None:
            return
        self.resume()
        try:
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
                process.send_signal(_STOP_SIGNALS[mode])
            process.wait(_STOP_TIMEOUT_SECONDS)
        except psutil.TimeoutExpired as error:
            raise ClusterError(
                f"the server in {self.data} did not stop in {_STOP_TIMEOUT_SECONDS:.0f} s"
            ) from error
        WATCHDOG.forget(process.pid)

    def kill9(self) -> None:
        """SIGKILL to every process of the server, as when the machine takes it away."""
        process = self._server()
        if process is not None:
            kill_tree(process)
            with contextlib.suppress(psutil.NoSuchProcess):
                process.wait(_STOP_TIMEOUT_SECONDS)  # if it is our child, it is collected here
            WATCHDOG.forget(process.pid)

    def restart(self, mode: StopMode = "fast") -> None:
        """Stop and start again, on the same port."""
        self.stop(mode)
        self.start()

    def suspend(self) -> None:
        """SIGSTOP to every process of the server: connections stay open and nothing answers."""
        process = self._server()
        if process is None:
            raise ClusterError(f"the server in {self.data} does not run")
        process.suspend()  # first, so that it starts no more children
        for child in process.children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.suspend()

    def resume(self) -> None:
        """SIGCONT to every process of the server."""
        process = self._server()
        if process is not None:
            for member in (*process.children(recursive=True), process):
                with contextlib.suppress(psutil.NoSuchProcess):
                    member.resume()

    def detach(self) -> None:
        """Let the running server outlive this process."""
        process = self._server()
        if process is not None:
            WATCHDOG.forget(process.pid)

    def remove(self) -> None:
        """End the server at once, and delete its folder."""
        try:
            self.stop("immediate")
        except ClusterError:
            self.kill9()
        remove_with_servers(self.directory)

    async def create_database(self, name: str, *, template: str | None = None) -> str:
        """Make a database, as a copy of `template` if given (nobody may be connected to that). Returns its URL."""
        copied = f" TEMPLATE {_quoted(template)}" if template else ""
        # Without fsync, copying files takes a quarter of the time that writing them to the log does.
        strategy = "" if self._fsync else " STRATEGY FILE_COPY"
        await self._execute(f"CREATE DATABASE {_quoted(name)}{copied}{strategy}")
        return self.url(name)

    async def drop_database(self, name: str) -> None:
        """Remove a database and whoever is connected to it. Does nothing where there is none."""
        await self._execute(f"DROP DATABASE IF EXISTS {_quoted(name)} WITH (FORCE)")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    async def _execute(self, statement: str) -> None:
        connection = await asyncpg.connect(self.url(), timeout=10, command_timeout=30)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    def _start_once(self) -> None:
        settings = {**_SETTINGS, "port": str(self.port)}
        if not self._fsync:
            settings |= {
                "fsync": "off",
                # In its own folder, and gone with it: else what a killed server has stays in memory until the machine is restarted.
                "dynamic_shared_memory_type": "mmap",
                "full_page_writes": "off",
                "max_wal_size": "128MB",
                "min_wal_size": "32MB",
            }
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                [
                    self._programs / "postgres",
                    "-D",
                    self.data,
                    *(part for key, value in settings.items() for part in ("-c", f"{key}={value}")),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.data if self._account.uid is None else "/",
                start_new_session=True,
                **self._account.popen_arguments,
            )
        WATCHDOG.watch(child.pid)
        self._wait_until_ready(child)
        # From here on the process is found by its number, also by other objects for this folder.
        child.returncode = 0

    def _wait_until_ready(self, child: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_SECONDS
        while time.monotonic() < deadline:
            if child.poll() is not None:
                raise ClusterError(f"the server in {self.data} did not start: {self._last_complaint()}")
            lines = self._pid_file()
            if (
                len(lines) > _STATUS_LINE
                and lines[0] == str(child.pid)
                and lines[_STATUS_LINE].strip() == "ready"
            ):
                return
            time.sleep(_POLL_SECONDS)
        kill_tree(psutil.Process(child.pid))
        raise ClusterError(f"the server in {self.data} was not ready after {_START_TIMEOUT_SECONDS:.0f} s")

    def _server(self) -> psutil.Process | None:
        lines = self._pid_file()
        try:
            process = psutil.Process(int(lines[0]))
            # After a crash the number may belong to another program by now.
            ours = str(self.data) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
        except (IndexError, ValueError, psutil.NoSuchProcess, psutil.AccessDenied):
            return None
        return process if ours else None

    def _pid_file(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text().splitlines()
        except OSError:
            return []

    def _last_complaint(self) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-20:] if self.log.exists() else []
        complaints = [line for line in lines if "FATAL" in line or "ERROR" in line]
        return (complaints or lines or ["it said nothing"])[-1].strip()

    def _run(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [self._programs / program, *arguments],
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            start_new_session=True,  # Ctrl-C is for us, who wait for its end
            **self._account.popen_arguments,
        )
        if done.returncode:
            complaint = done.stderr.strip().splitlines()
            raise ClusterError(f"{program} failed: {complaint[0] if complaint else done.returncode}")

    def _read(self, name: str) -> str:
        try:
            return (self.directory / name).read_text().strip()
        except FileNotFoundError as error:
            raise ClusterError(f"the cluster in {self.directory} was never started") from error

    def _write(self, name: str, value: str) -> None:
        path = self.directory / name
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(value)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
