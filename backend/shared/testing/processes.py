"""A program that runs beside us: started, awaited, killed and started again."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import psutil

from backend.shared.domain.errors import TandemError

from .watchdog import WATCHDOG, kill_tree

_POLL_SECONDS = 0.05


class ProcessError(TandemError):
    """A program of ours ended, or never became ready."""


class ServiceProcess:
    """One child process.

    Its output goes to `log`, which grows over restarts. It counts as ready when `ready_url` answers 200, or, without one,
    as soon as it runs. Until `detach()`, it is killed when this process ends, however that ends.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        name: str,
        env: Mapping[str, str],
        log: Path,
        ready_url: str | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = name
        self.log = log
        self.ready_url = ready_url
        self._argv = tuple(argv)
        self._env = dict(env)
        self._cwd = cwd
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process number while it runs."""
        return self._child.pid if self._child is not None and self._child.poll() is None else None

    @property
    def is_running(self) -> bool:
        return self.pid is not None

    def spawn(self) -> None:
        """Start the program without waiting for it. Does nothing where it runs."""
        if self.is_running:
            return
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._env,
                cwd=self._cwd,
                start_new_session=True,  # Ctrl-C at the terminal is for us, and we stop our children in order
            )
        WATCHDOG.watch(self._child.pid)

    async def start(self, *, timeout_seconds: float = 30.0) -> None:
        """Start the program and wait until it is ready."""
        self.spawn()
        await self.wait_ready(timeout_seconds=timeout_seconds)

    async def wait_ready(self, *, timeout_seconds: float = 30.0) -> None:
        """Wait until the program is ready. Raises ProcessError if it ends, or if the time is over; it is left running."""
        deadline = time.monotonic() + timeout_seconds
        async with httpx.AsyncClient(timeout=2.0, trust_env=False) as client:
            while time.monotonic() < deadline:
                if self._child is None or self._child.poll() is not None:
                    raise ProcessError(f"{self.name} did not start: {self._last_words()}")
                if self.ready_url is None:
                    return
                with contextlib.suppress(httpx.HTTPError):
                    if (await client.get(self.ready_url)).status_code == httpx.codes.OK:
                        return
                await asyncio.sleep(_POLL_SECONDS)
        raise ProcessError(f"{self.name} was not ready after {timeout_seconds:.0f} s; its log is {self.log}")

    async def terminate(self, *, timeout_seconds: float = 15.0) -> int | None:
        """Ask the program to end (SIGTERM) and wait; kill it when the time is over. Returns its exit code."""
        child = self._child
        if child is None:
            return None
        if child.poll() is None:
            child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(child.wait, timeout_seconds)
        self.kill9()
        return child.returncode

    def kill9(self) -> None:
        """SIGKILL to the program and its children. Does nothing where it does not run."""
        child = self._child
        if child is not None:
            if child.poll() is None:
                kill_tree(psutil.Process(child.pid))
                child.wait()
            WATCHDOG.forget(child.pid)

    def detach(self) -> None:
        """Let the running program outlive this process."""
        if self._child is not None:
            WATCHDOG.forget(self._child.pid)

    async def restart(self, *, timeout_seconds: float = 30.0) -> None:
        """End the program, if it runs, start it and wait until it is ready."""
        await self.terminate()
        await self.start(timeout_seconds=timeout_seconds)

    def _last_words(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1].strip() if lines else "it said nothing"
