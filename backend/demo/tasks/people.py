"""People with tasks: each has some of her own, and a share of those that history left; nobody else writes these.

So she knows what they must say, and looks from time to time. One whose write is in doubt leaves that task alone from then on.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from backend.demo.ledger import Effect
from backend.demo.shop import Answer, Outcome
from backend.demo.worker import Worker

from .audit import thing
from .desk import Desk
from .stack import SERVICE
from .views import moment_text

_WORDS = ("paint", "order", "mend", "call", "Übung", "ship ☃", "日本", "e\u0301dit", "plan")
_PRIORITIES = ("low", "medium", "high", "urgent")
_MOST_TASKS = 40
_IN_API = {"labels": "label_ids"}
"""Fields that the API calls otherwise than the collection does."""

Fields = dict[str, Any]


class Person(Worker):
    """One of those who do tasks. `share` are ids of history's tasks that are hers."""

    source = "people"

    def __init__(self, desk: Desk, *, rng: random.Random, share: Sequence[str]) -> None:
        super().__init__(desk, rng=rng)
        self._desk = desk
        self._share = list(share)
        self._tasks: dict[str, Fields] = {}
        self._assigned: dict[str, dict[str, str]] = {}
        self._actions = (
            (self._create, 20),
            (self._change, 24),
            (self._complete, 8),
            (self._reopen, 6),
            (self._delete, 5),
            (self._assign, 10),
            (self._unassign, 4),
            (self._change_history, 10),
            (self._look, 12),
            (self._look_at_assignments, 5),
            (self._look_at_history, 10),
            (self._page_through_history, 4),
        )

    async def act(self) -> None:
        """One thing that somebody with tasks does."""
        actions, weights = zip(*self._actions, strict=True)
        await self.rng.choices(actions, weights)[0]()

    def forget_token(self) -> None:
        self._desk.renew_token()

    async def _create(self) -> None:
        if len(self._tasks) >= _MOST_TASKS:
            await self._delete()
            return
        fields: Fields = {
            "title": self._title(),
            "description": self.rng.choice((None, "", "two\nlines", self._title())),
            "status": "todo",
            "priority": self.rng.choice(_PRIORITIES),
            "created_by": self._desk.user(self.rng),
            "due_at": self._moment(),
            "estimate_hours": self._hours(),
            "labels": self._labels(),
            "checklist": [
                {"text": self._title(), "done": self.rng.random() < 0.5} for _ in range(self.rng.randrange(3))
            ],
        }

        def created(body: Any) -> Sequence[Effect]:
            self._tasks[body["id"]] = dict(fields)
            return [Effect(row=thing("tasks", body["id"]), fields=fields)]

        await self.write(
            "create_task",
            "POST",
            SERVICE,
            "/tasks",
            token=self._desk.token,
            body=_said(fields),
            effects=created,
        )

    async def _change(self) -> None:
        if found := self._open_task():
            await self._put(found, self._changes())

    async def _reopen(self) -> None:
        closed = [name for name, fields in self._tasks.items() if fields["status"] == "done"]
        if closed:
            await self._put(self.rng.choice(closed), {"status": self.rng.choice(("todo", "in_progress"))})

    async def _put(self, task: str, changes: Fields) -> None:
        effects = [Effect(row=thing("tasks", task), fields=changes)]
        answer = await self._send("change_task", "PATCH", f"/tasks/{task}", effects, body=changes)
        if answer.ok:
            self._tasks[task] |= changes
        elif answer.outcome is Outcome.IN_DOUBT:
            self._leave(task)
        elif answer.outcome is Outcome.REFUSED:
            self.market.complain(f"task {task}: a change was answered by {answer.status}")

    async def _complete(self) -> None:
        if not (task := self._open_task()):
            return
        changes = {"status": "done"}
        effects = [Effect(row=thing("tasks", task), fields=changes)]
        answer = await self._send("complete_task", "POST", f"/tasks/{task}/complete", effects)
        if answer.ok:
            self._tasks[task] |= changes
        elif answer.outcome is Outcome.IN_DOUBT:
            self._leave(task)

    async def _delete(self) -> None:
        if not self._tasks:
            return
        task = self.rng.choice(list(self._tasks))
        rows = [
            thing("tasks", task),
            *(thing("task_assignments", found) for found in self._assigned.get(task, {}).values()),
        ]
        effects = [Effect(row=row, deleted=True) for row in rows]
        answer = await self._send("delete_task", "DELETE", f"/tasks/{task}", effects)
        if answer.outcome in (Outcome.ACKNOWLEDGED, Outcome.IN_DOUBT):
            self._leave(task)

    async def _assign(self) -> None:
        if not (task := self._open_task()):
            return
        user = self._desk.user(self.rng)

        def assigned(body: Any) -> Sequence[Effect]:
            self._assigned.setdefault(task, {})[user] = body["id"]
            fields = {"task_id": task, "user_id": user}
            return [Effect(row=thing("task_assignments", body["id"]), fields=fields)]

        answer = await self.write(
            "assign_task",
            "PUT",
            SERVICE,
            f"/tasks/{task}/assignments/{user}",
            token=self._desk.token,
            effects=assigned,
        )
        if answer.outcome is Outcome.IN_DOUBT:
            self._leave(task)

    async def _unassign(self) -> None:
        tasks = [task for task, users in self._assigned.items() if users]
        if not tasks:
            return
        task = self.rng.choice(tasks)
        user, assignment = self.rng.choice(list(self._assigned[task].items()))
        effects = [Effect(row=thing("task_assignments", assignment), deleted=True)]
        answer = await self._send("unassign_task", "DELETE", f"/tasks/{task}/assignments/{user}", effects)
        if answer.ok:
            del self._assigned[task][user]
        elif answer.outcome is Outcome.IN_DOUBT:
            self._leave(task)

    async def _change_history(self) -> None:
        """What old programs have left is opened, if it is closed, and changed; what else it holds stays."""
        if not self._share:
            return
        task = self.rng.choice(self._share)
        changes: Fields = {"title": self._title(), "status": "in_progress", "due_at": self._moment()}
        effects = [Effect(row=thing("tasks", task), fields=changes)]
        answer = await self._send("change_history", "PATCH", f"/tasks/{task}", effects, body=changes)
        if answer.outcome is Outcome.REFUSED:
            self.market.complain(f"task {task} of history: a change was answered by {answer.status}")

    async def _look(self) -> None:
        """What was acknowledged is there at once."""
        if not self._tasks:
            return
        task = self.rng.choice(list(self._tasks))
        before = dict(self._tasks[task])
        answer = await self.market.shop.call("GET", SERVICE, f"/tasks/{task}", token=self._desk.token)
        if answer.outcome in (Outcome.NOT_SENT, Outcome.IN_DOUBT):
            await self.pause(0.2)
            return
        self.market.checked_reads += 1
        if not answer.ok:
            self.market.complain(f"task {task} answered {answer.status}")
        elif wrong := [name for name in before if _shown(answer.body, name) != _comparable(before[name])]:
            self.market.complain(f"task {task}: {', '.join(wrong)} not as acknowledged")

    async def _look_at_assignments(self) -> None:
        tasks = [task for task in self._assigned if task in self._tasks]
        if not tasks:
            return
        task = self.rng.choice(tasks)
        page = await self.ask(SERVICE, f"/tasks/{task}/assignments", token=self._desk.token)
        if page is not None:
            self.market.checked_reads += 1
            there = {item["user_id"]: item["id"] for item in page["items"]}
            if there != self._assigned[task]:
                self.market.complain(f"task {task}: its assignments are not those acknowledged")

    async def _look_at_history(self) -> None:
        task = self.rng.choice(self._desk.history)
        await self.ask(SERVICE, f"/tasks/{task}", token=self._desk.token)

    async def _page_through_history(self) -> None:
        query: Mapping[str, str | int] = {"limit": 20, "created_by": self._desk.user(self.rng)}
        await self.ask(SERVICE, "/tasks", token=self._desk.token, query=query)

    async def _send(
        self, operation: str, method: str, path: str, effects: Sequence[Effect], *, body: Fields | None = None
    ) -> Answer:
        """A write whose effects are known beforehand."""
        return await self.write(
            operation,
            method,
            SERVICE,
            path,
            token=self._desk.token,
            body=_said(body) if body is not None else None,
            effects=lambda _: effects,
            doubtful=effects,
        )

    def _leave(self, task: str) -> None:
        self._tasks.pop(task, None)
        self._assigned.pop(task, None)

    def _open_task(self) -> str | None:
        found = [name for name, fields in self._tasks.items() if fields["status"] != "done"]
        return self.rng.choice(found) if found else None

    def _changes(self) -> Fields:
        return self.rng.choice(
            (
                {"title": self._title()},
                {"description": self.rng.choice((None, self._title()))},
                {"priority": self.rng.choice(_PRIORITIES), "status": "in_progress"},
                {"due_at": self._moment(), "estimate_hours": self._hours()},
                {"labels": self._labels()},
                {"checklist": [{"text": self._title(), "done": True}]},
            )
        )

    def _title(self) -> str:
        return f"{' '.join(self.rng.choices(_WORDS, k=2))} {secrets.token_hex(4)}"

    def _moment(self) -> str | None:
        if self.rng.random() < 0.2:
            return None
        found = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(milliseconds=self.rng.randrange(10**11))
        return moment_text(found)

    def _hours(self) -> Decimal | None:
        return None if self.rng.random() < 0.2 else Decimal(self.rng.randrange(10_000)) / 100

    def _labels(self) -> list[str]:
        labels = self._desk.labels
        return self.rng.sample(labels, k=min(len(labels), self.rng.randrange(4)))


def _said(fields: Fields) -> Fields:
    """Fields as a request's body has them."""
    return {
        _IN_API.get(name, name): str(value) if isinstance(value, Decimal) else value
        for name, value in fields.items()
    }


def _shown(body: Mapping[str, Any], name: str) -> object:
    return _comparable(body[_IN_API.get(name, name)], name=name)


def _comparable(value: object, *, name: str = "") -> object:
    """A value of an answer, or what was acknowledged, so that equal ones are the same."""
    if value is not None and name == "due_at":
        return moment_text(datetime.fromisoformat(str(value)))
    return Decimal(value) if isinstance(value, str) and name == "estimate_hours" else value
