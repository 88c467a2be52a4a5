"""A server program of ours on the loopback address, that can be started, killed and frozen."""

from __future__ import annotations

import contextlib
import shutil
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from backend.shared.domain.errors import TandemError

from .ports import free_port, is_free
from .processes import ServiceProcess
from .watchdog import kill_tree

_POLL_SECONDS = 0.02
_STOP_SECONDS = 15.0


class OwnServerError(TandemError):
    """A server of ours could not be started."""


class OwnServer(ABC):
    """One server with its data folder. Its port stays the same over restarts.

    It is killed when this process ends, until `detach()`. All methods block: from a coroutine call them through
    `asyncio.to_thread`.
    """

    kind: str
    """What it is, in words: "document server"."""
    start_seconds = 30.0
    """It is given up when it does not take commands so long after its start."""

    def __init__(self, directory: Path, *, port: int | None = None) -> None:
        self.directory = directory
        self.log = directory / "server.log"
        self._port_file = directory / "port"
        self._wanted_port = port
        self._process: ServiceProcess | None = None

    @abstractmethod
    def argv(self) -> Sequence[str]:
        """The command that starts it."""

    def env(self) -> Mapping[str, str]:
        """The environment that it is started in."""
        return {"PATH": "/usr/bin:/bin"}

    @abstractmethod
    def answers(self) -> bool:
        """Whether it takes commands."""

    @property
    def port(self) -> int:
        """The port that it listens on."""
        if not self._port_file.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            self._port_file.write_text(str(self._wanted_port or free_port()))
        return int(self._port_file.read_text())

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
            raise OwnServerError(f"the {self.kind} did not start: port {self.port} is taken")
        self.directory.mkdir(parents=True, exist_ok=True)
        self._process = ServiceProcess(
            self.argv(),
            name=f"the {self.kind}",
            env=self.env(),
            log=self.log,
            cwd=self.directory,
        )
        self._process.spawn()
        self._wait_until_ready()

    def stop(self) -> None:
        """Ask it to end (SIGTERM) and wait. Does nothing where it does not run."""
        if self.pid is not None:
            self.resume()
            process = psutil.Process(self.pid)
            children = process.children(recursive=True)
            process.terminate()
            with contextlib.suppress(psutil.TimeoutExpired):
                process.wait(_STOP_SECONDS)
            for child in children:  # what it has left behind
                kill_tree(child)
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

    def _running(self) -> psutil.Process:
        if self.pid is None:
            raise OwnServerError(f"the {self.kind} does not run")
        return psutil.Process(self.pid)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + self.start_seconds
        while time.monotonic() < deadline:
            pid = self.pid
            if pid is None:
                raise OwnServerError(f"the {self.kind} did not start: {self._last_words()}")
            if self.answers():
                return
            time.sleep(_POLL_SECONDS)
        kill_tree(psutil.Process(pid))
        raise OwnServerError(f"the {self.kind} was not ready after {self.start_seconds:.0f} s")

    def _last_words(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip() if lines else "it said nothing"
