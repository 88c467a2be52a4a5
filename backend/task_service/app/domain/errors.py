"""Trouble with a store, whatever kind it is."""

from __future__ import annotations

from backend.shared import TandemError
from backend.shared.domain.outages import Outage


class StoreError(TandemError):
    """The store failed. The message names the kind of store and of trouble, and holds no password and no value of a row."""

    def __init__(self, message: str, *, store: str) -> None:
        super().__init__(f"{store}: {message}")
        self.reason = message
        self.store = store


class StoreUnavailableError(StoreError):
    """The store could not answer, for a reason that says nothing of the data. It may do so later.

    After `Outage.NO_ANSWER` what was asked for may have been done all the same.
    """

    def __init__(self, message: str, *, store: str, outage: Outage) -> None:
        super().__init__(message, store=store)
        self.outage = outage


class StoreRefusedError(StoreError):
    """The store holds something that no caller can mend: what is there does not fit."""
