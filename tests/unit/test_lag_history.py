from __future__ import annotations

import pytest

from backend.shared import measuring
from backend.shared.measuring import LagHistory


class Clock:
    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(measuring, "time", made)
    return made


def test_a_peak_that_is_older_than_the_window_does_not_count(clock: Clock) -> None:
    history = LagHistory()
    history.add(9.0)
    clock.now += 4
    history.add(0.5)

    assert history.highest_within(3) == 0.5
    assert history.highest_within(5) == 9.0
    assert history.seconds == 4


def test_a_minute_is_kept(clock: Clock) -> None:
    history = LagHistory()
    history.add(9.0)
    clock.now += 61
    history.add(0.5)

    assert history.highest_within(120) == 0.5
    assert history.seconds == 60
