"""Tracks on the crowd scene against its truth: ids that moved, ids a person, at several frame rates.

    python bench/tracking.py [--long-side 512]

The detector runs once; then each tracker gets the same detections. norfair, a tracker library, is compared where it is
installed (``pip install norfair``).
"""

from __future__ import annotations

import argparse
import importlib.util
import random
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.truth import Found, score
from common import crowd
from common.sources import open_source
from common.tracks import Tracker
from models import appearance
from models.detector import FaceDetector

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Seen:
    """What the detector gave for one frame."""

    frame: int
    media_time_s: float
    boxes: Floats
    scores: Floats
    appearances: Floats


def detections(long_side: int) -> list[Seen]:
    """Run the detector over the whole scene."""
    detector = FaceDetector(input_long_side=long_side)
    source = open_source("demo:crowd", loop=False)
    source.open()
    seen: list[Seen] = []
    while (picture := source.read()) is not None:
        found = detector.detect(picture.pixels)
        looks = [appearance.describe(picture.pixels, box) for box in found.boxes]
        stacked = np.array(looks, np.float32).reshape(-1, appearance.SIZE)
        seen.append(Seen(len(seen), picture.media_time_s, found.boxes, found.scores, stacked))
    source.close()
    return seen


Update = Callable[[Seen], list[Found]]


def own() -> Update:
    tracker = Tracker()

    def update(seen: Seen) -> list[Found]:
        tracks, _ = tracker.update(seen.media_time_s, seen.boxes, seen.scores, seen.appearances)
        pairs = zip(seen.boxes, tracks, strict=True)
        return [(tuple(map(float, box)), track.id) for box, track in pairs if track is not None]

    return update


def norfair(frames_per_s: float) -> Update:
    library: Any = __import__("norfair")
    tracker = library.Tracker(
        distance_function="iou",
        distance_threshold=0.7,
        hit_counter_max=round(3 * frames_per_s),
        initialization_delay=0,
    )

    def update(seen: Seen) -> list[Found]:
        given = [
            library.Detection(np.array([box[:2], box[:2] + box[2:]]), data=tuple(map(float, box))) for box in seen.boxes
        ]
        return [(o.last_detection.data, o.id) for o in tracker.update(given) if o.last_detection in given]

    return update


def thinned(seen: list[Seen], way: str) -> Iterator[Seen]:
    """Drop frames as a busy machine would."""
    chance = random.Random(1)
    for item in seen:
        if way.startswith("every") and item.frame % int(way.split()[1]):
            continue
        if way.endswith("% lost") and chance.random() < float(way.split()[0]) / 100:
            continue
        yield item


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--long-side", type=int, default=512, help="detector input, pixels")
    arguments = parser.parse_args()
    truth, seen = crowd.truth(), detections(arguments.long_side)
    table = Table("tracker", "frames", "recall", "ids that moved", "ids / people", title="tracks on demo:crowd")
    for way, rate in (("every 1", 30.0), ("every 2", 15.0), ("every 3", 10.0), ("30 % lost", 20.0), ("75 % lost", 8.0)):
        trackers = {"own": own()}
        if importlib.util.find_spec("norfair") is not None:
            trackers["norfair"] = norfair(rate)
        for name, update in trackers.items():
            found = score({item.frame: update(item) for item in thinned(seen, way)}, truth)
            people = found.ids_per_person
            table.add_row(
                name, way, f"{found.recall:.4f}", str(found.id_switches), f"{sum(people.values())} / {len(people)}"
            )
    Console().print(table)


if __name__ == "__main__":
    main()
