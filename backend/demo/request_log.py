"""When each request began, when it ended, and whether it failed: to tell what happened while a phase was changed."""

from __future__ import annotations

from dataclasses import dataclass

WRONG_ANSWER_SECONDS = 1.0
"""So long after a change a wrong answer is still put down to it: it is noticed when its request is over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One request; times are seconds of the monotonic clock. It failed if it was answered by a 5xx, or not at all."""

    service: str
    began: float
    ended: float
    failed: bool


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What there was within a time: requests to one service and the longest of them, and what failed of any service."""

    requests: int
    longest_seconds: float
    failed: int


class RequestLog:
    """All requests of a run, noted when they are over."""

    def __init__(self) -> None:
        self._requests: list[Request] = []
        self._wrong_answers: list[float] = []

    def note(self, request: Request) -> None:
        """Note a request that is over."""
        self._requests.append(request)

    def note_wrong_answer(self, at: float) -> None:
        """Note that somebody was told what cannot be right."""
        self._wrong_answers.append(at)

    def within(self, began: float, ended: float, *, service: str) -> Seen:
        """Every request that was under way at any moment between `began` and `ended`.

        Ask when all of them are over. A service calls others: so whatever fails counts, and so does every wrong answer.
        """
        under_way = [item for item in self._requests if item.began <= ended and item.ended >= began]
        own = [item for item in under_way if item.service == service]
        wrong = sum(began <= at <= ended + WRONG_ANSWER_SECONDS for at in self._wrong_answers)
        return Seen(
            requests=len(own),
            longest_seconds=max((item.ended - item.began for item in own), default=0.0),
            failed=sum(item.failed for item in under_way) + wrong,
        )
