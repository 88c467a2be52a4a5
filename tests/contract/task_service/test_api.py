"""The service over HTTP: the same answers whatever `ORM` says."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.contract.task_service.support import ORMS, Api, assert_problem

pytestmark = ORMS
NOBODY = "0123456789abcdef01234567"
FULL: dict[str, Any] = {
    "description": "All of them.\nTwice",
    "status": "in_progress",
    "priority": "urgent",
    "estimate_hours": "1.50",
    "source": {"app": "shop", "ticket": "T-1"},
    "checklist": [{"text": "left"}, {"text": "right", "done": True}],
}


@pytest.fixture
async def ann(api: Api) -> str:
    return await api.make("/users", email="ann@example.org", name="Ann")


async def test_the_least_and_the_most_that_a_task_can_be(api: Api, ann: str) -> None:
    began = datetime.now(UTC)
    made = await api.admin.post("/tasks", json={"title": "Sweep", "created_by": ann})
    assert made.status_code == 201, made.text
    task = made.json()
    assert made.headers["location"] == f"/tasks/{task['id']}"
    created = datetime.fromisoformat(task.pop("created_at"))
    assert abs((created - began).total_seconds()) < 30
    assert created.microsecond % 1000 == 0
    assert datetime.fromisoformat(task.pop("updated_at")) == created
    assert task == {
        "id": task["id"],
        "title": "Sweep",
        "description": None,
        "status": "todo",
        "priority": "medium",
        "created_by": ann,
        "due_at": None,
        "estimate_hours": None,
        "source": None,
        "label_ids": [],
        "checklist": [],
        "completed_at": None,
    }
    label = await api.make("/labels", name="red", color="#ff0000")
    given = FULL | {"title": "Count", "created_by": ann, "due_at": "2026-03-01T01:00:00.123456+02:00"}
    full_id = await api.make("/tasks", **given, label_ids=[label, label])
    full = (await api.user.get(f"/tasks/{full_id}")).json()
    assert full["due_at"] == "2026-02-28T23:00:00.123000Z"
    assert (full["estimate_hours"], full["label_ids"]) == ("1.5", [label])
    assert full["checklist"] == [{"text": "left", "done": False}, {"text": "right", "done": True}]
    for name in ("description", "status", "priority", "source"):
        assert full[name] == FULL[name]


async def test_a_change_is_of_what_it_names(api: Api, ann: str) -> None:
    task_id = await api.make("/tasks", title="Count", created_by=ann, **FULL)
    before = (await api.user.get(f"/tasks/{task_id}")).json()
    changed = await api.service.patch(f"/tasks/{task_id}", json={"title": "Mop", "source": None})
    after = changed.json()
    assert after == before | {"title": "Mop", "source": None, "updated_at": after["updated_at"]}
    assert (await api.user.get(f"/tasks/{task_id}")).json() == after
    same = await api.admin.patch(f"/tasks/{task_id}", json={"title": "Mop"})
    assert same.json() == after


async def test_what_is_done_stays_so_until_it_is_opened(api: Api, ann: str) -> None:
    path = f"/tasks/{await api.make('/tasks', title='Sweep', created_by=ann)}"
    done = (await api.admin.post(f"{path}/complete")).json()
    assert done["status"] == "done"
    assert done["completed_at"] == done["updated_at"]
    assert (await api.admin.post(f"{path}/complete")).json() == done
    assert_problem(await api.admin.patch(path, json={"title": "Mop"}), 409)
    assert_problem(await api.admin.put(f"{path}/assignments/{ann}"), 409)
    assert (await api.admin.patch(path, json={"status": "in_progress"})).json()["completed_at"] is None
    assert (await api.admin.patch(path, json={"status": "cancelled"})).json()["completed_at"] is None
    assert_problem(await api.admin.post(f"{path}/complete"), 409)
    assert (await api.admin.delete(path)).status_code == 204
    for gone in (api.admin.get(path), api.admin.post(f"{path}/complete"), api.admin.delete(path)):
        assert_problem(await gone, 404)


async def test_a_listing_is_paged_and_filtered(api: Api, ann: str) -> None:
    bob = await api.make("/users", email="bob@example.org")
    red = await api.make("/labels", name="red")
    ids = [
        await api.make(
            "/tasks",
            title=f"no {number}",
            created_by=(ann, bob)[number % 2],
            priority=("low", "high", "urgent")[number % 3],
            label_ids=[red] if number == 4 else [],
        )
        for number in range(7)
    ]
    seen: list[str] = []
    cursor: str | None = None
    while True:
        where: dict[str, Any] = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = (await api.user.get("/tasks", params=where)).json()
        seen += [task["id"] for task in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == ids
    for query, expected in (
        ({"created_by": ann}, ids[::2]),
        ({"priority": "high"}, ids[1::3]),
        ({"label_id": red}, [ids[4]]),
        ({"label_id": red, "created_by": bob}, []),
        ({"status": "todo"}, ids),
        ({"status": "done"}, []),
    ):
        found = (await api.user.get("/tasks", params=query)).json()
        assert [task["id"] for task in found["items"]] == expected, query
        assert found["next_cursor"] is None
    labels = (await api.user.get("/labels", params={"limit": 1})).json()
    foreign = (await api.admin.get("/users", params={"limit": 1})).json()["next_cursor"]
    assert labels["next_cursor"] is None
    for wrong in (foreign, "x", "WyJ0YXNrcyIsICJ4Il0"):
        assert_problem(await api.user.get("/tasks", params={"cursor": wrong}), 422)


async def test_assignments(api: Api, ann: str) -> None:
    bob = await api.make("/users", email="bob@example.org")
    task_id = await api.make("/tasks", title="Sweep", created_by=ann)
    path = f"/tasks/{task_id}/assignments"
    made = (await api.admin.put(f"{path}/{ann}")).json()
    assert made == {"id": made["id"], "task_id": task_id, "user_id": ann}
    assert (await api.admin.put(f"{path}/{ann}")).json() == made
    assert (await api.admin.put(f"{path}/{bob}")).status_code == 200
    assert [item["user_id"] for item in (await api.user.get(path)).json()["items"]] == [ann, bob]
    assert (await api.admin.get(f"/users/{ann}/assignments")).json()["items"] == [made]
    assert (await api.admin.delete(f"{path}/{bob}")).status_code == 204
    assert_problem(await api.admin.delete(f"{path}/{bob}"), 404)
    assert_problem(await api.admin.put(f"{path}/{NOBODY}"), 409)
    assert_problem(await api.admin.put(f"/tasks/{NOBODY}/assignments/{ann}"), 404)
    assert (await api.admin.delete(f"/tasks/{task_id}")).status_code == 204
    assert (await api.admin.get(f"/users/{ann}/assignments")).json()["items"] == []


async def test_people_teams_labels_and_watch_lists(api: Api, ann: str) -> None:
    assert_problem(await api.admin.post("/users", json={"email": "ann@example.org"}), 409)
    user = (await api.admin.get(f"/users/{ann}")).json()
    assert user == {"id": ann, "email": "ann@example.org", "name": "Ann"}
    assert (await api.admin.get("/users", params={"email": "ann@example.org"})).json()["items"] == [user]
    team = await api.make("/teams", name="Night shift", created_by=ann)
    found = (await api.admin.get(f"/teams/{team}")).json()
    assert found == {
        "id": team,
        "name": "Night shift",
        "invite_code": found["invite_code"],
        "created_by": ann,
    }
    assert len(found["invite_code"]) == 8
    assert (await api.admin.get("/teams", params={"created_by": ann})).json()["items"] == [found]
    assert_problem(await api.admin.post("/teams", json={"name": "x", "created_by": NOBODY}), 409)
    label = await api.make("/labels", name="red", color="#Ff0000")
    assert_problem(await api.admin.post("/labels", json={"name": "red"}), 409)
    expected = [{"id": label, "name": "red", "color": "#Ff0000"}]
    assert (await api.user.get("/labels", params={"name": "red"})).json()["items"] == expected
    watched = await api.make("/watch-lists", name="mine", user_id=ann)
    query = {"user_id": ann}
    items = (await api.admin.get("/watch-lists", params=query)).json()["items"]
    assert items == [{"id": watched, "name": "mine", "user_id": ann}]
    assert (await api.admin.delete(f"/watch-lists/{watched}")).status_code == 204
    assert_problem(await api.admin.delete(f"/watch-lists/{watched}"), 404)


async def test_what_cannot_be_is_refused_and_changes_nothing(api: Api, ann: str) -> None:
    task_id = await api.make("/tasks", title="Sweep", created_by=ann)
    before = (await api.user.get("/tasks")).json()
    wrong: tuple[dict[str, Any], ...] = (
        *({"title": title} for title in ("", " ", "a ", "a\nb", "\x00", "x" * 201, None, 5, "\ud800")),
        *({"status": status} for status in ("Done", "to_do", 1, None)),
        *({"priority": priority} for priority in ("", "normal", None)),
        *({"due_at": at} for at in ("2026-01-01", "2026-01-01T00:00:00", 5, "0001-01-01T00:00:00+14:00")),
        *({"estimate_hours": hours} for hours in (-1, "1.234", 0.001, "1e3", "NaN", True, 1e9, "1000000")),
        *({"label_ids": ids} for ids in (["x"], [NOBODY.upper()], [NOBODY] * 51, "x", None, [5])),
        *({"checklist": steps} for steps in (["x"], [{"done": True}], [{"text": "a", "more": 1}], None)),
        *({"source": source} for source in ("x", {"app": ""}, {"name": "x"})),
        *({"created_at": "2026-01-01T00:00:00Z"}, {"id": NOBODY}, {"title": "x", "mongo_id": "x"}),
    )
    for body in wrong:
        told = assert_problem(await api.admin.patch(f"/tasks/{task_id}", content=json.dumps(body)), 422)
        assert told["errors"], body
        new = {"title": "x", "created_by": ann} | body
        assert_problem(await api.admin.post("/tasks", content=json.dumps(new)), 422)
    assert_problem(await api.admin.patch(f"/tasks/{task_id}", json={}), 422)
    assert_problem(await api.admin.patch(f"/tasks/{task_id}", json={"created_by": ann}), 422)
    for creator in (None, "x", NOBODY.upper(), f"{NOBODY}0", 5):
        assert_problem(await api.admin.post("/tasks", json={"title": "x", "created_by": creator}), 422)
    assert_problem(await api.admin.post("/labels", json={"name": "x", "color": "red"}), 422)
    assert_problem(await api.admin.post("/users", json={"email": "nobody"}), 422)
    assert (await api.user.get("/tasks")).json() == before


@pytest.mark.parametrize("wrong", ["x", "0" * 23, "0" * 25, "G" * 24, "0123456789ABCDEF01234567", "%00"])
async def test_an_id_that_is_none_is_refused(api: Api, wrong: str) -> None:
    for path in (f"/tasks/{wrong}", f"/users/{wrong}", f"/teams/{wrong}", f"/tasks/{wrong}/assignments"):
        assert_problem(await api.admin.get(path), 422)
    for path in (f"/tasks/{wrong}", f"/watch-lists/{wrong}", f"/tasks/{NOBODY}/assignments/{wrong}"):
        assert_problem(await api.admin.delete(path), 422)
    for query in ({"created_by": wrong}, {"label_id": wrong}, {"status": wrong}, {"limit": wrong}):
        assert_problem(await api.admin.get("/tasks", params=query), 422)


async def test_who_may_do_what(api: Api, ann: str) -> None:
    task_id = await api.make("/tasks", title="Sweep", created_by=ann)
    readable = ("/tasks", f"/tasks/{task_id}", f"/tasks/{task_id}/assignments", "/labels")
    for path in readable:
        assert_problem(await api.anyone.get(path), 401)
        assert (await api.user.get(path)).status_code == 200
    for path in ("/users", f"/users/{ann}", f"/users/{ann}/assignments", "/teams", "/watch-lists"):
        assert_problem(await api.anyone.get(path), 401)
        assert_problem(await api.user.get(path), 403)
        assert (await api.service.get(path)).status_code == 200
    writes = (
        ("POST", "/tasks", {"title": "x", "created_by": ann}),
        ("PATCH", f"/tasks/{task_id}", {"title": "x"}),
        ("POST", f"/tasks/{task_id}/complete", None),
        ("DELETE", f"/tasks/{task_id}", None),
        ("PUT", f"/tasks/{task_id}/assignments/{ann}", None),
        ("DELETE", f"/tasks/{task_id}/assignments/{ann}", None),
        *(("POST", path, {}) for path in ("/users", "/teams", "/labels", "/watch-lists")),
        ("DELETE", f"/watch-lists/{NOBODY}", None),
    )
    for method, path, body in writes:
        assert_problem(await api.anyone.request(method, path, json=body), 401)
        assert_problem(await api.user.request(method, path, json=body), 403)
    assert (await api.user.get(f"/tasks/{task_id}")).json()["title"] == "Sweep"


async def test_alive_and_ready(api: Api) -> None:
    assert (await api.anyone.get("/healthz")).json() == {"status": "alive"}
    ready = (await api.anyone.get("/readyz")).json()
    assert [part["ok"] for part in ready["components"] if part["required"]] == [True]
    assert (await api.anyone.get("/metrics")).status_code == 200
    document = (await api.anyone.get("/openapi.json")).json()
    answers = document["paths"]["/tasks/{task_id}"]["patch"]["responses"]
    assert {"401", "403", "404", "409", "422", "503"} <= set(answers)
