from __future__ import annotations

import contextlib

import cv2
import numpy as np
import pytest

from common import jpeg
from common.messages import MessageError
from tests.showing import photo


def test_a_picture_comes_back_with_its_size_and_nearly_its_pixels() -> None:
    data = jpeg.encode(photo(640, 360), 90)
    assert jpeg.size(data) == (640, 360)
    back = jpeg.decode(memoryview(data), 640, 360)
    assert np.abs(back.astype(int) - photo(640, 360)).mean() < 4


def test_a_picture_of_another_size_than_was_said_is_refused_before_it_is_decoded() -> None:
    with pytest.raises(MessageError, match="640×360 was expected, one of 320×180 came"):
        jpeg.decode(jpeg.encode(photo(320, 180), 80), 640, 360)


@pytest.mark.parametrize(
    "damage", [b"", b"\xff\xd8", b"not a picture at all", b"\xff\xd8\xff\xe0\x00\x10JFIF", b"\x00" * 5000]
)
def test_what_is_no_jpeg_is_refused(damage: bytes) -> None:
    with pytest.raises(MessageError, match="JPEG"):
        jpeg.decode(damage, 640, 360)


def test_a_jpeg_that_claims_a_gigantic_size_costs_no_memory() -> None:
    data = bytearray(jpeg.encode(photo(64, 64), 80))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = b"\xff\xdc\xff\xdc"  # 65500 × 65500: 12 GB of pixels
    with pytest.raises(MessageError, match="65500×65500"):
        jpeg.size(bytes(data))


def test_no_random_damage_gets_through_as_another_error() -> None:
    good = jpeg.encode(photo(64, 48), 80)
    random = np.random.default_rng(7)
    for _ in range(300):
        data = bytearray(good)
        for at in random.integers(0, len(data), 20):
            data[at] = random.integers(0, 256)
        cut = bytes(data[: random.integers(0, len(data) + 1)])
        with contextlib.suppress(MessageError):
            assert jpeg.decode(cut, 64, 48).shape == (48, 64, 3)


def test_a_grey_jpeg_becomes_a_colour_picture() -> None:
    done, data = cv2.imencode(".jpg", photo(64, 48)[:, :, 0])
    assert done and jpeg.decode(data.tobytes(), 64, 48).shape == (48, 64, 3)
