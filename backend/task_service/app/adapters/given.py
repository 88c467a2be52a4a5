"""Repositories that were made by hand: whoever made them sees to their transactions."""

from __future__ import annotations

from typing import TypeVar

from ..ports import Repositories, Unit

T = TypeVar("T")


class GivenRepositories:
    """Runs each unit once, on the same repositories."""

    def __init__(self, repositories: Repositories) -> None:
        self._repositories = repositories

    async def write(self, operation: str, unit: Unit[T]) -> T:  # noqa: ARG002 - as the port has it
        return await unit(self._repositories)

    async def read(
        self,
        operation: str,  # noqa: ARG002 - as the port has it
        unit: Unit[T],
        *,
        entity: str | None = None,  # noqa: ARG002 - the same
        key: str | None = None,  # noqa: ARG002 - the same
    ) -> T:
        return await unit(self._repositories)

    async def start(self) -> None:
        """There is nothing to connect to."""

    async def check(self) -> None:
        """There is nothing to ask."""

    async def close(self) -> None:
        """There is nothing to let go of."""
