"""Clerks: they make users, teams, labels and watch lists known, and look whether these are there."""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from typing import Any

from backend.demo.ledger import Effect
from backend.demo.shop import Outcome
from backend.demo.worker import Worker

from .audit import thing
from .desk import Desk
from .stack import SERVICE

Fields = dict[str, Any]


class Clerk(Worker):
    """One of those who keep the lists."""

    source = "clerks"

    def __init__(self, desk: Desk, *, rng: random.Random) -> None:
        super().__init__(desk, rng=rng)
        self._desk = desk
        self._teams: dict[str, Fields] = {}
        self._watch_lists: list[str] = []
        self._actions = (
            (self._make_user, 10),
            (self._make_team, 10),
            (self._make_label, 8),
            (self._make_watch_list, 14),
            (self._delete_watch_list, 8),
            (self._look_at_team, 10),
        )

    async def act(self) -> None:
        """One thing that a clerk does."""
        actions, weights = zip(*self._actions, strict=True)
        await self.rng.choices(actions, weights)[0]()

    def forget_token(self) -> None:
        self._desk.renew_token()

    async def _make_user(self) -> None:
        # Not of the seeded generator: one that was in doubt must not come a second time.
        email, name = f"Demo.{secrets.token_hex(6)}@Example.com", self.rng.choice((None, "Zoë", "Đặng"))
        made = await self._make(
            "users", "/users", {"email": email, "name": name}, renamed={"email": "email_id"}
        )
        if made:
            self._desk.users.append(made)

    async def _make_label(self) -> None:
        color = self.rng.choice((None, "#00aaFF", "#123456"))
        made = await self._make("labels", "/labels", {"name": f"demo {secrets.token_hex(4)}", "color": color})
        if made:
            self._desk.labels.append(made)

    async def _make_team(self) -> None:
        fields = {"name": f"Team {secrets.token_hex(4)}", "created_by": self._desk.user(self.rng)}
        made = await self._make("teams", "/teams", fields, answered=("invite_code",))
        if made:
            self._teams[made] = fields

    async def _make_watch_list(self) -> None:
        fields = {"name": f"List {secrets.token_hex(4)}", "user_id": self._desk.user(self.rng)}
        made = await self._make("watchlists", "/watch-lists", fields)
        if made:
            self._watch_lists.append(made)

    async def _make(
        self,
        collection: str,
        path: str,
        body: Fields,
        *,
        renamed: dict[str, str] | None = None,
        answered: Sequence[str] = (),
    ) -> str | None:
        """Make one thing; answers its id. `renamed` fields the collection calls otherwise, `answered` ones it got there."""
        names = renamed or {}
        made: list[str] = []

        def effects(found: Any) -> Sequence[Effect]:
            made.append(found["id"])
            fields = {names.get(name, name): value for name, value in body.items()}
            fields |= {name: found[name] for name in answered}
            return [Effect(row=thing(collection, found["id"]), fields=fields)]

        await self.write(
            f"make_{collection}", "POST", SERVICE, path, token=self._desk.token, body=body, effects=effects
        )
        return made[0] if made else None

    async def _delete_watch_list(self) -> None:
        if not self._watch_lists:
            return
        found = self._watch_lists.pop(self.rng.randrange(len(self._watch_lists)))
        effects = [Effect(row=thing("watchlists", found), deleted=True)]
        answer = await self.write(
            "delete_watch_list",
            "DELETE",
            SERVICE,
            f"/watch-lists/{found}",
            token=self._desk.token,
            effects=lambda _: effects,
            doubtful=effects,
        )
        if answer.outcome is Outcome.NOT_SENT:
            self._watch_lists.append(found)

    async def _look_at_team(self) -> None:
        if not self._teams:
            return
        team = self.rng.choice(list(self._teams))
        answer = await self.market.shop.call("GET", SERVICE, f"/teams/{team}", token=self._desk.token)
        if answer.outcome in (Outcome.NOT_SENT, Outcome.IN_DOUBT):
            await self.pause(0.2)
            return
        self.market.checked_reads += 1
        if not answer.ok or any(answer.body[name] != value for name, value in self._teams[team].items()):
            self.market.complain(f"team {team} is not as acknowledged (answered {answer.status})")
