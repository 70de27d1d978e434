"""Rest while nobody is in view."""

import itertools

import cv2
import numpy as np
import pytest

from common.motion import Motion
from common.quiet import AFTER_S, LATE_S, Quiet

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


def test_where_looks_are_not_answered_any_more_nobody_knows_that_the_room_is_empty() -> None:
    quiet = Quiet(0.12, 0.5)
    run(quiet, 10.0)
    frames = [10.0 + number * FRAME_S for number in range(300)]
    left_out = [at for at in frames if quiet.skips(at)]
    assert 10.0 + LATE_S < max(left_out) < 10.0 + LATE_S + 0.6
    assert not quiet.nobody(frames[-1])
    quiet.seen(frames[-1], False)  # it is back
    assert quiet.skips(frames[-1] + FRAME_S)


def test_without_a_pause_nothing_is_left_out() -> None:
    assert len(run(Quiet(0.0), 10.0)) == 300


def test_while_nothing_moves_looks_are_rarer_and_what_moves_is_not_forgotten_between_two_looks() -> None:
    quiet = Quiet(0.12, 0.5)
    run(quiet, AFTER_S + 1)
    frames = [AFTER_S + 1 + number * FRAME_S for number in range(300)]
    looked = []
    for at in frames:
        if not quiet.skips(at, moving=False):
            looked.append(at)
            quiet.seen(at, False)
    assert 18 <= len(looked) <= 20
    assert max(b - a for a, b in itertools.pairwise(looked)) <= 0.5 + FRAME_S
    began = looked[-1] + 10
    assert not quiet.skips(began, moving=False)
    quiet.seen(began, False)
    # Something moves in one frame only, too soon after the last look: the next look comes as if it still did.
    following = [began + (number + 1) * FRAME_S for number in range(10)]
    first = next(at for number, at in enumerate(following) if not quiet.skips(at, moving=number == 0))
    assert first - began <= 0.12 + FRAME_S


def test_what_moves_is_told_from_noise_and_slow_light() -> None:
    random = np.random.default_rng(3)
    room = cv2.GaussianBlur(random.integers(0, 255, (360, 640, 3), np.uint8), (0, 0), 6)
    motion = Motion()

    def seen(at_s: float, light: float = 0.0, face: bool = False) -> bool:
        noisy = room + random.normal(0, 6, room.shape) + light
        if face:
            noisy[100:120, 300:320] += 30
        return motion.moved(np.clip(noisy, 0, 255).astype(np.uint8), at_s)

    assert seen(0.0)  # there was nothing to compare with
    assert not any(seen(number * FRAME_S, light=number * 0.1) for number in range(1, 120))
    assert seen(4.0, light=12.0, face=True)
    assert not seen(4.0 + FRAME_S, light=12.0, face=True)
    assert seen(4.0 + 2 * FRAME_S, light=12.0)
    assert seen(0.1)  # a clip begins again


@pytest.mark.parametrize("size", [(1, 1), (3, 700), (2160, 3840)])
def test_pictures_of_any_size_can_be_compared(size: tuple[int, int]) -> None:
    motion = Motion()
    dark = np.zeros((*size, 3), np.uint8)
    assert motion.moved(dark, 0.0)
    assert not motion.moved(dark, 0.1)
    assert motion.moved(dark + np.uint8(90), 0.2)
    assert motion.moved(np.zeros((7, 7, 3), np.uint8), 0.3)  # another size of picture
