"""A controller or a replica of the service under test as a process of its own, that can be killed and stopped.

    python -m tests.support.own_process controller PHASE KILL_AT
    python -m tests.support.own_process replica PHASE

The databases are in LEGACY_URL and NEW_URL. A controller goes to PHASE and kills itself (SIGKILL) at the step KILL_AT. A
replica answers lines: `add EMAIL` says `begun` within the unit, waits for a line, then inserts and says what came of it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys

from backend.shared import DualWriteSettings, Phase, UnitOfWork
from backend.shared.observability.logging import configure_logging
from tests.support.people import PeopleManager, people
from tests.support.phases import SLOW_GATES, controller


def _manager(phase: Phase) -> PeopleManager:
    return PeopleManager(
        settings=DualWriteSettings(
            service="people",
            legacy_database_url=os.environ["LEGACY_URL"],
            database_url=os.environ["NEW_URL"],
            phase=phase,
        )
    )


async def _control(to: Phase, kill_at: str) -> None:
    async def hook(step: str) -> None:
        if step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    manager = _manager(to)
    manager.counted = False
    try:
        await manager.start()
        await controller(
            manager, hook=hook, give_up_seconds=0.5 if kill_at == "cutover_given_up" else 5.0
        ).change(to, reason="killed on the way", force=[*SLOW_GATES, "backfill"])
    finally:
        await manager.close()


async def _lines() -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    return reader


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def _serve(phase: Phase) -> None:
    manager = _manager(phase)
    await manager.start(relay=True)
    lines = await _lines()
    _say("ready")
    while line := (await lines.readline()).decode().strip():
        email = line.removeprefix("add ")
        runs = 0

        async def unit(work: UnitOfWork, email: str = email) -> int:
            nonlocal runs
            runs += 1
            if runs == 1:
                _say("begun")
                await lines.readline()
            return int((await work.insert("person", {people.c.email: email}))[0])

        done = await manager.write("add", unit)
        _say(f"{'done' if done.success else 'failed'} {done.authoritative} runs={runs} {done.error or ''}")
    await manager.close()


def main() -> None:
    """See the module's text."""
    configure_logging("people", level="CRITICAL")
    role, phase = sys.argv[1], Phase(sys.argv[2])
    asyncio.run(_control(phase, sys.argv[3]) if role == "controller" else _serve(phase))


if __name__ == "__main__":
    main()
