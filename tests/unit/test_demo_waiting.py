from __future__ import annotations

import asyncio

import pytest

from backend.demo.waiting import all_to_the_end, to_the_end


async def test_a_value_comes_through() -> None:
    assert await to_the_end(asyncio.sleep(0, "done")) == "done"


async def test_an_error_comes_through() -> None:
    async def fail() -> None:
        raise ValueError("planted")

    with pytest.raises(ValueError, match="planted"):
        await to_the_end(fail())


async def test_two_cancellations_do_not_cut_it_short() -> None:
    go, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        await go.wait()
        ended.set()

    task = asyncio.create_task(to_the_end(work()))
    for _ in range(2):
        await asyncio.sleep(0)
        task.cancel()
    await asyncio.sleep(0)
    assert not task.done()

    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_an_error_behind_a_cancellation_stays_behind_it() -> None:
    go = asyncio.Event()

    async def fail() -> None:
        await go.wait()
        raise ValueError("planted")

    task = asyncio.create_task(to_the_end(fail()))
    await asyncio.sleep(0)
    task.cancel()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_of_one_comes_out_when_the_others_have_ended() -> None:
    others = asyncio.Event()
    ended = False

    async def fail() -> None:
        raise ValueError("the port is taken")

    async def work() -> None:
        nonlocal ended
        await others.wait()
        ended = True

    task = asyncio.create_task(all_to_the_end([fail(), work()]))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not task.done()
    others.set()
    with pytest.raises(ValueError, match="port"):
        await task
    assert ended
