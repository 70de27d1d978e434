"""Rest while nobody is in view."""

import itertools

import pytest

from common.quiet import AFTER_S, Quiet

FRAME_S = 1 / 30


def run(quiet: Quiet, seconds: float, start_s: float = 0.0, anybody: bool = False) -> list[float]:
    """Show so many seconds of frames; the times of those that were looked at."""
    looked = []
    for number in range(round(seconds / FRAME_S)):
        at_s = start_s + number * FRAME_S
        if not quiet.skips(at_s):
            looked.append(at_s)
            quiet.seen(at_s, anybody)
    return looked


def test_an_empty_room_is_looked_at_now_and_then() -> None:
    quiet = Quiet(0.12)
    at_first = run(quiet, AFTER_S)
    assert len(at_first) == round(AFTER_S / FRAME_S)
    later = run(quiet, 10.0, start_s=AFTER_S + 1)
    assert 10 / 0.17 < len(later) <= 10 / 0.12 + 1
    assert max(b - a for a, b in itertools.pairwise(later)) <= 0.12 + FRAME_S


def test_every_frame_counts_while_somebody_is_there_and_for_a_while_after() -> None:
    quiet = Quiet(0.12)
    assert len(run(quiet, 20.0, anybody=True)) == 600
    assert len(run(quiet, AFTER_S - 0.1, start_s=20.0)) == round((AFTER_S - 0.1) / FRAME_S)


def test_whoever_comes_ends_the_rest_at_once() -> None:
    quiet = Quiet(0.12)
    run(quiet, 10.0)
    came = 10.0
    first = next(at for at in (came + n * FRAME_S for n in range(10)) if not quiet.skips(at))
    assert first - came <= 0.12 + FRAME_S
    quiet.seen(first, True)
    assert not any(quiet.skips(first + (n + 1) * FRAME_S) for n in range(30))


def test_a_clip_that_begins_again_is_looked_at() -> None:
    quiet = Quiet(0.12)
    run(quiet, 10.0)
    assert not quiet.skips(0.0)


@pytest.mark.parametrize("rate", [1, 5])
def test_a_slow_camera_is_looked_at_whenever_it_gives_a_picture(rate: int) -> None:
    quiet = Quiet(0.12)
    assert not any(quiet.skips(number / rate) for number in range(50))


def test_without_a_pause_nothing_is_left_out() -> None:
    assert len(run(Quiet(0.0), 10.0)) == 300
