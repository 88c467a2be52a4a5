"""`tandem up` and `tandem down`."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from backend.shared.testing.programs import (
    REPOSITORY,
    FileLock,
    remove_left_overs,
    scratch_directory,
    state_directory,
)

from .orders.stack import OrderStack, order_ports
from .record import StackRecord
from .stack import Stack
from .steps import ShopSource

T = TypeVar("T")
_EXIT_INTERRUPTED = 130
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Data = Annotated[
    Path | None, typer.Option(help="Load this Online Retail file (CSV, or CSV in gzip), not generated rows.")
]
Seed = Annotated[int, typer.Option(help="The generator's seed.")]
Size = Annotated[int | None, typer.Option(help="How many cart lines to generate.", min=1)]
Remove = Annotated[bool, typer.Option("--remove", help="Delete its data, logs and keys as well.")]


def up(*, data: Data = None, seed: Seed = 1, size: Size = None) -> None:
    """Start the embedded stack and all services, and leave them running. Does nothing where they run.

    The shop is loaded the first time only; `tandem down --remove` forgets it.
    """
    console = Console()
    with _one_at_a_time():
        stack = _stack(console)
        record = stack.recorded()
        if record is None:
            run_until_signalled(_bring_up(stack, source=ShopSource(seed=seed, size=size, data=data)))
            record = stack.recorded()
    if record is not None:
        _show(console, record)


def down(*, remove: Remove = False) -> None:
    """Stop what `tandem up` started. Does nothing where nothing runs."""
    console = Console()
    with _one_at_a_time():
        stack = _stack(console)
        found = asyncio.run(stack.stop_recorded())
        if remove:
            stack.remove()
            # Only what is ours by name: the folder may be one that the user has chosen.
            for name in ("up", "programs"):
                shutil.rmtree(state_directory() / name, ignore_errors=True)
            for folder in (state_directory(), scratch_directory()):
                remove_left_overs(folder / "tests")
    console.print("stopped" if found else "nothing was running")


def run_until_signalled(work: Coroutine[Any, Any, T]) -> T:
    """Run to the end; Ctrl-C and SIGTERM cancel `work`, let it clean up, and end the program with 130.

    Once is enough: whoever is impatient does not interrupt the cleaning up.
    """

    async def run() -> T:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()

        def interrupt() -> None:
            for number in _SIGNALS:
                loop.add_signal_handler(number, _not_again)
            task.cancel()

        for number in _SIGNALS:
            loop.add_signal_handler(number, interrupt)
        return await task

    try:
        return asyncio.run(run())
    except asyncio.CancelledError:
        for number in _SIGNALS:  # the loop has put the old handlers back
            signal.signal(number, signal.SIG_IGN)
        raise SystemExit(_EXIT_INTERRUPTED) from None


def _not_again() -> None:
    sys.stderr.write("stopping, just a moment …\n")


async def _bring_up(stack: Stack, *, source: ShopSource) -> None:
    await stack.stop_recorded()  # what is left of a stack of which a part has died
    await stack.setup(source)
    stack.detach()


def _stack(console: Console) -> Stack:
    return OrderStack(
        _folder(),
        data=state_directory() / "up",
        ports=order_ports(),
        say=lambda step: console.print(f"[dim]{step} …[/dim]"),
    )


def _folder() -> Path:
    folder = REPOSITORY / ".tandem"
    folder.mkdir(exist_ok=True)
    return folder


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    with FileLock(_folder() / "lock"):
        yield


def _show(console: Console, record: StackRecord) -> None:
    for name, url in record.urls.items():
        console.print(f"{name:<8} {url}/docs", highlight=False)
    console.print(
        "addresses and the administrator's password: .tandem/stack.env; stop with: make down", highlight=False
    )
