"""A known face in a running clip has its name soon and no other, and is looked at as rarely as promised."""

from __future__ import annotations

import pytest

from bench.live import played, seen
from common.config import load


@pytest.mark.slow
def test_a_known_face_is_named_within_a_second_and_looked_at_rarely() -> None:
    found = seen(*played(load(environment={}), "woman.mp4"), "Wanda")
    assert found.faces > 60
    assert found.name_after_s is not None and found.name_after_s <= 1.0
    assert found.wrong == 0 and found.named > 0.9 * found.faces
    assert 1 <= found.early <= 3
    assert found.later is not None and found.later <= 1.0
