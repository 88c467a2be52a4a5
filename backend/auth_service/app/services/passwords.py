"""Passwords: argon2id in threads of their own, so that nobody waits for them who has none to check."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import argon2
from argon2.exceptions import InvalidHashError, VerificationError

from ..core.settings import AuthSettings
from .errors import OverloadedError

T = TypeVar("T")


class Passwords:
    """Hashes and checks passwords. At most `hash_threads` at a time; `hash_queue_length` wait, all others are refused.

    Whoever makes one closes it.
    """

    def __init__(self, settings: AuthSettings) -> None:
        self._hasher = argon2.PasswordHasher(
            time_cost=settings.hash_passes, memory_cost=settings.hash_memory_kib, parallelism=1
        )
        self._threads = ThreadPoolExecutor(settings.hash_threads, thread_name_prefix="argon2")
        self._most = settings.hash_threads + settings.hash_queue_length
        self._under_way = 0
        # Somebody has to be checked also where there is nobody: else the time of an answer tells who is registered.
        self._nobody = self._hasher.hash("nobody")

    async def hash(self, password: str) -> str:
        """The argon2id hash of a password, with its parameters and a new salt."""
        return await self._in_thread(lambda: self._hasher.hash(password))

    async def matches(self, password: str, *, password_hash: str | None) -> bool:
        """Whether `password` is the one behind `password_hash`; never for None or a hash of another kind.

        A False takes as long for a missing hash as for a wrong password.
        """
        return await self._in_thread(lambda: self._check(password, password_hash))

    @staticmethod
    def can_check(password_hash: str | None) -> bool:
        """Whether this is a hash of the kind that is made here."""
        return password_hash is not None and password_hash.startswith("$argon2id$")

    def _check(self, password: str, password_hash: str | None) -> bool:
        known = self.can_check(password_hash)
        try:
            self._hasher.verify(password_hash if known and password_hash else self._nobody, password)
        except InvalidHashError:
            self._check(password, None)
            return False
        except VerificationError:
            return False
        return known

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._under_way >= self._most:
            raise OverloadedError("too many passwords are being checked")
        self._under_way += 1
        future = asyncio.get_running_loop().run_in_executor(self._threads, work)
        # Not when the caller goes away: the thread goes on with her work all the same.
        future.add_done_callback(self._done)
        return await asyncio.shield(future)

    def _done(self, future: asyncio.Future[T]) -> None:
        self._under_way -= 1
        if not future.cancelled():
            future.exception()  # its caller may be gone, and nobody else would look

    async def aclose(self) -> None:
        """Let go of the threads; whoever still waits is cancelled."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def fingerprint(password_hash: str | None) -> str:
    """What a session remembers of the password that it was opened with: equal as long as the hash is the same."""
    return hashlib.sha256(f"credential:{password_hash}".encode()).hexdigest()[:32]
