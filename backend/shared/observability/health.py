"""Whether the parts that a service stands on can be reached."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from backend.shared.observability.masking import mask_text

_MAX_DETAIL_LENGTH = 300


class HealthCheck(Protocol):
    """One part to ask. A service that lacks a `required` part cannot serve; without another it serves worse."""

    @property
    def name(self) -> str: ...

    @property
    def required(self) -> bool: ...

    async def probe(self) -> str | None:
        """Return when the part works, with a remark if there is one to make; raise when it does not."""


@dataclass(frozen=True, kw_only=True)
class ProbeCheck:
    """A health check made of one coroutine function."""

    name: str
    call: Callable[[], Awaitable[str | None]]
    required: bool = True

    async def probe(self) -> str | None:
        return await self.call()


@dataclass(frozen=True, kw_only=True)
class ComponentHealth:
    """How one part answered; `detail` holds no secrets."""

    name: str
    ok: bool
    required: bool
    latency_seconds: float
    detail: str | None = None


@dataclass(frozen=True, kw_only=True)
class Health:
    """How all parts answered. `ok` is True when every required part did."""

    ok: bool
    components: tuple[ComponentHealth, ...]

    def down(self) -> tuple[str, ...]:
        """The names of the required parts that do not work."""
        return tuple(part.name for part in self.components if part.required and not part.ok)


async def check_health(checks: Sequence[HealthCheck], *, timeout_seconds: float = 2.0) -> Health:
    """Ask all parts at once, each for `timeout_seconds` at most. Raises nothing but cancellation."""
    components = await asyncio.gather(*(_ask(check, timeout_seconds=timeout_seconds) for check in checks))
    ok = all(part.ok for part in components if part.required)
    return Health(ok=ok, components=tuple(components))


async def _ask(check: HealthCheck, *, timeout_seconds: float) -> ComponentHealth:
    began = time.perf_counter()
    ok, detail = True, None
    try:
        async with asyncio.timeout(timeout_seconds):
            detail = await check.probe()
    except TimeoutError:
        ok, detail = False, f"no answer within {timeout_seconds:g} s"
    except Exception as error:  # noqa: BLE001 - whatever a probe raises means that its part does not work
        ok, detail = False, _reason(error)
    return ComponentHealth(
        name=check.name,
        ok=ok,
        required=check.required,
        latency_seconds=round(time.perf_counter() - began, 6),
        detail=detail,
    )


def _reason(error: Exception) -> str:
    first_line = next(iter(str(error).splitlines()), "")
    return mask_text(f"{type(error).__name__}: {first_line}")[:_MAX_DETAIL_LENGTH]
