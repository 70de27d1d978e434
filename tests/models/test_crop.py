"""The crop: where the square lies, and that what is cut is what lies there."""

import math
import time

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from models.crop import SIDE, SIZE, Square, cut, face_square, tilt

LEVEL = np.array([[40, 50], [80, 50], [60, 70], [45, 90], [75, 90]], dtype=np.float32)


def turned(points: NDArray[np.float32], degrees: float) -> NDArray[np.float32]:
    """Points turned clockwise (y points down) about (60, 70)."""
    angle = math.radians(degrees)
    matrix = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    middle = np.array([60, 70])
    return np.asarray((points - middle) @ matrix.T + middle, dtype=np.float32)


def disc(height: int, width: int, x: float, y: float, radius: float) -> NDArray[np.uint8]:
    """A white disc on black."""
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    return np.asarray((columns - x) ** 2 + (rows - y) ** 2 < radius**2, dtype=np.uint8) * np.uint8(255)


def test_the_square_surrounds_the_box() -> None:
    square = face_square((10.0, 20.0, 60.0, 80.0), LEVEL)
    assert (square.cx, square.cy) == (40.0, 60.0)
    assert square.side == pytest.approx(SIDE * 80)
    assert square.angle == pytest.approx(0.0)


@pytest.mark.parametrize("degrees", [-40, -10, 5, 30])
def test_the_tilt_is_that_of_the_eyes(degrees: float) -> None:
    assert tilt(turned(LEVEL, degrees)) == pytest.approx(degrees, abs=0.01)


def test_landmarks_upside_down_leave_the_square_upright() -> None:
    assert tilt(turned(LEVEL, 180)) == 0.0


@pytest.mark.parametrize("scale", [0.3, 1.0, 1.7, 3.3, 12.0])
def test_a_disc_lands_where_it_belongs_at_every_scale(scale: float) -> None:
    side = SIZE * scale
    picture = disc(1200, 1000, 500 + side / 4, 600 - side / 8, side / 10)
    face = cut(picture, Square(cx=500, cy=600, side=side))
    rows, columns = np.nonzero(face > 127)
    assert columns.mean() + 0.5 == pytest.approx(SIZE * 3 / 4, abs=0.6)
    assert rows.mean() + 0.5 == pytest.approx(SIZE * 3 / 8, abs=0.6)


@pytest.mark.parametrize("degrees", [-30.0, 20.0])
def test_a_turned_face_comes_out_upright(degrees: float) -> None:
    eyes = turned(LEVEL, degrees)
    picture = np.maximum(disc(140, 120, eyes[0][0], eyes[0][1], 4), disc(140, 120, eyes[1][0], eyes[1][1], 4))
    face = cut(picture, Square(cx=60, cy=70, side=100, angle=tilt(eyes)))
    count, _, _, centres = cv2.connectedComponentsWithStats((face > 127).astype(np.uint8))
    assert count == 3
    assert centres[1][1] == pytest.approx(centres[2][1], abs=0.7)


def test_what_lies_beyond_the_border_repeats_it() -> None:
    picture = np.full((100, 100), 50, dtype=np.uint8)
    picture[:, 0] = 200
    face = cut(picture, Square(cx=0, cy=50, side=64), 64)
    assert (face[:, :30] == 200).all()
    assert (face[:, 40:] == 50).all()


def test_a_square_wholly_outside_gives_the_nearest_border() -> None:
    picture = np.full((100, 100), 50, dtype=np.uint8)
    picture[:, -1] = 200
    assert (cut(picture, Square(cx=400, cy=50, side=64)) == 200).all()


def test_a_fine_pattern_becomes_grey_instead_of_aliasing() -> None:
    picture = np.zeros((900, 900), dtype=np.uint8)
    picture[:, ::2] = 255
    for side in (300, 700):
        face = cut(picture, Square(cx=450, cy=450, side=side))
        assert face.std() < 20
        assert face.mean() == pytest.approx(127, abs=6)


def test_colour_and_grey_pictures_agree() -> None:
    grey = np.random.default_rng(0).integers(0, 255, (200, 300), dtype=np.uint8)
    colour = cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR)
    square = Square(cx=140, cy=90, side=77, angle=12)
    assert np.abs(cut(grey, square).astype(int) - cut(np.asarray(colour, dtype=np.uint8), square)).max() <= 1


@pytest.mark.parametrize("side", [40, 150, 700])
def test_it_is_quick(side: float) -> None:
    picture = np.zeros((1080, 1920, 3), dtype=np.uint8)
    best = math.inf
    for _ in range(20):
        began = time.perf_counter()
        cut(picture, Square(cx=900, cy=500, side=side, angle=7))
        best = min(best, time.perf_counter() - began)
    assert best < 2e-3


def test_nonsense_is_refused_with_what_was_expected() -> None:
    with pytest.raises(ValueError, match="width and height above 0"):
        face_square((0.0, 0.0, 0.0, 5.0), None)
    with pytest.raises(ValueError, match="finite"):
        Square(cx=math.nan, cy=0, side=1)
    with pytest.raises(ValueError, match="side above 0"):
        Square(cx=0, cy=0, side=0)
    with pytest.raises(ValueError, match=r"landmarks \(5, 2\)"):
        tilt(np.zeros((4, 2)))
    with pytest.raises(ValueError, match="uint8"):
        cut(np.zeros((5, 5), dtype=np.float32), Square(cx=0, cy=0, side=1))


@pytest.mark.parametrize(("leans_deg", "turned_deg"), [(0, 0), (8, 0), (-10, 0), (25, 15), (-40, -30), (60, 0)])
def test_a_head_that_leans_a_little_is_left_so_and_one_that_leans_far_is_turned(
    leans_deg: int, turned_deg: int
) -> None:
    lean = np.deg2rad(leans_deg)
    turn = np.array([[np.cos(lean), np.sin(lean)], [-np.sin(lean), np.cos(lean)]], np.float32)
    points = np.array([[-20, -15], [20, -15], [0, 5], [-14, 25], [14, 25]], np.float32) @ turn + 100
    square = face_square((60.0, 50.0, 80.0, 100.0), points)
    assert square.angle == pytest.approx(turned_deg, abs=0.01)
    assert square.side == pytest.approx(100 * SIDE)
