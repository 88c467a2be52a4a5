"""Whether the two sides are still the ones that the phase row speaks of: one may be restored, or a standby take its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import structlog

from backend.shared.control import ControlRepository
from backend.shared.domain.phases import Side
from backend.shared.stores.side import SideStore

log = structlog.get_logger(__name__)


class SideWatch:
    """Looks at both sides' marks. While one is wrong nothing is carried."""

    def __init__(
        self,
        service: str,
        stores: Mapping[Side, SideStore],
        controls: ControlRepository,
        *,
        in_use: Callable[[], Sequence[Side]],
    ) -> None:
        self._service = service
        self._stores = stores
        self._controls = controls
        self._in_use = in_use
        self._wrong = dict.fromkeys(Side, "")

    @property
    def any_wrong(self) -> bool:
        """Whether a side was found wrong when it was last looked at."""
        return any(self._wrong.values())

    async def look(self) -> None:
        """Look at both sides, and say aloud that one is not what it was."""
        for side in self._in_use():
            wrong = await self.found_wrong(side)
            if wrong and wrong != self._wrong[side]:
                log.critical("side_found_wrong", service=self._service, side=side.value, error=wrong)
            self._wrong[side] = wrong

    async def found_wrong(self, side: Side) -> str:
        """Why `side` is not the database that it was, or not in the state that the phase row says; empty if it is.

        The phase row is read before and after the mark, so that a change of the phase in between is none of that.
        """
        before = await self._controls.read()
        store = self._stores[side]
        async with store.connect() as connection:
            mark = await store.marks.read(connection)
            identity = await store.identity(connection)
        if mark.identity and mark.identity != identity:
            return (
                f"the {side.value} side is another database than it was (system, timeline or number): it was restored, "
                "or a standby has taken its place"
            )
        control = await self._controls.read()
        wanted = side is control.phase.policy.authoritative
        if control != before or control.intent or (mark.is_open, mark.epoch) == (wanted, control.epoch):
            return ""
        return (
            f"the {side.value} side is {'open' if mark.is_open else 'closed'} in epoch {mark.epoch}, not "
            f"{'open' if wanted else 'closed'} in epoch {control.epoch}: it was restored, or changed by hand"
        )
