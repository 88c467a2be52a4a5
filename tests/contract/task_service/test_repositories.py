"""What every store promises behind the ports."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from backend.shared import ConflictError, ValidationError
from backend.task_service.app.domain.people import (
    Assignment,
    AssignmentFilter,
    Label,
    LabelFilter,
    Team,
    TeamFilter,
    UserFilter,
    WatchList,
    WatchListFilter,
)
from backend.task_service.app.domain.tasks import (
    ChecklistItem,
    Task,
    TaskFilter,
    TaskPriority,
    TaskSource,
    TaskStatus,
)
from backend.task_service.app.ports import Repositories, TaskStore
from tests.contract.task_service.support import AT, STORES, a_full_task, a_task, a_user, at_once, save

pytestmark = STORES

ANN, BOB = a_user("ann", google_id="g-1"), a_user("bob", name=None)
RED, BLUE = Label.create(name="red", color="#Ff0000"), Label.create(name="blue", color=None)


@pytest.fixture
async def filled(store: TaskStore) -> TaskStore:
    await save(store, users=[ANN, BOB], labels=[RED, BLUE])
    return store


async def get(store: TaskStore, task_id: str) -> Task | None:
    async def unit(repositories: Repositories) -> Task | None:
        return await repositories.tasks.get(task_id)

    return await store.read("get", unit, entity="tasks", key=task_id)


async def test_what_is_saved_is_there(filled: TaskStore) -> None:
    least, full = a_task(BOB), a_full_task(ANN, RED, BLUE)
    team = Team.create(name="Night shift", created_by=ANN.id)
    made = Assignment.create(task_id=least.id, user_id=BOB.id)
    watched = WatchList.create(name="mine", user_id=BOB.id)
    await save(filled, tasks=[least, full], teams=[team], assignments=[made], watch_lists=[watched])

    async def unit(repositories: Repositories) -> list[Any]:
        return [
            await repositories.tasks.get(least.id),
            await repositories.tasks.get(full.id, lock=True),
            await repositories.teams.get(team.id),
            await repositories.assignments.get(made.id),
            await repositories.watch_lists.get(watched.id),
            await repositories.labels.get(RED.id),
            await repositories.users.get(ANN.id),
            await repositories.users.get(BOB.id),
            await repositories.tasks.get(ANN.id),
        ]

    expected = [least, full, team, made, watched, RED, ANN, BOB, None]
    assert await filled.write("get", unit) == expected


@pytest.mark.parametrize(
    "change",
    [
        {"title": "Mop", "status": TaskStatus.CANCELLED, "priority": TaskPriority.LOW},
        {"description": None, "due_at": None, "estimate_hours": None, "completed_at": None},
        {"source": None},
        {"source": TaskSource(app=None, ticket="T-2")},
        {"label_ids": (BLUE.id,)},
        {"label_ids": (BLUE.id, RED.id, BLUE.id)},
        {"label_ids": (), "checklist": ()},
        {"checklist": (ChecklistItem(text="right"), ChecklistItem(text="left"), ChecklistItem(text="left"))},
    ],
    ids="-".join,
)
async def test_what_differs_is_changed(filled: TaskStore, change: dict[str, Any]) -> None:
    task = a_full_task(ANN, RED, BLUE)
    other = a_full_task(ANN, RED)
    await save(filled, tasks=[task, other])
    changed = replace(task, **change)
    await save(filled, tasks=[changed])
    assert await get(filled, task.id) == changed
    await save(filled, tasks=[task])
    assert await get(filled, task.id) == task
    assert await get(filled, other.id) == other


async def test_listings_go_by_key_and_do_not_overlap(filled: TaskStore) -> None:
    tasks = [a_task(ANN, f"no {number}") for number in range(25)]
    await save(filled, tasks=[*tasks[::2], *tasks[1::2]])
    seen: list[Task] = []
    while True:
        after = seen[-1].id if seen else None

        async def unit(repositories: Repositories, after: str | None = after) -> list[Task]:
            return await repositories.tasks.list(TaskFilter(), after=after, limit=10)

        page = await filled.read("list", unit)
        seen += page
        if len(page) < 10:
            break
    assert seen == tasks


async def test_filters_all_have_to_fit(filled: TaskStore) -> None:
    plain = a_task(ANN)
    done = a_full_task(ANN, RED, BLUE)
    others = a_task(BOB, status=TaskStatus.IN_PROGRESS, label_ids=(BLUE.id,))
    await save(filled, tasks=[plain, done, others])
    expected: list[tuple[TaskFilter, list[Task]]] = [
        (TaskFilter(status=TaskStatus.TODO), [plain]),
        (TaskFilter(status=TaskStatus.IN_PROGRESS), [others]),
        (TaskFilter(status=TaskStatus.CANCELLED), []),
        (TaskFilter(priority=TaskPriority.MEDIUM), [plain, others]),
        (TaskFilter(created_by=ANN.id), [plain, done]),
        (TaskFilter(label_id=BLUE.id), [done, others]),
        (TaskFilter(label_id=BLUE.id, created_by=BOB.id), [others]),
        (TaskFilter(label_id=BLUE.id, status=TaskStatus.TODO), []),
    ]

    async def unit(repositories: Repositories) -> list[list[Task]]:
        return [await repositories.tasks.list(wanted, limit=10) for wanted, _ in expected]

    assert await filled.read("list", unit) == [found for _, found in expected]


async def test_other_things_are_listed_by_what_they_refer_to(filled: TaskStore) -> None:
    task = a_task(ANN)
    theirs = [Assignment.create(task_id=task.id, user_id=user.id) for user in (ANN, BOB)]
    lists = [WatchList.create(name="w", user_id=user.id) for user in (ANN, BOB)]
    teams = [Team.create(name="t", created_by=user.id) for user in (ANN, BOB)]
    await save(filled, tasks=[task], assignments=theirs, watch_lists=lists, teams=teams)

    async def unit(repositories: Repositories) -> list[list[Any]]:
        return [
            await repositories.assignments.list(AssignmentFilter(task_id=task.id), limit=9),
            await repositories.assignments.list(AssignmentFilter(user_id=BOB.id), limit=9),
            await repositories.assignments.list(AssignmentFilter(user_id=RED.id), limit=9),
            await repositories.watch_lists.list(WatchListFilter(user_id=ANN.id), limit=9),
            await repositories.teams.list(TeamFilter(created_by=BOB.id), limit=9),
            await repositories.labels.list(LabelFilter(name="blue"), limit=9),
            await repositories.users.list(UserFilter(email="bob@example.org"), limit=9),
            await repositories.users.list(UserFilter(email="BOB@example.org"), limit=9),
        ]

    expected = [theirs, theirs[1:], [], lists[:1], teams[1:], [BLUE], [BOB], []]
    assert await filled.read("list", unit) == expected


async def test_what_is_deleted_is_gone_with_all_that_hangs_on_it(filled: TaskStore) -> None:
    task, other = a_full_task(ANN, RED), a_full_task(ANN, RED)
    await save(filled, tasks=[task, other])

    async def unit(repositories: Repositories) -> list[object]:
        return [
            await repositories.tasks.delete(task.id),
            await repositories.tasks.delete(task.id),
            await repositories.tasks.get(task.id),
            await repositories.tasks.list(TaskFilter(label_id=RED.id), limit=9),
        ]

    assert await filled.write("delete", unit) == [True, False, None, [other]]
    again = a_task(ANN, id=task.id)
    await save(filled, tasks=[again])
    assert await get(filled, task.id) == again


async def test_a_unit_sees_what_it_wrote_and_a_refused_one_leaves_nothing(filled: TaskStore) -> None:
    kept, dropped = a_full_task(ANN, RED), a_task(ANN)
    await save(filled, tasks=[kept])

    async def unit(repositories: Repositories) -> None:
        await repositories.tasks.save(dropped)
        await repositories.tasks.save(replace(kept, title="X", label_ids=()))
        await repositories.labels.delete(BLUE.id)
        found = await repositories.tasks.list(TaskFilter(created_by=ANN.id), limit=9)
        raise ValidationError([task.title for task in found])

    with pytest.raises(ValidationError) as refused:
        await filled.write("refused", unit)
    assert refused.value.args == (["X", "Sweep"],)
    assert await get(filled, dropped.id) is None
    assert await get(filled, kept.id) == kept
    await save(filled, labels=[replace(BLUE, name="still there")])


@pytest.mark.parametrize(
    ("kind_of_thing", "first", "second"),
    [
        ("users", a_user("eve"), a_user("eve")),
        ("users", a_user("eve", google_id="g"), a_user("eva", google_id="g")),
        ("teams", Team.create(name="a", created_by=ANN.id), None),
    ],
    ids=["email", "google_id", "invite_code"],
)
async def test_a_value_that_is_taken_is_a_conflict(
    filled: TaskStore, kind_of_thing: str, first: Any, second: Any
) -> None:
    if second is None:
        second = replace(Team.create(name="b", created_by=ANN.id), invite_code=first.invite_code)
    await save(filled, **{kind_of_thing: [first]})
    with pytest.raises(ConflictError):
        await save(filled, tasks=[a_task(ANN)], **{kind_of_thing: [second]})

    async def unit(repositories: Repositories) -> list[Any]:
        tasks: list[Any] = await repositories.tasks.list(TaskFilter(), limit=1)
        return [*tasks, await getattr(repositories, kind_of_thing).get(second.id)]

    assert await filled.read("look", unit) == [None]


async def test_changes_at_the_same_time_all_stay(filled: TaskStore) -> None:
    """`others_write_between_read_and_write`: whoever has locked a thing writes on top of what was there."""
    task = a_task(ANN)
    await save(filled, tasks=[task])

    async def add(text: str) -> None:
        async def unit(repositories: Repositories) -> None:
            there = await repositories.tasks.get(task.id, lock=True)
            assert there is not None
            steps = (*there.checklist, ChecklistItem(text=text))
            await repositories.tasks.save(replace(there, checklist=steps, updated_at=AT))

        await filled.write("add", unit)

    await at_once(*(add(str(number)) for number in range(4)))
    after = await get(filled, task.id)
    assert after is not None
    assert sorted(step.text for step in after.checklist) == ["0", "1", "2", "3"]


async def test_it_gives_a_sign_of_life(store: TaskStore) -> None:
    await store.check()
    await store.start()
    await store.check()
