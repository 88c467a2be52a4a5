"""Statements and round trips of one operation on both servers together, counted on the wire."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from rich.console import Console

from benchmarks.report import Result
from benchmarks.stack import Stack
from benchmarks.ways import Way, dual_ways, peer_ways, plain_write
from benchmarks.wire import Count, CountingWire, counting_wire

WARM_UP = 5
TRIES = 5


async def measure_statements(stack: Stack, _console: Console) -> list[Result]:
    """What each way of writing asks of the servers, once connections are open and statements prepared."""
    async with counting_wire(stack.legacy_url) as legacy, counting_wire(stack.new_url) as new:
        wired = replace(stack, legacy_url=legacy.url, new_url=new.url)
        ways = [Way(name="plain", open=partial(plain_write, wired)), *dual_ways(wired), *peer_ways(wired)]
        spent = {way.name: await one_operation(way, (legacy, new)) for way in ways}
    plain = spent["plain"]
    return [
        Result(
            name=f"statements.{name}.{what}",
            value=value,
            unit="1/write",
            peer="plain write",
            peer_value=other,
            ratio=value / other,
        )
        for name, count in spent.items()
        for what, value, other in (
            ("statements", count.statements, plain.statements),
            ("round_trips", count.round_trips, plain.round_trips),
        )
    ]


async def one_operation(way: Way, wires: tuple[CountingWire, ...]) -> Count:
    """The least of some tries: the manager's own reading of the phase may fall into one of them."""
    found = []
    async with way.open() as operation:
        for number in range(WARM_UP):
            await operation(number)
        for number in range(TRIES):
            before = total(wires)
            await operation(number)
            found.append(total(wires) - before)
    return min(found, key=lambda count: (count.round_trips, count.statements))


def total(wires: tuple[CountingWire, ...]) -> Count:
    """What all of them have counted."""
    return sum((wire.count for wire in wires), start=Count())
