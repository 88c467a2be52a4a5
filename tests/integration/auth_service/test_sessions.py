"""Logging in, staying in, and what the tokens say to others."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import jwt
import pytest
from argon2 import PasswordHasher

from backend.auth_service.app.core.settings import AuthSettings
from backend.auth_service.app.services.passwords import Passwords
from backend.shared import Phase
from backend.shared.api.errors import InvalidTokenError
from backend.shared.api.keys import JwksKeySource
from backend.shared.api.tokens import (
    Role,
    TokenIssuer,
    TokenType,
    TokenVerifier,
    generate_signing_key,
)
from tests.integration.auth_service.support import PASSWORD, Auth, expect


async def test_another_party_verifies_an_access_token_with_the_published_keys(auth: Auth) -> None:
    user = await auth.register(first_name="\tAda\u00a0", last_name="Lovelace")
    token = (await auth.log_in())["access_token"]
    answer = await auth.client.get("/.well-known/jwks.json")
    key_set = jwt.PyJWKSet.from_dict(expect(answer, 200))
    assert "max-age" in answer.headers["cache-control"]
    claims = jwt.decode(
        token,
        key_set[jwt.get_unverified_header(token)["kid"]],
        algorithms=["EdDSA"],
        audience="tandem",
        issuer="tandem-auth",
    )
    assert claims["sub"] == user["id"]
    assert (claims["role"], claims["name"], claims["active"], claims["typ"]) == (
        "user",
        "Ada Lovelace",
        True,
        "access",
    )
    assert claims["exp"] - claims["iat"] == 15 * 60
    assert all("d" not in key for key in (await auth.client.get("/.well-known/jwks.json")).json()["keys"])


async def test_the_other_services_verifier_takes_the_token(auth: Auth) -> None:
    user = await auth.register()
    token = (await auth.log_in())["access_token"]
    source = JwksKeySource("http://auth/.well-known/jwks.json", transport=httpx.ASGITransport(auth.app))
    verifier = TokenVerifier(source)
    principal = await verifier.verify(token)
    await verifier.aclose()
    # She gave no name, and an e-mail address is nobody else's business.
    assert (principal.subject, principal.role, principal.name) == (user["id"], Role.USER, user["id"])


async def test_a_log_in_may_be_typed_in_any_letter_case(auth: Auth) -> None:
    await auth.register("Ada@Example.com")
    answer = await auth.client.post("/auth/login", json={"email": "ada@EXAMPLE.com", "password": PASSWORD})
    tokens = expect(answer, 200)
    assert tokens["token_type"] == "Bearer"
    assert tokens["expires_in"] == 900
    assert answer.headers["cache-control"] == "no-store"


async def test_wrong_password_and_unknown_address_get_the_same_answer(
    auth: Auth, monkeypatch: pytest.MonkeyPatch
) -> None:
    await auth.register()
    checked: list[str] = []
    check = PasswordHasher.verify

    def counted(hasher: PasswordHasher, password_hash: str, password: str) -> bool:
        checked.append(password_hash.partition("$m=")[0])
        return check(hasher, password_hash, password)

    monkeypatch.setattr(PasswordHasher, "verify", counted)
    answers = []
    for email in ("ada@example.com", "nobody@example.com"):
        answer = await auth.client.post("/auth/login", json={"email": email, "password": "wrong password"})
        problem = expect(answer, 401)
        answers.append({name: problem[name] for name in ("type", "title", "detail")})
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert answers[0] == answers[1]
    assert checked == ["$argon2id$v=19"] * 2  # as much work for the one as for the other


FOREIGN_HASHES = (
    *(None, "", "sha1$00$1111", "$argon2id$garbage", "$argon2id$v=19$m=64,t=1,p=1$AAAA$", "plain"),
    "$2b$12$abcdefghijklmnopqrstuv",
)


async def test_a_legacy_user_without_a_hash_of_ours_cannot_log_in(auth: Auth) -> None:
    await auth.register()
    for kept in FOREIGN_HASHES:
        if auth.phase is Phase.DUALWRITE:
            await auth.legacy("UPDATE users SET pwd_hash = $1", kept)
        else:
            await auth.new("UPDATE users SET password_hash = $1", kept)
        for password in (PASSWORD, kept or "nobody", "nobody"):
            body = {"email": "ada@example.com", "password": password}
            expect(await auth.client.post("/auth/login", json=body), 401)


async def test_twins_that_differ_by_letter_case_log_in_as_typed(auth: Auth) -> None:
    """Legacy lets an old program make them; ours does not."""
    await auth.register("ada@example.com")
    if auth.phase is Phase.DUALWRITE:
        await auth.legacy(
            "INSERT INTO users (usr_id, login_email, pwd_hash, reg_date) "
            "SELECT 'twin', 'ADA@example.com', pwd_hash, reg_date FROM users"
        )
    else:
        await auth.new(
            "INSERT INTO users SELECT 'twin', 'ADA@example.com', password_hash, role, is_active, created_at FROM users"
        )
        await auth.new("INSERT INTO user_profiles (user_id, newsletter) VALUES ('twin', false)")
    await auth.carry()
    assert len(await auth.legacy("SELECT 1 FROM users")) == len(await auth.new("SELECT 1 FROM users")) == 2
    headers = await auth.bearer("ADA@example.com")
    assert expect(await auth.client.get("/users/me", headers=headers), 200)["id"] == "twin"
    headers = await auth.bearer("ada@example.com")
    assert expect(await auth.client.get("/users/me", headers=headers), 200)["id"] != "twin"
    body = {"email": "Ada@example.com", "password": PASSWORD}
    expect(await auth.client.post("/auth/login", json=body), 401)


async def test_a_refresh_token_is_exchanged_for_the_next(auth: Auth) -> None:
    await auth.register()
    first = await auth.log_in()
    second = expect(await auth.refresh(first["refresh_token"]), 200)
    third = expect(await auth.refresh(second["refresh_token"]), 200)
    assert len({first["refresh_token"], second["refresh_token"], third["refresh_token"]}) == 3
    headers = {"Authorization": f"Bearer {third['access_token']}"}
    expect(await auth.client.get("/users/me", headers=headers), 200)
    kept = await auth.new("SELECT token_hash FROM refresh_tokens")
    assert first["refresh_token"] not in str(kept)


async def test_a_refresh_token_used_twice_ends_the_family_and_no_other(auth: Auth) -> None:
    await auth.register()
    stolen, elsewhere = await auth.log_in(), await auth.log_in()
    successor = expect(await auth.refresh(stolen["refresh_token"]), 200)
    expect(await auth.refresh(stolen["refresh_token"]), 401)
    expect(await auth.refresh(successor["refresh_token"]), 401)
    expect(await auth.refresh(elsewhere["refresh_token"]), 200)


async def test_of_many_exchanges_of_one_token_at_once_one_succeeds_and_the_family_ends(auth: Auth) -> None:
    await auth.register()
    token = (await auth.log_in())["refresh_token"]
    answers = await asyncio.gather(*(auth.refresh(token) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] + [401] * 5
    successor = next(answer.json() for answer in answers if answer.status_code == 200)
    expect(await auth.refresh(successor["refresh_token"]), 401)


async def test_an_expired_refresh_token_is_refused_and_swept_away(auth: Auth) -> None:
    await auth.register()
    token = (await auth.log_in())["refresh_token"]
    await auth.new("UPDATE refresh_tokens SET expires_at = $1", datetime.now(tz=UTC) - timedelta(seconds=1))
    expect(await auth.refresh(token), 401)
    await auth.log_in()
    assert len(await auth.new("SELECT 1 FROM refresh_tokens")) == 1


async def test_a_password_changed_by_another_program_ends_sessions_too(auth: Auth) -> None:
    await auth.register()
    token = (await auth.log_in())["refresh_token"]
    if auth.phase is Phase.DUALWRITE:
        await auth.legacy("UPDATE users SET pwd_hash = pwd_hash || 'x'")
    else:
        await auth.new("UPDATE users SET password_hash = password_hash || 'x'")
    expect(await auth.refresh(token), 401)


async def test_logging_out_ends_the_session_and_may_be_repeated(auth: Auth) -> None:
    await auth.register()
    first = await auth.log_in()
    second = expect(await auth.refresh(first["refresh_token"]), 200)
    for token in (second["refresh_token"], second["refresh_token"], "unknown"):
        expect(await auth.client.post("/auth/logout", json={"refresh_token": token}), 204)
    expect(await auth.refresh(second["refresh_token"]), 401)


def _forged(token: str, **claims: Any) -> str:
    header, body, signature = token.split(".")
    said = json.loads(base64.urlsafe_b64decode(body + "=="))
    changed = base64.urlsafe_b64encode(json.dumps(said | claims).encode()).decode().rstrip("=")
    return f"{header}.{changed}.{signature}"


async def test_expired_and_forged_tokens_are_refused(auth: Auth, settings: AuthSettings) -> None:
    user = await auth.register()
    good = (await auth.log_in())["access_token"]
    ours = TokenIssuer.from_file(settings.signing_key_file)
    theirs = TokenIssuer(generate_signing_key())
    bad = {
        "expired": ours.issue(user["id"], role=Role.USER, lifetime=timedelta(seconds=-60)),
        "another key": theirs.issue(user["id"], role=Role.ADMIN),
        "promoted": _forged(good, role="admin"),
        "no signature": good.rpartition(".")[0] + ".",
        "algorithm none": jwt.encode({"sub": user["id"]}, "", algorithm="none"),
        "a refresh token": ours.issue(user["id"], role=Role.USER, token_type=TokenType.REFRESH),
        "another audience": TokenIssuer(settings.signing_key_file.read_bytes(), audience="else").issue(
            user["id"], role=Role.USER
        ),
        "nonsense": "x",
        "empty parts": "..",
    }
    for name, token in bad.items():
        answer = await auth.client.get("/users/me", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 401, name
        expect(answer, 401)
    expect(await auth.client.get("/users/me"), 401)
    expect(await auth.client.get("/users/me", headers={"Authorization": "Basic YTpi"}), 401)
    with pytest.raises(InvalidTokenError):
        await TokenVerifier(ours.key_source()).verify(bad["another key"])


async def test_a_full_queue_of_passwords_is_refused_at_once(
    auth: Auth, settings: AuthSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await auth.register()
    release = asyncio.Event()
    passwords: Passwords = auth.app.state.services.sessions._passwords
    loop = asyncio.get_running_loop()

    def wait(*_: object) -> bool:
        asyncio.run_coroutine_threadsafe(release.wait(), loop).result(20)
        return False

    monkeypatch.setattr(passwords, "_check", wait)
    monkeypatch.setattr(passwords, "_most", settings.hash_threads + 1)
    body = {"email": "ada@example.com", "password": PASSWORD}
    waiting = [
        asyncio.create_task(auth.client.post("/auth/login", json=body)) for _ in range(passwords._most)
    ]
    while passwords._under_way < passwords._most:  # noqa: ASYNC110 - who waits in the queue tells nobody
        await asyncio.sleep(0.01)
    answer = await auth.client.post("/auth/login", json=body)
    expect(answer, 503)
    assert answer.headers["retry-after"]
    release.set()
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {401}
    assert passwords._under_way == 0
