"""Whatever a caller sends is answered with a 4xx and leaves both sides as they were."""

from __future__ import annotations

from typing import Any

from backend.auth_service.app.core.dual_write_manager import AuthDualWriteManager
from tests.integration.auth_service.support import PASSWORD, Auth, expect

GOOD = {"email": "ada@example.com", "password": PASSWORD}
EMAILS: list[Any] = [
    *("", "ada", "ada@", "@example.com", "ada@example", "ada example.com", "ada@@example.com"),
    *("ada@exam ple.com", ".ada@example.com", "ada.@example.com", "a..da@example.com", "ada@-example.com"),
    *("ada@example.com\n", " ada@example.com", "ada@example..com", "adä@example.com", "ada@exämple.com"),
    *("ada\u0000@example.com", "x" * 250 + "@example.com", None, 7, True, [], {}, "ada@example.com\u0000"),
]
PASSWORDS: list[Any] = [
    "",
    "short",
    "123456789",
    "x" * 201,
    "with\u0000nul inside",
    None,
    1234567890,
    ["x" * 12],
]
PROFILES: list[dict[str, Any]] = [
    {"first_name": "x" * 101},
    {"first_name": "\u0000"},
    {"last_name": "nul\u0000inside"},
    {"last_name": 1},
    {"phone": "1" * 41},
    {"address_line": "x" * 201},
    {"city": ["Leeds"]},
    {"country": {}},
    {"newsletter": None},
    {"newsletter": 1},
    {"newsletter": "yes"},
    {"role": "admin"},
    {"is_active": False},
    {"id": "17850"},
]


async def _refused(auth: Auth, body: Any, path: str = "/users", **arguments: Any) -> str:
    answer = await auth.client.request(arguments.pop("method", "POST"), path, json=body, **arguments)
    assert expect(answer, 422)["errors"]
    return answer.text


async def test_a_registration_that_cannot_be_is_refused(auth: Auth) -> None:
    for email in EMAILS:
        await _refused(auth, GOOD | {"email": email})
    for password in PASSWORDS:
        text = await _refused(auth, GOOD | {"password": password})
        assert not isinstance(password, str) or len(password) < 6 or password not in text
    for profile in PROFILES:
        await _refused(auth, GOOD | profile)
    bodies: list[Any] = [{}, [], None, "x", 7, {"email": "ada@example.com"}, {"password": PASSWORD}]
    for body in bodies:
        await _refused(auth, body)
    assert await auth.legacy("SELECT 1 FROM users") == await auth.new("SELECT 1 FROM users") == []


async def test_a_profile_that_cannot_be_is_refused(auth: Auth) -> None:
    headers = await auth.registered()
    for profile in [*PROFILES, {"email": "eve@example.com"}, {"password": "another long one"}]:
        await _refused(auth, profile, "/users/me", method="PATCH", headers=headers)
    assert expect(await auth.client.get("/users/me", headers=headers), 200)["updated_at"] is None


BODIES = [
    b'{"email": "ada@example.com", "password": "\\ud800 a lone surrogate"}',
    b'{"email": "ada@example.com", "password": "good enough", "city": "\\udc00"}',
    b'{"email": "ada@example.com", "password": "good enough", "\\ud800": 1}',
    b'{"email": "ada@example.com", "password": NaN}',
    b'{"email": "ada@example.com", "password": "good enough"',
    b'{"email": "ada@example.com", "password": "good enough"} trailing',
    b"\xff\xfe",
    b"",
    b"[" * 50_000,
]


async def test_a_body_that_is_no_sound_json_is_refused(auth: Auth) -> None:
    headers = {"Content-Type": "application/json"}
    for path in ("/users", "/auth/login", "/auth/refresh"):
        for body in BODIES:
            answer = await auth.client.post(path, content=body, headers=headers)
            assert answer.status_code in {400, 422}, answer.text
            expect(answer, answer.status_code)


async def test_a_huge_body_is_refused(auth: Auth) -> None:
    expect(await auth.client.post("/users", json=GOOD | {"city": "x" * 2_000_000}), 413)
    await _refused(auth, GOOD | {"city": "x" * 1_000_000})


async def test_the_longest_that_is_allowed_is_kept(auth: Auth) -> None:
    profile = {
        "first_name": "\U0001d538" * 100,
        "last_name": "ß" * 100,
        "phone": "1" * 40,
        "address_line": "'\\\"%$1:x\t\n" * 18,
        "city": "\u202e\u200d" * 50,
        "country": "É" * 100,
    }
    label = "x" * 63
    email = f"{'y' * 60}@{label}.{label}.{label}.c"
    assert len(email) == 254
    body = GOOD | profile | {"email": email, "password": "🐘" * 200}
    user = expect(await auth.client.post("/users", json=body), 201)
    assert {name: user[name] for name in profile} == profile
    await auth.log_in(email, "🐘" * 200)
    old, new = await auth.both(user["id"])
    assert {name: new[name] for name in profile} == profile
    assert (old["addr_line"], old["first_nm"], old["login_email"]) == (
        profile["address_line"],
        profile["first_name"],
        email,
    )


async def test_a_log_in_or_token_that_cannot_be_is_refused(auth: Auth) -> None:
    for email in ("", None, 7, "x" * 256, "a\u0000b"):
        await _refused(auth, GOOD | {"email": email}, "/auth/login")
    for password in ("", None, 7, "x" * 201, "a\u0000b"):
        await _refused(auth, GOOD | {"password": password}, "/auth/login")
    await _refused(auth, GOOD | {"remember": True}, "/auth/login")
    for path in ("/auth/refresh", "/auth/logout"):
        for token in ("", None, 7, "x" * 201, "a\u0000b", "ä", "a b"):
            await _refused(auth, {"refresh_token": token}, path)
    expect(await auth.refresh("x" * 43), 401)


async def test_a_password_change_or_role_that_cannot_be_is_refused(auth: Auth) -> None:
    headers = await auth.admin()
    other = await auth.register()
    for password in PASSWORDS:
        body = {"current_password": PASSWORD, "new_password": password}
        await _refused(auth, body, "/users/me/password", headers=headers)
    for role in ("", "root", "ADMIN", None, 1, ["admin"]):
        await _refused(auth, {"role": role}, f"/users/{other['id']}/role", method="PUT", headers=headers)


QUERIES = [
    *("limit=0", "limit=201", "limit=x", "limit=99999999999999999999", "cursor=x", "cursor=%00", "role=root"),
    *("status=on", "search=%00", "search=", "email=", "email=a%00b", "search=" + "x" * 101),
    "cursor=WyJ1c2VycyIsIDFd",
]


async def test_a_listing_that_cannot_be_is_refused(auth: Auth) -> None:
    headers = await auth.admin()
    for query in QUERIES:
        answer = await auth.client.get(f"/users?{query}", headers=headers)
        assert answer.status_code in {404, 422}, answer.text
        expect(answer, answer.status_code)


async def test_ids_with_control_characters_are_refused(auth: Auth) -> None:
    headers = await auth.admin()
    for weird in ("%00", "a%0ab", "a" * 201):
        expect(await auth.client.get(f"/users/{weird}", headers=headers), 422)
        expect(await auth.client.post(f"/users/{weird}/deactivate", headers=headers), 422)


async def test_other_methods_are_told_so(auth: Auth) -> None:
    expect(await auth.client.put("/users", json={}), 405)
    expect(await auth.client.get("/auth/login"), 405)
    expect(await auth.client.get("/nowhere"), 404)
    expect(await auth.client.get("/users/"), 404)


async def test_the_document_tells_of_every_refusal(auth: Auth) -> None:
    document = expect(await auth.client.get("/openapi.json"), 200)
    for path, item in document["paths"].items():
        for method, operation in item.items():
            told = set(operation["responses"])
            if "security" in operation:
                assert {"401", "403", "503"} <= told, (method, path)
            if "requestBody" in operation:
                assert {"413", "422"} <= told, (method, path)
    login = document["paths"]["/auth/login"]["post"]["responses"]
    assert {"200", "401", "403", "422", "503"} <= set(login)
    assert {"201", "409", "422"} <= set(document["paths"]["/users"]["post"]["responses"])
    assert document["components"]["schemas"]["RegisterRequest"]["properties"]["password"]["minLength"] == 10


def test_the_manager_can_be_made_before_anything_connects() -> None:
    assert AuthDualWriteManager.service == "auth"
    names = [entity.name for entity in AuthDualWriteManager.entities()]
    assert names == ["user", "event", "inbox", "dead_letter"]
