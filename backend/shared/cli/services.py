"""Finds the managers of the services that are installed, by entry points of the group `tandem.services`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib.metadata import entry_points

from backend.shared.domain.errors import ConfigurationError
from backend.shared.dual_write_manager import DualWriteManager
from backend.shared.environment import load_environment

SERVICES_GROUP = "tandem.services"


def service_names() -> list[str]:
    """The names of all installed services."""
    return sorted(entry.name for entry in entry_points(group=SERVICES_GROUP))


def services_set_up(leave_out: Callable[[str], None]) -> list[str]:
    """The installed services that have a database in the environment; `leave_out` is told of each other one, in a line.

    If none has, all: then each says for itself what it lacks.
    """
    found = load_environment()
    there = {
        name: found.get(f"{name.upper()}_DATABASE_URL") or found.get("DATABASE_URL")
        for name in service_names()
    }
    if not any(there.values()):
        return list(there)
    for name, url in there.items():
        if not url:
            leave_out(f"{name}: left out, neither DATABASE_URL nor {name.upper()}_DATABASE_URL is set")
    return [name for name, url in there.items() if url]


def manager_class(service: str) -> type[DualWriteManager]:
    """The manager of a service; raises `ConfigurationError` that names the services there are."""
    found = {entry.name: entry for entry in entry_points(group=SERVICES_GROUP)}
    if service not in found:
        raise ConfigurationError(
            f"there is no service {service!r}; there are: {', '.join(sorted(found)) or 'none'}"
        )
    try:
        loaded = found[service].load()
    except ImportError as error:
        raise ConfigurationError(f"the service {service} cannot be loaded: {error}") from error
    if not (isinstance(loaded, type) and issubclass(loaded, DualWriteManager)):
        raise ConfigurationError(f"{found[service].value} is no DualWriteManager")
    return loaded


@asynccontextmanager
async def managed(service: str, *, counted: bool = True) -> AsyncIterator[DualWriteManager]:
    """A manager with settings from the environment, closed at the end.

    Not `counted`: it writes nothing of the service's, so that no change of the phase need wait for it.
    """
    manager = manager_class(service)()
    manager.counted = counted
    try:
        yield manager
    finally:
        await manager.close()
