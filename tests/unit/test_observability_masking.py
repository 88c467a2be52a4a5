"""No secret gets through, whatever it is wrapped in, and no text makes masking slow."""

from __future__ import annotations

import time

import pytest

from backend.shared.observability.masking import MASK, MAX_TEXT_LENGTH, is_secret_name, mask_text, mask_value

SECRET = "hunter2-Zx81"


@pytest.mark.parametrize(
    "text",
    [
        f"postgresql://shop:{SECRET}@db:5432/poc",
        f"cannot connect to postgresql+asyncpg://shop:{SECRET}@db/poc: refused",
        f"postgresql://shop:p@ss/{SECRET}:x@db/poc",
        f"postgresql://:{SECRET}@db/poc",
        f"cannot connect to mongodb://shop:{SECRET}@a:1,b:2/poc?replicaSet=x",
        f"mongodb+srv://shop:p@ss/{SECRET}@db/poc",
        f"mongodb://db/poc?tlsCertificateKeyFilePassword={SECRET}",
        f"mongodb://db/poc?authMechanismProperties=AWS_SESSION:{SECRET}",
        f'E11000 duplicate key error collection: d.users index: name_1 dup key: {{ name: "a\n{SECRET}" }}',
        f"Document failed validation, full error: {{'code': 121, 'consideredValue': '{SECRET}'}}",
        f"host=db user=shop password={SECRET} dbname=poc",
        f"password = '{SECRET} and a space'",
        f'{{"password": "{SECRET}", "email": "a@b.example"}}',
        f"{{'new_password': '{SECRET}'}}",
        f'{{"password": "x\\"{SECRET}"}}',
        f"GET /login?access_token={SECRET}&x=1",
        f"Authorization: Basic {SECRET}",
        f"authorization=Bearer {SECRET}",
        f"sent Bearer {SECRET}abcdefghijklmnopqrstuvwxyz",
        f"api_key={SECRET}",
        f"cookie: session={SECRET}",
        f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----",
        f"[SQL: INSERT INTO users VALUES ($1)]\n[parameters: ('a', '{SECRET}')]",
        f"DETAIL:  Failing row contains (1, a@b.example, {SECRET}, U).",
        f"hash was $argon2id$v=19$m=65536,t=3,p=4${SECRET.replace('-', '+')}$abc",
        f'password="{SECRET}',
    ],
)
def test_secret_in_text_is_masked(text: str) -> None:
    masked = mask_text(text)
    assert SECRET not in masked
    assert SECRET.replace("-", "+") not in masked


def test_token_in_text_is_masked() -> None:
    token = "eyJhbGciOiJFZERTQSJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
    assert token[10:] not in mask_text(f"refused {token}")


@pytest.mark.parametrize(
    "text",
    [
        "legacy side, cart 12: could not answer",
        "GET http://127.0.0.1:8001/.well-known/jwks.json",
        "password authentication failed for user shop",
        "key (17850) is already there",
        "",
    ],
)
def test_plain_text_is_left_alone(text: str) -> None:
    assert mask_text(text) == text


def test_the_rest_of_a_url_stays_readable() -> None:
    masked = mask_text("postgresql://shop:pw@db:5432/poc is down")
    assert masked == f"postgresql://shop:{MASK}@db:5432/poc is down"


def test_assignments_may_stay_in_sentences_for_people() -> None:
    assert (
        mask_text("password: at least 12 characters", assignments=False) == "password: at least 12 characters"
    )


@pytest.mark.parametrize(
    "name", ["password", "X-Api-Key", "newPassword", "refresh_token", "pwd_hash", "SECRET"]
)
def test_secret_names(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["key", "entity", "request_id", "side", "email"])
def test_other_names(name: str) -> None:
    assert not is_secret_name(name)


class _Leaky:
    def __str__(self) -> str:
        return f"Leaky(password={SECRET})"


def test_values_are_masked_at_every_depth() -> None:
    masked = mask_value(
        {
            "users": [{"name": "Ada", "password": SECRET, "tokens": [SECRET]}],
            "url": f"postgresql://u:{SECRET}@h/d",
            "object": _Leaky(),
            "pin_secret": 1234,
            "password": None,
            "has_token": True,
            "nan": float("nan"),
        }
    )
    assert SECRET not in str(masked)
    assert masked["users"][0]["name"] == "Ada"
    assert masked["pin_secret"] == MASK
    assert masked["password"] is None
    assert masked["has_token"] is True
    assert masked["nan"] == "nan"


def test_a_value_that_holds_itself_ends() -> None:
    loop: dict[str, object] = {}
    loop["self"] = loop
    assert "…" in str(mask_value(loop))


@pytest.mark.parametrize(
    "piece",
    [
        "://",
        "a://b:",
        "password=",
        "token:'",
        'token="',
        "eyJ-",
        "eyJabcd.",
        "bearer ",
        "-----BEGIN ",
        "$argon2",
        "a" * 99,
    ],
)
def test_masking_is_quick_on_hostile_text(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    began = time.perf_counter()
    masked = mask_text(text)
    assert time.perf_counter() - began < 1
    assert len(masked) <= MAX_TEXT_LENGTH * 2
