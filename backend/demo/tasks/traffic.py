"""People and clerks over HTTP, so many at a time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection, Mapping, Sequence

from backend.demo.crew import Crew
from backend.demo.errors import StepError
from backend.demo.ledger import Ledger
from backend.demo.shop import Shop
from backend.demo.worker import Worker

from .clerks import Clerk
from .desk import Desk
from .misfits import Name
from .people import Person
from .stack import SERVICE

PEOPLE = 10
CLERKS = 2
HISTORY = 400
"""So many tasks of history are read, and changed, by the people."""
_PAGE = 100


class TaskTraffic(Crew):
    """People and clerks. Documents in `avoided` are neither written nor referred to: they are for the operator to mend."""

    def __init__(
        self,
        shop: Shop,
        ledger: Ledger,
        *,
        seed: int,
        make_token: Callable[[], str],
        avoided: Collection[Name],
        people: int = PEOPLE,
    ) -> None:
        self.desk = Desk(shop=shop, ledger=ledger, stop=asyncio.Event(), make_token=make_token)
        super().__init__(self.desk)
        self._seed = seed
        self._avoided = frozenset(avoided)
        self._people = people

    async def workers(self) -> Sequence[Worker]:
        """Everybody, when it is known what there is."""
        desk = self.desk
        desk.renew_token()
        desk.users = await self._ids("users", "/users")
        desk.labels = await self._ids("labels", "/labels")
        desk.history = await self._ids("tasks", "/tasks")
        share = desk.history[::2]
        return [
            *(
                Person(desk, rng=self._rng(f"person {n}"), share=share[n :: self._people])
                for n in range(self._people)
            ),
            *(Clerk(desk, rng=self._rng(f"clerk {n}")) for n in range(CLERKS)),
        ]

    def _rng(self, name: str) -> random.Random:
        return random.Random(f"{self._seed} {name}")

    async def _ids(self, collection: str, path: str) -> list[str]:
        found: list[str] = []
        query: Mapping[str, str | int] = {"limit": _PAGE}
        while len(found) < HISTORY:
            answer = await self.desk.shop.call("GET", SERVICE, path, token=self.desk.token, query=query)
            if not answer.ok:
                raise StepError(f"{path} cannot be listed: the task service answered {answer.status}")
            found += [
                item["id"] for item in answer.body["items"] if (collection, item["id"]) not in self._avoided
            ]
            if not answer.body["next_cursor"]:
                break
            query = {**query, "cursor": answer.body["next_cursor"]}
        if not found:
            raise StepError(f"{path} lists nothing")
        return found
