"""What all who work with the task service share: a token, and what there is to refer to."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from backend.demo.worker import Market


@dataclass(kw_only=True)
class Desk(Market):
    """A market with what the service's callers need. `users` and `labels` stay; clerks add to them."""

    make_token: Callable[[], str]
    users: list[str] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    history: list[str] = field(default_factory=list)
    """Ids of tasks that were there before, to be read by all."""
    token: str = ""

    def renew_token(self) -> None:
        """The token has expired, or there is none yet."""
        self.token = self.make_token()

    def user(self, rng: random.Random) -> str:
        """The id of a user that there is."""
        return rng.choice(self.users)
