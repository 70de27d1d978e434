"""The pace: never more often than said, and as often as can be."""

from hypothesis import given
from hypothesis import strategies as st

from common.pace import Pace


@given(st.floats(0.001, 1), st.lists(st.floats(0, 0.5), max_size=60))
def test_two_times_are_never_closer_and_none_is_missed_for_longer(every_s: float, steps: list[float]) -> None:
    pace, now, last = Pace(every_s), 0.0, None
    for step in steps:
        now += step
        if pace.due(now):
            assert last is None or now - last >= every_s
            last = now
        else:
            assert last is not None and now - last < every_s


def test_without_a_pace_it_is_always_time() -> None:
    assert all(Pace(0.0).due(at_s) for at_s in (0.0, 0.0, 1.0))
