"""`tandem install SERVICE`."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from backend.shared.cli.services import managed

ServiceArgument = Annotated[
    str, typer.Argument(help="Name of the service, such as cart.", show_default=False)
]


def install(service: ServiceArgument) -> None:
    """Put journal, guards, marks and capture triggers into both databases of a service. May be repeated."""
    phase = asyncio.run(_install(service))
    typer.echo(f"{service}: installed on both sides, phase {phase}")


async def _install(service: str) -> str:
    async with managed(service) as manager:
        await manager.runtime.reach_both()
        return (await manager.install()).value
