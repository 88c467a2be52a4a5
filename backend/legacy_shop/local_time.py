"""The shop's wall clock. The old tables keep some times as text on it, the others in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

LONDON = ZoneInfo("Europe/London")
TEXT_FORMAT = "%Y-%m-%d %H:%M:%S"


def wall_clock_text(moment: datetime) -> str:
    """A UTC moment (naive) as the wall clock showed it."""
    return moment.replace(tzinfo=UTC).astimezone(LONDON).strftime(TEXT_FORMAT)


def is_skipped(local: datetime) -> bool:
    """True for a time that no clock showed: the hour left out in spring."""
    there = local.replace(tzinfo=LONDON)
    return there.astimezone(UTC).astimezone(LONDON).replace(tzinfo=None) != local


def is_doubled(local: datetime) -> bool:
    """True for a time that the clocks showed twice: the hour repeated in autumn."""
    if is_skipped(local):
        return False
    return local.replace(tzinfo=LONDON).utcoffset() != local.replace(tzinfo=LONDON, fold=1).utcoffset()


def to_utc(local: datetime) -> datetime:
    """The moment of a wall clock time, UTC and naive.

    PostgreSQL's `AT TIME ZONE` must say the same of the same text, so its choices are taken: a doubled hour means winter
    time, a skipped one is read with the winter offset.
    """
    fold = 1 if is_doubled(local) else 0
    return local.replace(tzinfo=LONDON, fold=fold).astimezone(UTC).replace(tzinfo=None)
