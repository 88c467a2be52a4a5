"""Cursors: what was given out is taken back; anything else is the caller's mistake."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st

from backend.shared.api.pagination import (
    MAX_CURSOR_LENGTH,
    CursorType,
    CursorValue,
    DepPage,
    Page,
    PageRequest,
    decode_cursor,
    encode_cursor,
)
from backend.shared.api.problems import install_problem_handlers
from backend.shared.domain.errors import ValidationError


@pytest.mark.parametrize(
    ("values", "types"),
    [
        ((7,), (int,)),
        (("SKU-1", 7), (str, int)),
        (("naïve / ? & =",), (str,)),
        ((Decimal("12.30"), 1), (Decimal, int)),
        ((datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),), (datetime,)),
        ((datetime(2026, 1, 2, tzinfo=timezone(timedelta(hours=-5))),), (datetime,)),
    ],
)
def test_a_cursor_comes_back_as_it_was(
    values: tuple[CursorValue, ...], types: tuple[CursorType, ...]
) -> None:
    cursor = encode_cursor(values, listing="products")
    assert decode_cursor(cursor, listing="products", types=types) == values
    assert "=" not in cursor


def _cursor(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode(errors="surrogatepass")).decode().rstrip("=")


@pytest.mark.parametrize(
    ("cursor", "types"),
    [
        ("", (int,)),
        ("x", (int,)),
        ("é", (int,)),
        ("!!!!", (int,)),
        (_cursor("[" * 900), (int,)),
        (_cursor('["orders", 7]'), (int,)),
        (_cursor('["products"]'), (int,)),
        (_cursor('["products", 7, 8]'), (int,)),
        (_cursor('["products", "7"]'), (int,)),
        (_cursor('["products", true]'), (int,)),
        (_cursor('["products", 7.5]'), (int,)),
        (_cursor('["products", 9223372036854775808]'), (int,)),
        (_cursor('["products", ' + "9" * 5000 + "]"), (int,)),
        (_cursor('["products", NaN]'), (int,)),
        (_cursor('["products", 7]'), (str,)),
        (_cursor('["products", "a\\u0000b"]'), (str,)),
        (_cursor('["products", "\\ud800"]'), (str,)),
        (_cursor('["products", "2026-01-02T03:04:05"]'), (datetime,)),
        (_cursor('["products", "yesterday"]'), (datetime,)),
        (_cursor('["products", "NaN"]'), (Decimal,)),
        (_cursor('["products", "1e99999"]'), (Decimal,)),
        (_cursor('["products", "1e-99999"]'), (Decimal,)),
        (_cursor('["products", "x"]'), (Decimal,)),
        (_cursor('{"products": 7}'), (int,)),
    ],
)
def test_another_cursor_is_refused(cursor: str, types: tuple[CursorType, ...]) -> None:
    with pytest.raises(ValidationError):
        decode_cursor(cursor, listing="products", types=types)


@given(
    st.text(max_size=100) | st.binary(max_size=100).map(lambda raw: base64.urlsafe_b64encode(raw).decode())
)
def test_no_text_fails_otherwise(cursor: str) -> None:
    with pytest.raises(ValidationError):
        decode_cursor(cursor, listing="products", types=(int, str))


def test_pages_follow_each_other_to_the_end() -> None:
    rows = list(range(1, 8))
    seen: list[int] = []
    request = PageRequest(limit=3)
    while True:
        after = request.after("numbers", types=(int,))
        start = int(str(after[0])) if after else 0
        page = request.page(
            [row for row in rows if row > start][:4], listing="numbers", key=lambda row: (row,)
        )
        seen += page.items
        if page.next_cursor is None:
            break
        request = PageRequest(limit=3, cursor=page.next_cursor)
    assert seen == rows


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    app = FastAPI()
    install_problem_handlers(app)

    @app.get("/numbers")
    async def numbers(request: DepPage) -> Page[int]:
        after = request.after("numbers", types=(int,))
        start = int(str(after[0])) if after else 0
        rows = list(range(start + 1, start + 1 + request.limit + 1))
        return request.page(rows, listing="numbers", key=lambda row: (row,))

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as made:
        yield made


async def test_over_http(client: httpx.AsyncClient) -> None:
    first = (await client.get("/numbers", params={"limit": 2})).json()
    assert first["items"] == [1, 2]
    second = (await client.get("/numbers", params={"limit": 2, "cursor": first["next_cursor"]})).json()
    assert second["items"] == [3, 4]
    assert len((await client.get("/numbers")).json()["items"]) == 50


@pytest.mark.parametrize(
    "params",
    [
        {"limit": 0},
        {"limit": 201},
        {"limit": "x"},
        {"cursor": "nonsense"},
        {"cursor": "x" * (MAX_CURSOR_LENGTH + 1)},
    ],
)
async def test_bad_parameters_are_a_422(client: httpx.AsyncClient, params: dict[str, Any]) -> None:
    response = await client.get("/numbers", params=params)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
