"""What the expression network says about the sample media, through our own detector and crop.

``python -m bench.expression`` prints, for squares of several sides, turned upright by the eyes or not, the detector
looking at every whole picture or as it does live: how steadily the woman's clip is followed and what is shown in its
three parts, the man's clip, the five people, and the portraits.
"""

from __future__ import annotations

import argparse
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from common import media
from common.attention import Attention
from common.expressions import EXPRESSIONS
from common.pace import Pace
from common.settings import Config
from common.smoothing import Smoother
from common.tracks import Tracker
from models import appearance, crop
from models.detector import Detections, FaceDetector
from models.expression import ExpressionClassifier

PARTS_S = {"cries": (2.0, 5.5), "looks up": (6.5, 9.5), "laughs": (10.0, 60.0)}
PORTRAITS = ("portrait_angry.jpg", "portrait_disgusted.jpg", "portrait_happy.jpg", "portrait_surprised.jpg")


@dataclass(frozen=True, slots=True)
class Seen:
    """One picture and the faces the detector found in it."""

    at_s: float
    picture: NDArray[np.uint8]
    faces: Detections


LOOKS = ("whole", "as live")


def watch(path: Path, detector: FaceDetector, step: int, looks: str) -> list[Seen]:
    """Every ``step``-th picture of a clip with its faces; ``looks``: the whole picture, or as a live run does."""
    attention, tracker = Attention(detector.input_long_side, close=looks == "as live"), Tracker()
    clip = cv2.VideoCapture(str(path))
    if not clip.isOpened():
        raise OSError(f"OpenCV cannot open {path}")
    rate, seen, number = clip.get(cv2.CAP_PROP_FPS), [], 0
    while clip.grab():
        if number % step == 0:
            good, picture = clip.retrieve()
            if not good:
                raise OSError(f"{path}: frame {number} cannot be decoded")
            frame, at_s = np.asarray(picture, dtype=np.uint8), number / rate
            near = attention.choose(at_s, (frame.shape[1], frame.shape[0]), tracker.tracks)
            faces = detector.detect(frame, near)
            described = [appearance.describe(frame, box) for box in faces.boxes]
            tracker.update(at_s, faces.boxes, faces.scores, np.array(described, np.float32))
            attention.looked(at_s)
            seen.append(Seen(at_s, frame, faces))
        number += 1
    return seen


def classify(
    seen: Sequence[Seen], classifier: ExpressionClassifier, side: float, upright: bool
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Times (N,) and probabilities (N, 7) of the best face of each picture that has one."""
    with_face = [one for one in seen if len(one.faces)]
    squares = [
        crop.face_square(one.faces.boxes[0], one.faces.landmarks[0] if upright else None, side=side)
        for one in with_face
    ]
    faces = [crop.cut(one.picture, square, classifier.size) for one, square in zip(with_face, squares, strict=True)]
    return np.array([one.at_s for one in with_face]), classifier.classify(np.stack(faces))


def shown(times: NDArray[np.float64], probabilities: NDArray[np.float32], looks: str) -> list[str]:
    """The label shown at each time, as smoothed with the default settings; as live: from those rows that count then."""
    settings = Config().expression
    smoother = Smoother(settle_ms=settings.settle_ms, margin=settings.margin)
    pace = Pace(settings.every_ms / 1e3 if looks == "as live" else 0.0)
    rows = zip(times.tolist(), probabilities, strict=True)
    return [str(smoother.update(at_s, row if pace.due(at_s) else None).label) for at_s, row in rows]


def delays(times: NDArray[np.float64], probabilities: NDArray[np.float32], labels: Sequence[str]) -> list[float]:
    """For each change of the shown label, how many seconds the frames' own label had been that one by then.

    A single frame that says otherwise does not count as a change back.
    """
    own = [EXPRESSIONS[best] for best in probabilities.argmax(axis=1)]
    found = []
    for now in range(1, len(labels)):
        if labels[now] == labels[now - 1]:
            continue
        first = now
        while first > 0 and labels[now] in (own[first - 1], own[max(first - 2, 0)]):
            first -= 1
        while first < now and own[first] != labels[now]:
            first += 1
        found.append(float(times[now] - times[first]))
    return found


def shares(labels: Sequence[str]) -> str:
    """How often each label occurs, most frequent first."""
    return ", ".join(f"{name} {count / len(labels):.0%}" for name, count in Counter(labels).most_common(3))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.expression", description=__doc__)
    parser.add_argument("--model", type=Path, help="another ONNX file than the one that ships")
    parser.add_argument("--sides", type=float, nargs="+", default=[1.0, 1.15, 1.3], help="in longer sides of the box")
    parser.add_argument("--step", type=int, default=1, help="analyse every so many frames of the clips")
    parser.add_argument("--timeline", action="store_true", help="also print the probabilities twice a second")
    options = parser.parse_args()
    console = Console()
    console.width = max(console.width, 120)
    cv2.setNumThreads(1)
    settings = Config().detection
    detector = FaceDetector(input_long_side=settings.input_long_side, score_threshold=settings.score_threshold)
    classifier = ExpressionClassifier(options.model)
    clips = ("woman.mp4", "man.mp4")
    seen = {looks: [watch(media.sample(name), detector, options.step, looks) for name in clips] for looks in LOOKS}

    columns = ("side", "turned", "looks", "jitter", "changes", "longest delay, ms", *PARTS_S, "man's clip")
    table = Table(*columns, title="labels shown in the clips")
    for side in options.sides:
        for upright, looks in itertools.product((False, True), LOOKS):
            woman, man = seen[looks]
            times, probabilities = classify(woman, classifier, side, upright)
            labels = shown(times, probabilities, looks)
            changes = sum(before != after for before, after in itertools.pairwise(labels))
            longest = max(delays(times, probabilities, labels), default=0.0)
            jitter = float(np.abs(np.diff(probabilities, axis=0)).sum(axis=1).mean() / 2)
            parts = [
                shares([label for at, label in zip(times, labels, strict=True) if begin <= at < end])
                for begin, end in PARTS_S.values()
            ]
            runs = shown(*classify(man, classifier, side, upright), looks)
            order = [label for at, label in enumerate(runs) if at == 0 or runs[at - 1] != label]
            first = (f"{side:.2f}", "yes" if upright else "no", looks, f"{jitter:.3f}", str(changes))
            table.add_row(*first, f"{longest * 1e3:.0f}", *parts, ", ".join(order))
    console.print(table)
    if options.timeline:
        _print_timeline(console, *classify(seen["as live"][0], classifier, crop.SIDE, True))
    _print_pictures(console, detector, classifier)


def _print_timeline(console: Console, times: NDArray[np.float64], probabilities: NDArray[np.float32]) -> None:
    table = Table("from s", *EXPRESSIONS, "shown", title="the woman's clip, averages of half a second")
    labels = np.array(shown(times, probabilities, "as live"))
    for begin in np.arange(0.0, times[-1], 0.5):
        part = (times >= begin) & (times < begin + 0.5)
        if part.any():
            means = (f"{mean:.2f}" for mean in probabilities[part].mean(axis=0))
            table.add_row(f"{begin:.1f}", *means, shares(list(labels[part])))
    console.print(table)


def _print_pictures(console: Console, detector: FaceDetector, classifier: ExpressionClassifier) -> None:
    table = Table("picture", "face", *EXPRESSIONS, title="pictures")
    for name in ("five_people.jpg", *PORTRAITS):
        picture = np.asarray(cv2.imread(str(media.sample(name)), cv2.IMREAD_COLOR), dtype=np.uint8)
        faces = detector.detect(picture)
        for box, landmarks in zip(faces.boxes, faces.landmarks, strict=True):
            face = crop.cut(picture, crop.face_square(box, landmarks), classifier.size)
            row = classifier.classify(face[None])[0]
            best = int(row.argmax())
            cells = (f"[bold]{p:.2f}[/]" if k == best else f"{p:.2f}" for k, p in enumerate(row))
            table.add_row(name, f"{box[2]:.0f} × {box[3]:.0f} px", *cells)
    console.print(table)


if __name__ == "__main__":
    main()
