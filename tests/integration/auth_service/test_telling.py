"""Others are told of a user in the transaction of her change: what they may know, and only if it is news."""

from __future__ import annotations

import json
from functools import partial

import pytest

from backend.auth_service.app.entities import UserRole
from backend.auth_service.app.message_api import TELLS
from backend.auth_service.app.models import ROOM
from backend.auth_service.app.services.telling import AGGREGATES
from backend.messages.users import UserChanged
from backend.shared import Phase
from backend.shared.events.aggregates import ToldAnew
from backend.shared.events.outbox import Outbox
from tests.integration.auth_service.support import PASSWORD, Auth, expect

(ALL_USERS,) = AGGREGATES


@pytest.fixture(autouse=True)
def telling(auth: Auth) -> None:
    """As with a broker."""
    auth.manager.outbox = Outbox(ROOM, tells=TELLS)


async def told(auth: Auth) -> list[UserChanged]:
    """What was told, in order, as it waits for delivery."""
    if auth.phase is Phase.DUALWRITE:
        rows = await auth.legacy("SELECT payload FROM tandem_auth.outbox ORDER BY id")
    else:
        rows = await auth.new("SELECT payload FROM outbox ORDER BY id")
    return [UserChanged.model_validate(json.loads(row["payload"])["data"]) for row in rows]


async def test_what_changes_a_user_for_others_is_told(auth: Auth) -> None:
    user = await auth.register(first_name="Ada", last_name="Lovelace")
    headers = await auth.bearer()
    expect(await auth.client.patch("/users/me", json={"first_name": "Augusta"}, headers=headers), 200)
    (await auth.manager.set_role(user["id"], UserRole.ADMIN)).unwrap()
    (await auth.manager.deactivate_user(user["id"])).unwrap()
    (await auth.manager.reactivate_user(user["id"])).unwrap()
    found = [(item.display_name, item.role, item.is_active) for item in await told(auth)]
    assert found == [
        ("Ada Lovelace", "user", True),
        ("Augusta Lovelace", "user", True),
        ("Augusta Lovelace", "admin", True),
        ("Augusta Lovelace", "admin", False),
        ("Augusta Lovelace", "admin", True),
    ]


async def test_what_is_nobody_elses_business_is_not_told(auth: Auth) -> None:
    user = await auth.register(first_name="Ada", phone="1")
    headers = await auth.bearer()
    expect(await auth.client.patch("/users/me", json={"phone": "2", "city": "Bath"}, headers=headers), 200)
    change = {"current_password": PASSWORD, "new_password": "another horse battery"}
    expect(await auth.client.post("/users/me/password", json=change, headers=headers), 204)
    (await auth.manager.reactivate_user(user["id"])).unwrap()
    (message,) = await told(auth)
    assert message.model_dump() == {
        "user_id": user["id"],
        "display_name": "Ada",
        "role": "user",
        "is_active": True,
    }


async def test_what_is_refused_is_not_told(auth: Auth) -> None:
    await auth.register()
    expect(await auth.client.post("/users", json={"email": "ADA@example.com", "password": PASSWORD}), 409)
    assert len(await told(auth)) == 1


async def test_all_can_be_told_anew_page_by_page(auth: Auth) -> None:
    auth.manager.outbox = None
    ids = {(await auth.register(f"u{number}@example.com"))["id"] for number in range(5)}
    some, seen = ToldAnew(side=auth.manager.phase.policy.authoritative, positions={}), list[str]()
    while not some.is_last:
        tell = partial(ALL_USERS.tell, after=some.last, side=some.side, limit=2, correlation_id="anew")
        some = await auth.manager.run_unit("tell", tell)
        seen += list(some.positions)
    assert (len(seen), set(seen)) == (5, ids)
    # On the other side keys may come in another order: it says so, and tells nothing.
    elsewhere = partial(ALL_USERS.tell, after="u", side=some.side.other, limit=2, correlation_id="anew")
    moved = await auth.manager.run_unit("tell", elsewhere)
    assert (moved.has_moved, moved.positions, moved.is_last) == (True, {}, False)
    assert {message.user_id for message in await told(auth)} == ids
