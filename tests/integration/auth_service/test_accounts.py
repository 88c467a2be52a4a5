"""Registration and one's own account, with authority on either side."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from backend.shared import Phase
from tests.integration.auth_service.conftest import MakeAuth
from tests.integration.auth_service.support import PASSWORD, Auth, expect

PROFILE: dict[str, Any] = {
    "first_name": "Zoë",
    "last_name": "O'Brien  ",
    "phone": "",
    "address_line": None,
    "city": "Kraków",
    "country": "UK",
    "newsletter": True,
}


async def test_a_registered_user_is_on_both_sides(auth: Auth) -> None:
    user = await auth.register("Ada.Lovelace@Example.com", **PROFILE)
    assert user["email"] == "Ada.Lovelace@Example.com"
    assert user["role"] == "user"
    assert user["is_active"] is True
    assert {name: user[name] for name in PROFILE} == PROFILE
    assert user["id"].startswith("u")
    assert len(user["id"]) == 33
    assert "password" not in str(user)

    old, new = await auth.both(user["id"])
    assert old["login_email"] == new["email"] == "Ada.Lovelace@Example.com"
    assert old["pwd_hash"] == new["password_hash"]
    assert old["pwd_hash"].startswith("$argon2id$")
    assert (old["role_cd"], old["is_active"], old["newsletter"]) == ("U", 1, 1)
    assert (new["role"], new["is_active"], new["newsletter"]) == ("user", True, True)
    assert (old["first_nm"], old["last_nm"], old["phone_no"], old["addr_line"]) == (
        "Zoë",
        "O'Brien  ",
        "",
        None,
    )
    assert {name: new[name] for name in PROFILE} == PROFILE
    assert new["created_at"] == datetime.fromisoformat(user["created_at"])
    assert abs(new["created_at"] - datetime.now(tz=UTC)) < timedelta(seconds=30)
    assert old["last_upd"] is new["updated_at"] is None


@pytest.mark.parametrize("again", ["ada@example.com", "ADA@Example.COM"])
async def test_an_address_is_taken_in_any_letter_case(auth: Auth, again: str) -> None:
    await auth.register("ada@example.com")
    answer = await auth.client.post("/users", json={"email": again, "password": PASSWORD})
    expect(answer, 409)
    assert len(await auth.legacy("SELECT 1 FROM users")) == (1 if auth.phase is Phase.DUALWRITE else 0)


async def test_of_many_registrations_with_one_address_one_succeeds(auth: Auth) -> None:
    spellings = ["eve@example.com", "Eve@example.com", "EVE@EXAMPLE.COM", "eve@Example.com"] * 2
    answers = await asyncio.gather(
        *(auth.client.post("/users", json={"email": email, "password": PASSWORD}) for email in spellings)
    )
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    await auth.carry()
    assert len(await auth.legacy("SELECT 1 FROM users")) == 1
    assert len(await auth.new("SELECT 1 FROM users")) == 1


async def test_a_profile_is_read_and_changed_field_by_field(auth: Auth) -> None:
    headers = await auth.registered(**PROFILE)
    before = expect(await auth.client.get("/users/me", headers=headers), 200)
    changes: dict[str, Any] = {"city": None, "phone": "+44 20 1", "newsletter": False, "last_name": ""}
    after = expect(await auth.client.patch("/users/me", headers=headers, json=changes), 200)
    assert after == before | changes | {"updated_at": after["updated_at"]}
    assert after["updated_at"] is not None
    assert expect(await auth.client.get("/users/me", headers=headers), 200) == after

    old, new = await auth.both(after["id"])
    assert (old["city"], old["phone_no"], old["newsletter"], old["last_nm"]) == (None, "+44 20 1", 0, "")
    assert (new["city"], new["phone"], new["newsletter"], new["last_name"]) == (None, "+44 20 1", False, "")
    assert (old["first_nm"], new["first_name"]) == ("Zoë", "Zoë")


async def test_a_patch_that_changes_nothing_writes_nothing(auth: Auth) -> None:
    headers = await auth.registered(**PROFILE)
    await auth.carry()
    before = expect(await auth.client.get("/users/me", headers=headers), 200)
    for body in ({}, {"city": "Kraków"}):
        assert expect(await auth.client.patch("/users/me", headers=headers, json=body), 200) == before
    assert (await auth.manager.relay().run_once()).rows == 0


async def test_a_changed_password_counts_at_once_and_ends_every_session(auth: Auth) -> None:
    headers = await auth.registered()
    sessions = [(await auth.log_in())["refresh_token"] for _ in range(2)]
    body = {"current_password": PASSWORD, "new_password": "another long one"}
    expect(await auth.client.post("/users/me/password", headers=headers, json=body), 204)

    credentials = {"email": "ada@example.com", "password": PASSWORD}
    expect(await auth.client.post("/auth/login", json=credentials), 401)
    await auth.log_in(password="another long one")
    for token in sessions:
        expect(await auth.refresh(token), 401)
    user = expect(await auth.client.get("/users/me", headers=headers), 200)
    old, new = await auth.both(user["id"])
    assert old["pwd_hash"] == new["password_hash"]


async def test_a_wrong_current_password_changes_nothing(auth: Auth) -> None:
    headers = await auth.registered()
    body = {"current_password": "something else", "new_password": "another long one"}
    expect(await auth.client.post("/users/me/password", headers=headers, json=body), 403)
    await auth.log_in()


async def test_of_two_password_changes_at_once_one_succeeds(auth: Auth) -> None:
    headers = await auth.registered()
    wishes = ["first new password", "second new password"]
    answers = await asyncio.gather(
        *(
            auth.client.post(
                "/users/me/password",
                headers=headers,
                json={"current_password": PASSWORD, "new_password": wish},
            )
            for wish in wishes
        )
    )
    statuses = [answer.status_code for answer in answers]
    assert sorted(statuses) in ([204, 403], [204, 409])
    await auth.log_in(password=wishes[statuses.index(204)])


async def test_a_closed_account_opens_nothing(auth: Auth) -> None:
    headers = await auth.registered()
    token = (await auth.log_in())["refresh_token"]
    user = expect(await auth.client.get("/users/me", headers=headers), 200)
    expect(await auth.client.delete("/users/me", headers=headers), 204)

    credentials = {"email": "ada@example.com", "password": PASSWORD}
    expect(await auth.client.post("/auth/login", json=credentials), 403)
    expect(await auth.client.post("/auth/login", json=credentials | {"password": "wrong one"}), 401)
    expect(await auth.refresh(token), 403)
    expect(await auth.client.get("/users/me", headers=headers), 403)
    expect(await auth.client.delete("/users/me", headers=headers), 403)
    old, new = await auth.both(user["id"])
    assert (old["is_active"], new["is_active"]) == (0, False)


async def test_a_user_who_is_gone_is_nobody(auth: Auth) -> None:
    headers = await auth.registered()
    if auth.phase is Phase.DUALWRITE:
        await auth.legacy("DELETE FROM users")
    else:
        await auth.new("DELETE FROM users")
    expect(await auth.client.get("/users/me", headers=headers), 401)


@pytest.mark.parametrize("phase", [Phase.DUALWRITE, Phase.RAMPDOWN])
async def test_synchronous_writes_are_on_both_sides_when_the_call_returns(
    make_auth: MakeAuth, phase: Phase
) -> None:
    auth = await make_auth(phase, async_legacy=False)
    user = await auth.register()
    result = await auth.manager.update_user(user["id"], {"city": "Leeds"})
    assert result.success
    assert result.to_dict()["new_db_success"] is result.to_dict()["legacy_db_success"] is True
    assert (await auth.legacy("SELECT city FROM users"))[0]["city"] == "Leeds"
    assert (await auth.new("SELECT city FROM user_profiles"))[0]["city"] == "Leeds"


async def test_registrations_in_the_hour_that_comes_twice_stay_equal(auth: Auth) -> None:
    """00:30 and 01:30 UTC on that day are both 01:30 on the shop's clock."""
    for minute, email in ((0, "first@example.com"), (60, "second@example.com")):
        moment = datetime(2024, 10, 27, 0, 30, 0, 999, tzinfo=UTC) + timedelta(minutes=minute)
        auth.manager.clock = lambda moment=moment: moment  # type: ignore[misc]  # bound in the loop on purpose
        user = await auth.register(email)
        old, new = await auth.both(user["id"])
        assert old["reg_date"] == "2024-10-27 01:30:00"
        assert new["created_at"] == datetime(2024, 10, 27, 1, 30, tzinfo=UTC)


async def test_the_probe_is_carried_and_leaves_nothing(auth: Auth) -> None:
    entity, key = (await auth.manager.write("probe", auth.manager.write_probe)).unwrap()
    old, new = await auth.both(key[0])
    assert (old["is_active"], new["is_active"], old["pwd_hash"]) == (0, False, None)
    assert (await auth.manager.write("remove_probe", lambda uow: uow.delete(entity, key))).unwrap()
    await auth.carry()
    assert await auth.legacy("SELECT 1 FROM users") == await auth.new("SELECT 1 FROM users") == []
