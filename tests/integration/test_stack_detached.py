"""What outlives the process that brought a stack up, and what must not."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from backend.demo.record import StackRecord
from backend.demo.stack import Stack
from backend.demo.steps import ShopSource

_PROGRAM = """
    import asyncio, os, pathlib, sys
    from backend.demo.commands import run_until_signalled
    from backend.demo.stack import Stack
    from backend.demo.steps import ShopSource
    from backend.shared.testing.processes import ServiceProcess

    class StackWithASleeper(Stack):
        async def start_services(self):
            argv = [sys.executable, "-c", "import time; time.sleep(60)"]
            sleeper = ServiceProcess(argv, name="sleeper", env=os.environ, log=self.logs / "sleeper.log")
            self.processes["sleeper"] = sleeper
            await sleeper.start()

    async def bring_up():
        stack = StackWithASleeper(pathlib.Path({folder!r}), data=pathlib.Path({data!r}), members=())
        await stack.setup(ShopSource(size=50))
        if {linger}:
            print(stack.processes["sleeper"].pid, stack.legacy.pid, stack.services.pid, flush=True)
            try:
                await asyncio.sleep(60)
            finally:
                await stack.stop()
        stack.detach()

    run_until_signalled(bring_up())
"""


@pytest.fixture
def stack(tmp_path: Path, worker_directory: Path) -> Iterator[Stack]:
    """The stack as another process sees it."""
    stack = Stack(tmp_path, data=worker_directory / "detached", members=())
    yield stack
    record = StackRecord.load(tmp_path / "stack.json")
    if record is not None:
        record.stop()
    stack.remove()


async def test_a_detached_stack_is_found_and_stopped_by_another_process(stack: Stack) -> None:
    await asyncio.to_thread(subprocess.run, _argv(stack, linger=False), check=True)

    record = stack.recorded()
    assert record is not None
    assert (stack.folder / "stack.env").exists()
    assert await stack.stop_recorded()

    assert not record.is_running
    assert not stack.legacy.is_running
    assert not stack.services.is_running
    assert not (stack.folder / "stack.env").exists()
    assert not await stack.stop_recorded()


async def test_rows_are_loaded_once(stack: Stack) -> None:
    assert await stack.setup(ShopSource(size=50)) is not None
    await stack.stop()
    assert await stack.setup(ShopSource(size=50)) is None
    await stack.stop()


async def test_a_stack_of_which_a_part_died_does_not_count_as_up(stack: Stack) -> None:
    await asyncio.to_thread(subprocess.run, _argv(stack, linger=False), check=True)
    stack.services.kill9()
    assert stack.recorded() is None
    assert await stack.stop_recorded()
    assert not stack.legacy.is_running


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 130), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_nothing_is_left_of_a_setup_that_was_ended(stack: Stack, number: signal.Signals, code: int) -> None:
    with subprocess.Popen(_argv(stack, linger=True), stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        family = [psutil.Process(int(pid)) for pid in parent.stdout.readline().split()]
        parent.send_signal(number)
        assert parent.wait(20) == code

    _, alive = psutil.wait_procs(family, timeout=10)

    assert not alive
    assert not stack.legacy.is_running


def _argv(stack: Stack, *, linger: bool) -> list[str]:
    program = textwrap.dedent(_PROGRAM).format(folder=str(stack.folder), data=str(stack.data), linger=linger)
    return [sys.executable, "-c", program]
