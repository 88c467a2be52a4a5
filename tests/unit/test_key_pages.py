"""Keys that are read ahead: the same as when they are asked for chunk by chunk, with fewer looks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import pytest

from backend.shared.stores.key_pages import KeyPages

ENTITY = cast("Any", None)


class Keys:
    """A side with keys and nothing else, which counts how often it was asked."""

    def __init__(self, count: int) -> None:
        self.keys = [f"{number:04d}" for number in range(count)]
        self.looks = 0
        self.state = SimpleNamespace(keys_after=self._keys_after)

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        yield

    async def _keys_after(
        self, _connection: object, _entity: object, *, after: str | None, limit: int
    ) -> Any:
        self.looks += 1
        return [key for key in self.keys if after is None or key > after][:limit]


def pages(keys: Keys, *, chunk: int = 5, ahead: int = 4) -> KeyPages:
    return KeyPages(cast("Any", keys), ENTITY, chunk_keys=chunk, chunks_ahead=ahead)


async def walked(keys: Keys, ahead: KeyPages, *, chunk: int = 5) -> list[str]:
    found: list[str] = []
    while True:
        part = await ahead.after(found[-1] if found else None)
        found += part
        if len(part) < chunk:
            return found


@pytest.mark.parametrize("count", [0, 1, 5, 19, 20, 21, 40, 43])
async def test_a_walk_finds_every_key_once_with_a_look_a_page(count: int) -> None:
    keys = Keys(count)
    assert await walked(keys, pages(keys)) == keys.keys
    assert keys.looks == count // 20 + 1


async def test_a_walk_may_begin_anywhere_and_go_back() -> None:
    keys = Keys(60)
    ahead = pages(keys)
    assert await ahead.after("0030") == keys.keys[31:36]
    assert await ahead.after("0040x") == keys.keys[41:46], "a key that is not there any more"
    assert await ahead.after("0049") == keys.keys[50:55], "what lies beyond the page is looked for"
    assert await ahead.after(None) == keys.keys[:5]
    assert await ahead.after("0030") == keys.keys[31:36]


async def test_a_chunk_that_runs_over_the_page_is_whole() -> None:
    keys = Keys(60)
    ahead = pages(keys)
    await ahead.after(None)
    assert await ahead.after("0016") == keys.keys[17:22]
