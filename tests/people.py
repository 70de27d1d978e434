"""Made-up people and a data directory of one's own, for the tests of what is known of people."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from sqlalchemy import update

from common import media
from common.people import Reference
from common.schema import REFERENCE
from common.store import Store

Floats = NDArray[np.float32]


def face_of(person: int, look: int = 0, spread: float = 0.25) -> Floats:
    """One look at a made-up person, (128,): looks of one are 0.35 apart, people 0.8, as the network's are."""
    middle = np.random.default_rng(0).normal(size=128)
    own = np.random.default_rng(1000 + person).normal(size=128)
    this = np.random.default_rng((person, look)).normal(size=128)
    common = 1.3 * middle / np.linalg.norm(middle)
    embedding = common + 0.57 * own / np.linalg.norm(own) + spread * this / np.linalg.norm(this)
    return embedding.astype(np.float32)


def reference(person: int, look: int = 0, quality: float = 0.9) -> Reference:
    """The same as something to enrol, with a crop that is a JPEG."""
    crop = b"\xff\xd8\xff\xe0 a picture of somebody \xff\xd9"
    return Reference(embedding=face_of(person, look), crop=crop, source=f"photo {look}", quality=quality)


def damage(store: Store, person: int) -> None:
    """Spoil somebody's references in the store, as a bad block of a disk does."""
    with store.write() as connection:
        spoilt = update(REFERENCE).where(REFERENCE.c.person_id == person).values(embedding=b"\0" * 540)
        connection.execute(spoilt)


def frame_of(name: str, number: int) -> NDArray[np.uint8]:
    """One frame of a sample clip, (H, W, 3) uint8 BGR."""
    capture = cv2.VideoCapture(str(media.sample(name)))
    try:
        for _ in range(number + 1):
            ok, frame = capture.read()
            assert ok, f"{name} has no frame {number}"
        return np.asarray(frame, np.uint8)
    finally:
        capture.release()


def own_data_dir(path: Path) -> Path:
    """A data directory that holds nobody, with the sample media and the compiled models of the usual one."""
    media.fetch()
    path.mkdir(parents=True, exist_ok=True)
    for name in ("samples", "compiled", "crowd"):
        source = media.data_dir() / name
        source.mkdir(exist_ok=True)
        if (path / name).exists():
            continue  # the same run, started again
        if os.name == "posix":
            (path / name).symlink_to(source)
        else:
            shutil.copytree(source, path / name)
    return path
