"""Transactions of MongoDB, one interleaving each: conflicts are repeated, a commit without answer never is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import AutoReconnect, OperationFailure, PyMongoError, WaitQueueTimeoutError

from backend.shared.domain.outages import Outage
from backend.shared.domain.phases import Side
from backend.shared.stores.errors import (
    describe,
    is_connection_loss,
    is_repeatable,
    is_unreachable,
    says_nothing_of_a_commit,
    to_side_error,
)
from backend.shared.stores.mongo.errors import UnknownCommitError
from backend.shared.stores.mongo.limits import DocumentLimits
from backend.shared.stores.mongo.transactions import COMMIT_ATTEMPTS, Client, run_transaction
from backend.shared.testing.document_servers import DocumentServer
from tests.support.document_clients import PoolWatch, connected, direct, told_of
from tests.support.proxy import CuttableWire, cuttable_wire
from tests.support.steps import PauseAt, Watch

COMMIT = b"commitTransaction\x00"


class Adding:
    """A transaction's work: add one to the counter. Counts how often it was called."""

    def __init__(self, client: Client) -> None:
        self.counters = client.get_default_database().counters
        self.called = 0

    async def __call__(self, session: AsyncClientSession) -> int:
        self.called += 1
        found = await self.counters.find_one({"_id": 1}, session=session)
        assert found is not None
        update = {"$set": {"n": found["n"] + 1}}
        await self.counters.update_one({"_id": 1}, update, session=session, comment="adding")
        return int(found["n"]) + 1

    async def total(self) -> int:
        found = await self.counters.find_one({"_id": 1})
        assert found is not None
        return int(found["n"])


@pytest.fixture
async def client(document_url: str) -> AsyncIterator[Client]:
    async with connected(document_url) as made:
        await made.get_default_database().counters.insert_one({"_id": 1, "n": 0})
        yield made
        # A transaction whose commit never arrived would hold its documents for a minute.
        await made.admin.command("killAllSessions", [])


@pytest.fixture
async def wire(client: Client, document_url: str) -> AsyncIterator[CuttableWire]:
    """A wire to the same database that can be cut where a commit is sent."""
    async with cuttable_wire(direct(document_url), marker=COMMIT) as made:
        yield made


async def test_what_was_done_is_there_and_the_result_comes_back(client: Client) -> None:
    watch, adding = Watch(), Adding(client)
    assert await run_transaction(client, adding, hook=watch) == 1
    assert await adding.total() == 1
    assert watch.steps == ["transaction_begun", "before_commit"]


async def test_other_writer_commits_between_write_and_commit(client: Client) -> None:
    first, second = Adding(client), Adding(client)
    held, watch = PauseAt("before_commit"), Watch()
    holding = asyncio.create_task(run_transaction(client, first, hook=held))
    await held.reached.wait()

    async def first_goes_on(step: str) -> None:
        await watch(step)
        if step == "transaction_conflicted":
            held.resume.set()
            await holding

    assert await run_transaction(client, second, hook=first_goes_on) == 2
    assert await holding == 1
    assert (first.called, second.called) == (1, 2)
    assert await second.total() == 2
    assert watch.steps.count("transaction_conflicted") == 1


async def test_other_writer_commits_between_read_and_write(client: Client) -> None:
    """The snapshot is older than the other's commit: no update is lost."""
    adding, other = Adding(client), Adding(client)
    between = asyncio.Event()

    async def work(session: AsyncClientSession) -> int:
        found = await adding.counters.find_one({"_id": 1}, session=session)
        if not between.is_set():
            between.set()
            await run_transaction(client, other)
        assert found is not None
        assert await adding.counters.find_one({"_id": 1}, session=session) == found, "one snapshot"
        return await adding(session)

    assert await run_transaction(client, work) == 2
    assert await adding.total() == 2
    assert adding.called == 2


@pytest.mark.parametrize("attempts", [1, 3])
async def test_holder_never_lets_go(client: Client, attempts: int) -> None:
    held = PauseAt("before_commit")
    holding = asyncio.create_task(run_transaction(client, Adding(client), hook=held))
    await held.reached.wait()
    adding, watch = Adding(client), Watch()
    with pytest.raises(OperationFailure) as caught:
        await run_transaction(client, adding, attempts=attempts, hook=watch)
    assert adding.called == attempts
    assert watch.steps.count("transaction_conflicted") == attempts - 1
    assert to_side_error(caught.value, Side.NEW).outage is Outage.CONTENDED
    held.resume.set()
    assert await holding == 1
    assert await adding.total() == 1


async def test_pool_is_full(client: Client, document_url: str) -> None:
    """Having waited once for a connection is enough."""
    held, watch = PauseAt("before_commit"), PoolWatch()
    holding = asyncio.create_task(run_transaction(client, Adding(client), hook=held))
    await held.reached.wait()
    async with connected(document_url, watch=watch, max_pool_size=1, wait_queue_timeout_ms=100) as narrow:
        adding = Adding(narrow)
        waiting = asyncio.create_task(adding.counters.update_one({"_id": 1}, {"$set": {"n": 7}}))
        await watch.taken.wait()
        with pytest.raises(WaitQueueTimeoutError):
            await run_transaction(narrow, adding)
        assert adding.called == 1
        held.resume.set()
        await asyncio.gather(holding, waiting)


async def test_work_fails(client: Client) -> None:
    adding = Adding(client)

    async def work(session: AsyncClientSession) -> None:
        await adding(session)
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        await run_transaction(client, work)
    assert adding.called == 1
    assert await adding.total() == 0
    assert await run_transaction(client, adding) == 1, "nothing is held any longer"


async def test_cancelled_before_commit(client: Client) -> None:
    adding, pause = Adding(client), PauseAt("before_commit")
    task = asyncio.create_task(run_transaction(client, adding, hook=pause))
    await pause.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await run_transaction(client, adding) == 1, "nothing is held any longer"


async def test_connection_lost_at_the_write(client: Client, document_url: str) -> None:
    async with (
        cuttable_wire(direct(document_url), marker=b"adding") as wire,
        connected(wire.url) as far,
    ):
        adding = Adding(far)
        wire.cut = "after"
        assert await run_transaction(far, adding) == 1
        assert wire.cuts == 1
        assert adding.called == 2
        assert await adding.total() == 1


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("cuts", [1, 2, 3])
async def test_commit_answer_lost_and_asked_again(wire: CuttableWire, when: str, cuts: int) -> None:
    async with connected(wire.url) as far:
        adding = Adding(far)
        wire.cut, wire.left = when, cuts
        assert await run_transaction(far, adding) == 1
        assert wire.cuts == cuts
        assert adding.called == 1
        assert await adding.total() == 1


@pytest.mark.parametrize(("when", "kept"), [("before", 0), ("after", 1)])
async def test_commit_answer_lost_each_time(wire: CuttableWire, when: str, kept: int) -> None:
    watch = Watch()
    async with connected(wire.url) as far:
        adding = Adding(far)
        wire.cut, wire.left = when, 1000
        with pytest.raises(UnknownCommitError, match="outcome unknown") as caught:
            await run_transaction(far, adding, hook=watch)
        wire.cut = None
        assert watch.steps.count("commit_unanswered") == COMMIT_ATTEMPTS - 1
        assert wire.cuts == 2 * COMMIT_ATTEMPTS, "the driver asks twice each time"
        assert adding.called == 1, "it may have been done"
        assert await adding.total() == kept
    await _assert_unknown(caught.value)
    cause = caught.value.__cause__
    assert isinstance(cause, AutoReconnect)
    assert not is_connection_loss(cause), "who repeats after a loss must not repeat this"


async def test_commit_answer_lost_and_the_transaction_forgotten(
    wire: CuttableWire, document_server: DocumentServer
) -> None:
    """A server that knows no such transaction says nothing of one whose commit it may have had."""
    steps: list[str] = []

    async def restart(step: str) -> None:
        steps.append(step)
        if step == "commit_unanswered":
            await asyncio.to_thread(document_server.kill9)
            await asyncio.to_thread(document_server.start)

    async with connected(wire.url) as far:
        adding = Adding(far)
        wire.cut, wire.left = "before", 2
        with pytest.raises(UnknownCommitError) as caught:
            await run_transaction(far, adding, hook=restart)
    assert adding.called == 1
    assert steps.count("commit_unanswered") == 1
    assert isinstance(caught.value.__cause__, OperationFailure), "the server did answer: no such transaction"
    await _assert_unknown(caught.value)


async def test_commit_answer_lost_to_the_driver_itself_and_the_transaction_forgotten(
    client: Client, wire: CuttableWire
) -> None:
    """The driver asks a second time by itself, and hides that the first time went without answer."""
    async with connected(wire.url) as far:
        adding = Adding(far)
        killed = asyncio.Event()

        async def end_its_session(step: str) -> None:
            if step == "before_commit" and not killed.is_set():
                killed.set()
                wire.cut = "before"
                await client.admin.command("killAllSessions", [])

        with pytest.raises(UnknownCommitError):
            await run_transaction(far, adding, hook=end_its_session)
        assert wire.cuts == 1
        assert adding.called == 1


async def test_server_frozen_at_the_commit(client: Client, document_server: DocumentServer) -> None:
    adding = Adding(client)

    async def freeze(step: str) -> None:
        if step == "before_commit":
            document_server.suspend()

    began = time.monotonic()
    try:
        with pytest.raises(UnknownCommitError) as caught:
            await run_transaction(client, adding, limits=DocumentLimits(max_time_ms=300), hook=freeze)
    finally:
        document_server.resume()
    assert time.monotonic() - began < 10
    assert adding.called == 1
    assert is_unreachable(caught.value)
    await _assert_unknown(caught.value)


async def _assert_unknown(error: PyMongoError) -> None:
    """No one who goes by the error's kind runs the work again, and a caller is told of a 504."""
    assert says_nothing_of_a_commit(error)
    assert not is_repeatable(error)
    assert not is_connection_loss(error)
    assert "outcome unknown" in describe(error)
    told = await told_of(error)
    assert (told.status, told.outage) == (504, Outage.NO_ANSWER)


def test_at_least_one_attempt() -> None:
    async def never(_session: AsyncClientSession) -> Any:
        raise AssertionError

    async def ask() -> None:
        async with connected("mongodb://127.0.0.1:1/poc") as nowhere:
            await run_transaction(nowhere, never, attempts=0)

    with pytest.raises(ValueError, match="at least one"):
        asyncio.run(ask())
