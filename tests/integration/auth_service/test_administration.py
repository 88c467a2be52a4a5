"""What admins may do with the accounts of others, and who is no admin."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from backend.auth_service.app.core.settings import AuthSettings
from backend.auth_service.app.entities import User, UserRole
from backend.auth_service.app.repositories import UserRepository
from backend.auth_service.app.services.first_admin import AdminOutcome, ensure_admin
from backend.auth_service.app.services.passwords import Passwords
from backend.shared.api.tokens import TokenIssuer
from tests.integration.auth_service.support import PASSWORD, Auth, expect


async def _ids(auth: Auth, headers: dict[str, str], **filters: Any) -> list[str]:
    found = expect(await auth.client.get("/users", headers=headers, params=filters), 200)
    return [user["email"] for user in found["items"]]


async def test_users_are_listed_page_by_page(auth: Auth) -> None:
    headers = await auth.admin()
    everyone = {(await auth.register(f"user{n}@example.com"))["id"] for n in range(6)}
    seen: list[str] = []
    cursor = None
    for _ in range(10):
        params = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = expect(await auth.client.get("/users", headers=headers, params=params), 200)
        assert len(page["items"]) <= 3
        seen += [user["id"] for user in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == sorted(seen)
    assert everyone < set(seen)
    assert len(seen) == len(set(seen)) == 7


async def test_the_listing_is_narrowed(auth: Auth) -> None:
    headers = await auth.admin()
    await auth.register("Ada@example.com", first_name="100% Ada")
    await auth.register("bob@example.com", last_name="Under_score")
    closed = await auth.register("carl@example.com")
    (await auth.manager.deactivate_user(closed["id"])).unwrap()
    assert await _ids(auth, headers, email="ADA@example.com") == ["Ada@example.com"]
    assert await _ids(auth, headers, search="0% a") == ["Ada@example.com"]
    assert await _ids(auth, headers, search="r_s") == ["bob@example.com"]
    assert await _ids(auth, headers, search="BOB@") == ["bob@example.com"]
    assert await _ids(auth, headers, role="admin") == ["root@example.com"]
    assert await _ids(auth, headers, status="deactivated") == ["carl@example.com"]
    assert len(await _ids(auth, headers, status="active", role="user")) == 2
    assert await _ids(auth, headers, search="nobody") == []


async def test_a_user_is_read_barred_and_let_in_again(auth: Auth) -> None:
    headers = await auth.admin()
    user = await auth.register()
    hers = await auth.bearer()
    path = f"/users/{user['id']}"
    assert expect(await auth.client.get(path, headers=headers), 200) == user
    for _ in range(2):
        barred = expect(await auth.client.post(f"{path}/deactivate", headers=headers), 200)
        assert barred["is_active"] is False
    expect(await auth.client.get("/users/me", headers=hers), 403)
    old, new = await auth.both(user["id"])
    assert (old["is_active"], new["is_active"]) == (0, False)
    for _ in range(2):
        open_again = expect(await auth.client.post(f"{path}/reactivate", headers=headers), 200)
        assert open_again["is_active"] is True
    expect(await auth.client.get("/users/me", headers=hers), 200)
    old, new = await auth.both(user["id"])
    assert (old["is_active"], new["is_active"]) == (1, True)


async def test_a_barred_users_sessions_stay_ended(auth: Auth) -> None:
    headers = await auth.admin()
    user = await auth.register()
    token = (await auth.log_in())["refresh_token"]
    expect(await auth.client.post(f"/users/{user['id']}/deactivate", headers=headers), 200)
    expect(await auth.client.post(f"/users/{user['id']}/reactivate", headers=headers), 200)
    expect(await auth.refresh(token), 401)


async def test_a_role_given_or_taken_counts_at_once(auth: Auth) -> None:
    headers = await auth.admin()
    user = await auth.register()
    hers = await auth.bearer()
    path = f"/users/{user['id']}/role"
    expect(await auth.client.get("/users", headers=hers), 403)
    promoted = expect(await auth.client.put(path, headers=headers, json={"role": "admin"}), 200)
    assert promoted["role"] == "admin"
    old, new = await auth.both(user["id"])
    assert (old["role_cd"], new["role"]) == ("A", "admin")
    hers = await auth.bearer()
    expect(await auth.client.get("/users", headers=hers), 200)
    expect(await auth.client.put(path, headers=headers, json={"role": "user"}), 200)
    expect(await auth.client.get("/users", headers=hers), 403)  # whatever her token still says
    old, new = await auth.both(user["id"])
    assert (old["role_cd"], new["role"]) == ("U", "user")


async def test_an_admin_cannot_lock_herself_out(auth: Auth) -> None:
    headers = await auth.admin()
    me = expect(await auth.client.get("/users/me", headers=headers), 200)
    expect(await auth.client.post(f"/users/{me['id']}/deactivate", headers=headers), 409)
    expect(await auth.client.put(f"/users/{me['id']}/role", headers=headers, json={"role": "user"}), 409)


ROUTES = [
    ("GET", "/users", None),
    ("GET", "/users/{id}", None),
    ("POST", "/users/{id}/deactivate", None),
    ("POST", "/users/{id}/reactivate", None),
    ("PUT", "/users/{id}/role", {"role": "admin"}),
    ("GET", "/dual-write/status", None),
    ("GET", "/dual-write/failures", None),
]


async def test_users_and_strangers_are_kept_out(auth: Auth) -> None:
    headers = await auth.registered()
    victim = await auth.register("victim@example.com")
    for method, path, body in ROUTES:
        url = path.format(id=victim["id"])
        expect(await auth.client.request(method, url, headers=headers, json=body), 403)
        expect(await auth.client.request(method, url, json=body), 401)


async def test_another_service_may_read_and_no_more(auth: Auth, settings: AuthSettings) -> None:
    user = await auth.register()
    token = TokenIssuer.from_file(settings.signing_key_file).service_token("cart")
    headers = {"Authorization": f"Bearer {token}"}
    path = f"/users/{user['id']}"
    assert expect(await auth.client.get(path, headers=headers), 200) == user
    expect(await auth.client.get("/users", headers=headers), 200)
    expect(await auth.client.get("/dual-write/status", headers=headers), 200)
    expect(await auth.client.post(f"{path}/deactivate", headers=headers), 403)
    expect(await auth.client.get("/users/me", headers=headers), 403)


WEIRD = ("nobody", "0", "%2e%2e", "%F0%9F%90%98", "' OR 1=1 --", "a" * 200, "%25", "null")


async def test_an_unknown_user_is_not_found(auth: Auth) -> None:
    headers = await auth.admin()
    for weird in WEIRD:
        path = f"/users/{weird}"
        expect(await auth.client.get(path, headers=headers), 404)
        expect(await auth.client.post(f"{path}/deactivate", headers=headers), 404)
        expect(await auth.client.post(f"{path}/reactivate", headers=headers), 404)
        expect(await auth.client.put(f"{path}/role", headers=headers, json={"role": "user"}), 404)


async def test_the_first_admin_is_made_once(auth: Auth, settings: AuthSettings) -> None:
    passwords = Passwords(settings)

    async def ensure(password: str = PASSWORD) -> AdminOutcome:
        return await ensure_admin(auth.manager, "root@example.com", password=password, passwords=passwords)

    assert await ensure() is AdminOutcome.CREATED
    assert await ensure("some other password") is AdminOutcome.UNCHANGED
    headers = await auth.bearer("root@example.com")
    me = expect(await auth.client.get("/users/me", headers=headers), 200)
    assert me["role"] == "admin"
    (await auth.manager.set_role(me["id"], UserRole.USER)).unwrap()
    (await auth.manager.deactivate_user(me["id"])).unwrap()
    assert await ensure("some other password") is AdminOutcome.CHANGED
    headers = await auth.bearer("root@example.com")  # her password has stayed
    expect(await auth.client.get("/users", headers=headers), 200)
    old, new = await auth.both(me["id"])
    assert (old["role_cd"], old["is_active"]) == ("A", 1)
    assert (new["role"], new["is_active"]) == ("admin", True)
    await passwords.aclose()


async def test_two_admins_bar_each_other_at_the_same_time(
    auth: Auth, *, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sees the other one still there; one is refused for what the other did, looks again, and stays."""
    both_have_looked, looked = asyncio.Barrier(2), 0
    look = UserRepository.is_only_admin

    async def look_together(repository: UserRepository, user: User) -> bool:
        nonlocal looked
        answer = await look(repository, user)
        looked += 1
        if looked <= 2:
            await both_have_looked.wait()
        return answer

    headers = [await auth.admin(f"{name}@example.com") for name in ("ann", "bea")]
    me = [expect(await auth.client.get("/users/me", headers=hers), 200)["id"] for hers in headers]
    monkeypatch.setattr(UserRepository, "is_only_admin", look_together)
    done = await asyncio.gather(
        *(
            auth.client.post(f"/users/{other}/deactivate", headers=hers)
            for hers, other in zip(headers, reversed(me), strict=True)
        )
    )
    assert sorted(answer.status_code for answer in done) == [200, 409]
    active = [(await auth.both(number))[1]["is_active"] for number in me]
    assert sorted(active) == [False, True]


async def test_the_only_admin_closes_no_account_of_her_own(auth: Auth) -> None:
    headers = await auth.admin()
    expect(await auth.client.delete("/users/me", headers=headers), 409)
    other = await auth.admin("other@example.com")
    expect(await auth.client.delete("/users/me", headers=headers), 204)
    expect(await auth.client.get("/users", headers=other), 200)
