"""Transactions of MongoDB: run again after a conflict, asked again when the answer to a commit was lost."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pymongo
import structlog
from pymongo import AsyncMongoClient, ReadPreference, WriteConcern
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from .errors import (
    UNKNOWN_COMMIT,
    UnknownCommitError,
    describe,
    has_label,
    is_repeatable,
    says_nothing_of_a_commit,
    sqlstate_of,
)
from .limits import DocumentLimits

T = TypeVar("T")
Client = AsyncMongoClient[dict[str, Any]]
Work = Callable[[AsyncClientSession], Awaitable[T]]
Hook = Callable[[str], Awaitable[None]]

ATTEMPTS = 5
COMMIT_ATTEMPTS = 3
_ABORT_SECONDS = 5.0
_MAX_TIME_EXPIRED = "mongo:50"

log = structlog.get_logger(__name__)


async def no_hook(_step: str) -> None:
    """Nothing; tests put a pause or a crash here."""


async def run_transaction(
    client: Client,
    work: Work[T],
    *,
    attempts: int = ATTEMPTS,
    limits: DocumentLimits | None = None,
    hook: Hook = no_hook,
) -> T:
    """What `work` returns, once all that it did in its session is committed by a majority and on disk.

    `work` reads one snapshot, and may be called `attempts` times: after a write conflict or a lost connection, with
    jittered back-off, from a new snapshot. It passes its session on with every operation, and neither commits nor aborts. Any
    other error of its own aborts the transaction and is raised. The commit is tried `COMMIT_ATTEMPTS` times, and together
    these take `max_time_ms` at most; then `UnknownCommitError` is raised: it may have been done, so `work` is not called again.

    Steps for `hook`: `transaction_begun`, `before_commit`, `transaction_conflicted` (it will be run again),
    `commit_unanswered` (it will be asked again).
    """
    limits = limits or DocumentLimits()
    async with client.start_session() as session:
        for run in range(1, attempts + 1):
            try:
                return await _attempt(session, work, limits=limits, hook=hook)
            except PyMongoError as error:
                if run == attempts or not is_repeatable(error):
                    raise
                log.info("transaction_repeated", run=run, error=describe(error))
            await hook("transaction_conflicted")
            await _back_off(run)
    raise ValueError("a transaction needs at least one attempt")


async def _attempt(session: AsyncClientSession, work: Work[T], *, limits: DocumentLimits, hook: Hook) -> T:
    await session.start_transaction(
        read_concern=ReadConcern("snapshot"),
        write_concern=WriteConcern("majority", j=True),
        read_preference=ReadPreference.PRIMARY,
        max_commit_time_ms=limits.max_time_ms,
    )
    try:
        await hook("transaction_begun")
        result = await work(session)
        await hook("before_commit")
    except BaseException:
        await _abort(session)
        raise
    await _commit(session, seconds=limits.max_time_ms / 1000, hook=hook)
    return result


async def _commit(session: AsyncClientSession, *, seconds: float, hook: Hook) -> None:
    """Commit. Raises an error that is repeatable only if certainly nothing was kept."""
    unanswered: BaseException | None = None
    try:
        async with asyncio.timeout(seconds):
            for run in range(1, COMMIT_ATTEMPTS + 1):
                try:
                    await session.commit_transaction()
                except PyMongoError as error:
                    # The driver asks a second time by itself. After a first time without answer even "there is no such
                    # transaction" is none: it may have been done, and forgotten.
                    if (
                        unanswered is None
                        and _sent_count(session) <= 1
                        and not says_nothing_of_a_commit(error)
                    ):
                        raise
                    unanswered = error
                    log.warning("commit_unanswered", run=run, error=describe(error))
                    if run == COMMIT_ATTEMPTS or not _may_be_asked_again(error):
                        break
                else:
                    return
                await hook("commit_unanswered")
                await _back_off(run)
    except TimeoutError as error:
        unanswered = unanswered or error
    raise UnknownCommitError from unanswered


def _may_be_asked_again(error: PyMongoError) -> bool:
    """Whether another commit may bring an answer: this one brought none, and its time is not over."""
    return has_label(error, UNKNOWN_COMMIT) and sqlstate_of(error) != _MAX_TIME_EXPIRED


def _sent_count(session: AsyncClientSession) -> int:
    """How often the present transaction's commit was sent, as far as the driver tells."""
    return int(getattr(getattr(session, "_transaction", None), "attempt", 1))


async def _abort(session: AsyncClientSession) -> None:
    """Abort, if the server hears it in time; if not, it does so by itself when the transaction has lived too long."""
    if session.in_transaction:
        with pymongo.timeout(_ABORT_SECONDS):
            await session.abort_transaction()


async def _back_off(run: int) -> None:
    await asyncio.sleep(random.uniform(0.5, 1.0) * 0.02 * 2**run)  # noqa: S311 - jitter


__all__ = ["ATTEMPTS", "COMMIT_ATTEMPTS", "Client", "Hook", "Work", "no_hook", "run_transaction"]
