"""Which sides are there to be written, as `DUAL_WRITE_PING` says it is to be learnt."""

from __future__ import annotations

import asyncio

from backend.shared.domain.errors import SideError, side_error
from backend.shared.domain.outages import Outage
from backend.shared.domain.phases import Side
from backend.shared.dual_write_config import Ping
from backend.shared.runtime import ServiceRuntime
from backend.shared.stores.errors import is_database_error, is_unreachable, to_side_error

PING_SECONDS = 3.0
_AWAY = frozenset({Outage.UNREACHABLE, Outage.CIRCUIT_OPEN, Outage.NO_ANSWER})


def is_away(error: SideError) -> bool:
    """Whether the side could not be reached or did not answer: not that it is busy, or refuses."""
    return error.unavailable and error.outage in _AWAY


async def sides_away(runtime: ServiceRuntime) -> dict[Side, SideError]:
    """The sides that are away, each with what is the matter. With `Ping.OFF` nobody knows before it is tried."""
    match runtime.settings.ping:
        case Ping.OFF:
            return {}
        case Ping.BREAKER:
            return {side: breaker.error() for side, breaker in runtime.breakers.items() if breaker.is_open}
        case Ping.ALWAYS:
            errors = await asyncio.gather(*(_asked(runtime, side) for side in Side))
            return {error.side: error for error in errors if error is not None}


async def _asked(runtime: ServiceRuntime, side: Side) -> SideError | None:
    breaker = runtime.breakers[side]
    if breaker.is_open:
        return breaker.error()
    try:
        async with asyncio.timeout(PING_SECONDS):
            await runtime.stores[side].ping()
    except TimeoutError:
        breaker.failed()
        return side_error(
            side, f"no answer within {PING_SECONDS:g} s", unavailable=True, outage=Outage.NO_ANSWER
        )
    except Exception as error:
        if not is_database_error(error):
            raise
        if is_unreachable(error):
            breaker.failed()
        return to_side_error(error, side)
    return None
