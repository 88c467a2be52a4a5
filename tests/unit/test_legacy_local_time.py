from __future__ import annotations

from datetime import datetime

import pytest

from backend.legacy_shop.local_time import is_doubled, is_skipped, to_utc, wall_clock_text


@pytest.mark.parametrize(
    ("local", "utc"),
    [
        ("2011-01-10 08:26:00", "2011-01-10 08:26:00"),
        ("2011-07-10 08:26:00", "2011-07-10 07:26:00"),
        ("2011-10-30 00:59:59", "2011-10-29 23:59:59"),
        ("2011-10-30 01:30:00", "2011-10-30 01:30:00"),
        ("2011-03-27 01:30:00", "2011-03-27 01:30:00"),
        ("2011-03-27 02:00:00", "2011-03-27 01:00:00"),
    ],
)
def test_wall_clock_times_become_utc(local: str, utc: str) -> None:
    assert to_utc(datetime.fromisoformat(local)) == datetime.fromisoformat(utc)


def test_the_hour_left_out_in_spring_is_known() -> None:
    assert [is_skipped(datetime.fromisoformat(f"2011-03-27 0{hour}:30:00")) for hour in (0, 1, 2)] == [
        False,
        True,
        False,
    ]


def test_the_hour_repeated_in_autumn_is_known() -> None:
    assert [is_doubled(datetime.fromisoformat(f"2011-10-30 0{hour}:30:00")) for hour in (0, 1, 2)] == [
        False,
        True,
        False,
    ]


def test_utc_moments_show_as_the_clock_did() -> None:
    assert wall_clock_text(datetime.fromisoformat("2024-07-01 23:30:15.999999")) == "2024-07-02 00:30:15"
    assert wall_clock_text(datetime.fromisoformat("2024-12-01 23:30:15")) == "2024-12-01 23:30:15"
