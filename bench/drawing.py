"""What it costs to show a picture: drawing eight faces at 1280×720, the whole window, the preview's JPEG.

    python bench/drawing.py

CPU milliseconds of one thread, median of 50.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import jpeg
from common.drawing import annotate
from common.expressions import EXPRESSIONS
from common.media import sample
from common.messages import Expression, Face, Identity, Probabilities, Result
from common.sources.folder import read_image

REPEATS = 50


def crowd() -> Result:
    """Return a made-up result with eight faces in a picture of 1280×720."""
    faces = []
    for track in range(8):
        label = EXPRESSIONS[track % 7]
        shares = Probabilities(**{name: 0.7 if name == label else 0.05 for name in EXPRESSIONS})
        x, y = 60.0 + 145 * track, 200.0 + 20 * (track % 3)
        faces.append(
            Face(
                track=track,
                box=(x, y, 90.0, 110.0),
                score=0.9,
                landmarks=((x + 25, y + 40), (x + 65, y + 40), (x + 45, y + 60), (x + 30, y + 85), (x + 60, y + 85)),
                identity=Identity(status="known", person=track, name="Renée", distance=0.3, confidence=0.9),
                expression=Expression(status="ok", label=label, confidence=0.7, probabilities=shares, smoothed=shares),
            )
        )
    return Result(
        sender="bench", camera="cam0", run=1, seq=1, captured_at=0.0, width=1280, height=720, analysed=True,
        latency_ms=40.0, timings_ms={}, media_time_s=0.0, faces=tuple(faces),
    )  # fmt: skip


def median_ms(work: Callable[[], object]) -> float:
    """Return the CPU time of one call on this thread."""
    work()
    times = []
    for _ in range(REPEATS):
        began = time.thread_time()
        work()
        times.append((time.thread_time() - began) * 1e3)
    return sorted(times)[REPEATS // 2]


def main() -> None:
    cv2.setNumThreads(1)
    photo = read_image(sample("five_people.jpg"))
    small, large = (np.asarray(cv2.resize(photo, size), np.uint8) for size in ((640, 360), (1280, 720)))
    result = crowd()
    drawing_ms = median_ms(lambda: annotate(large, result, selected=1))
    table = Table("what", "ms", title="showing a picture")
    table.add_row("copy and draw eight faces, 1280×720", f"{drawing_ms:.2f}")
    table.add_row("copy alone", f"{median_ms(large.copy):.2f}")
    table.add_row("preview JPEG, quality 80, 640×360", f"{median_ms(lambda: jpeg.encode(small, 80)):.2f}")
    table.add_row("preview JPEG, quality 80, 1280×720", f"{median_ms(lambda: jpeg.encode(large, 80)):.2f}")
    Console().print(table)


if __name__ == "__main__":
    main()
