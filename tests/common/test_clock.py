from __future__ import annotations

import time

import pytest

from common.clock import ticked, to_tick_s


def test_moments_are_the_same_for_everybody_and_each_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.3
    monkeypatch.setattr(time, "monotonic", lambda: now)
    assert to_tick_s(1.0) == pytest.approx(0.7) and to_tick_s(2.0) == pytest.approx(1.7)
    assert not ticked(1000.1, 1.0) and ticked(999.9, 1.0)
    now = 1001.0
    assert to_tick_s(1.0) == pytest.approx(1.0)  # and not 0: nobody waits for the moment that is
    assert ticked(1000.3, 1.0) and not ticked(1001.0, 1.0) and not ticked(1000.3, 2.0)
