"""What an operator types: `tandem` commands, as processes of their own, with what they answered."""

from __future__ import annotations

import asyncio
import json
import shlex
import subprocess
import tempfile
from dataclasses import dataclass
from typing import Any

import psutil

from backend.shared.testing.watchdog import WATCHDOG, kill_tree

from . import steps
from .errors import StepError
from .waiting import to_the_end
from .workplace import Workplace

LOG = "operator.log"
_POLL_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class Told:
    """How a command ended: its exit code, its JSON document (empty if there was none), the last line of what else it said,
    and all that it printed.
    """

    code: int
    document: dict[str, Any]
    message: str
    output: str = ""


class Operator:
    """Types `tandem` commands at a stack. What they print is kept in `operator.log` beside the other logs."""

    def __init__(self, stack: Workplace) -> None:
        self._stack = stack

    async def run(self, command: str, service: str, *arguments: str, within_seconds: float = 120.0) -> Told:
        """Run a command to its end. Raises `StepError` if that takes too long; it is killed then, and when this is cancelled."""
        argv = steps.tandem_argv(command, service, *arguments)
        with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
            child = subprocess.Popen(  # noqa: ASYNC220 - it is polled
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=errors,
                env=self._stack.env_of(service),
                start_new_session=True,  # Ctrl-C at the terminal is for us
            )
            WATCHDOG.watch(child.pid)
            try:
                async with asyncio.timeout(within_seconds):
                    while child.poll() is None:  # noqa: ASYNC110 - another process rings no bell
                        await asyncio.sleep(_POLL_SECONDS)
            except TimeoutError:
                raise StepError(f"`{_shown(command, service, *arguments)}` did not come to an end") from None
            finally:
                await to_the_end(asyncio.to_thread(_end, child))
            output.seek(0)
            errors.seek(0)
            said, complained = output.read().decode(errors="replace"), errors.read().decode(errors="replace")
        with (self._stack.logs / LOG).open("a", encoding="utf-8") as log:
            log.write(
                f"$ {_shown(command, service, *arguments)}\n{said}{complained}(exit {child.returncode})\n"
            )
        return Told(
            code=child.returncode, document=_document(said), message=_last_line(complained), output=said
        )


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        kill_tree(psutil.Process(child.pid))
        child.wait()
    WATCHDOG.forget(child.pid)


def _shown(*arguments: str) -> str:
    return f"tandem {shlex.join(arguments)}"


def _document(said: str) -> dict[str, Any]:
    try:
        found = json.loads(said)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].removeprefix("tandem: ") if lines else "it said nothing"
