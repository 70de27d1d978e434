"""How near people in general are: near where faces are many, and never one person's own embedding."""

from __future__ import annotations

import numpy as np
import pytest

from models import background
from models.runtime import ModelError
from models.train.background import SMALLEST, grouped


def crowd_of(count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    rng = np.random.default_rng(0)
    thick = rng.normal(size=(count // 2, 128)) * 0.02
    thin = rng.normal(size=(count // 2, 128)) * 0.06 + 0.08
    return np.concatenate([thick, thin]).astype(np.float32)


def test_it_comes_close_to_the_mean_distance_to_the_nearest() -> None:
    faces = crowd_of(2000)
    made = grouped(faces, 32)
    for query in (faces[3], faces[1500]):
        nearest = np.sort(np.linalg.norm(faces - query, axis=1))[: round(background.NEAREST * len(faces))].mean()
        assert made.crowd(query[None])[0] == pytest.approx(nearest, rel=0.25)
    thick, thin = made.crowd(faces[[3, 1500]])
    assert thick < 0.5 * thin


def test_no_group_is_so_small_that_its_middle_is_somebody() -> None:
    faces = np.concatenate([crowd_of(400), 5 + np.eye(3, 128, dtype=np.float32)])
    made = grouped(faces, 24)
    assert made.shares.min() * len(faces) >= SMALLEST - 1e-3 and made.shares.sum() == pytest.approx(1)


def test_the_shipped_one_is_of_many_people() -> None:
    shipped = background.shipped()
    assert shipped.middles.shape[1:] == (128,) and len(shipped.middles) >= 32
    assert shipped.shares.sum() == pytest.approx(1, abs=1e-3)
    own = shipped.crowd(shipped.middles)
    assert (own > 0.3).all() and (own < 0.9).all()


def test_a_missing_file_is_told(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "WEIGHTS", background.WEIGHTS.with_name("nowhere.npz"))
    background.shipped.cache_clear()
    with pytest.raises(ModelError, match="nowhere"):
        background.shipped()
    background.shipped.cache_clear()
