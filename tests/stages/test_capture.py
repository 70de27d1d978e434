"""How a camera's pictures travel."""

from __future__ import annotations

from typing import Any

import pytest

from common.config import load
from stages.capture import encoding


@pytest.mark.parametrize(
    ("endpoints", "camera", "expected"),
    [
        ({}, {}, "raw"),
        ({"host": "ward-server"}, {}, "jpeg"),
        ({"host": "ward-server"}, {"encoding": "raw"}, "raw"),
        # The camera is beside the conductor, and the workers are not: each picture would cross the net as it is.
        ({"host": "ward-server", "frames": "ipc:///run/mien/frames"}, {}, "jpeg"),
        ({"frames": "tcp://127.0.0.1:5565", "jobs": "tcp://127.0.0.1:5566"}, {}, "raw"),
        ({}, {"encoding": "jpeg"}, "jpeg"),
    ],
)
def test_pictures_are_jpeg_where_any_part_of_their_way_is_between_machines(
    endpoints: dict[str, Any], camera: dict[str, Any], expected: str
) -> None:
    config = load(overrides={"endpoints": endpoints, "cameras": {"door": camera}}, environment={})
    assert encoding(config, "door") == expected
