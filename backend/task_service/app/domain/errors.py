"""Trouble with a store, whatever kind it is."""

from __future__ import annotations

from backend.shared import TandemError


class StoreError(TandemError):
    """The store failed. The message names the kind of store and of trouble, and holds no password and no value of a row."""

    def __init__(self, message: str, *, store: str) -> None:
        super().__init__(f"{store}: {message}")
        self.reason = message
        self.store = store


class StoreUnavailableError(StoreError):
    """The store could not answer: lost connection, full pool, deadlocks one after the other. It may do so later."""


class StoreTimeoutError(StoreUnavailableError):
    """The store was reached, and did not answer in time. What was asked for may have been done all the same."""


class StoreRefusedError(StoreError):
    """The store refused the operation for a reason that no caller can mend: a table or a permission is missing."""
