"""Makes the background: ``python -m models.train.background --faces FACES.npz``.

Takes pictures of many different people, ``images`` (N, 48, 48) uint8 grey, and keeps what groups of their embeddings
have in common. It takes some minutes a thousand.
"""

import argparse
import sys
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from models import quality
from models.background import WEIGHTS, Background
from models.chips import Aligner, cut_patch
from models.detector import FaceDetector
from models.embedder import FaceEmbedder

GROUPS = 128
SMALLEST = 8  # faces; smaller groups are shared out among the others, so that a middle is nobody's own
MIN_SCORE = 0.7  # of the detector
MAX_TURN = 0.4
_BORDER, _ENLARGED = 60, 4  # a detector wants room around a face, and a face larger than 48 pixels


def embedded(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the embeddings of those pictures, (N, 48, 48) uint8, that show a face from the front: (M, 128)."""
    detector, aligner, embedder = FaceDetector(), Aligner(), FaceEmbedder()
    found = []
    for image in images:
        large = cv2.resize(image, None, fx=_ENLARGED, fy=_ENLARGED, interpolation=cv2.INTER_CUBIC)
        framed = cv2.copyMakeBorder(large, _BORDER, _BORDER, _BORDER, _BORDER, cv2.BORDER_REPLICATE)
        picture = np.asarray(cv2.cvtColor(framed, cv2.COLOR_GRAY2BGR), np.uint8)
        faces = detector.detect(picture)
        if not len(faces.boxes) or faces.scores[0] < MIN_SCORE:
            continue
        if quality.assess(picture, faces.boxes[0], faces.landmarks[0]).turn <= MAX_TURN:
            found.append(embedder.embed(aligner.chip(cut_patch(picture, faces.boxes[0]))[None])[0])
    return np.stack(found)


def grouped(embeddings: NDArray[np.float32], groups: int = GROUPS) -> Background:
    """Return what groups of embeddings, (M, 128), have in common."""
    cv2.setRNGSeed(0)
    rounds = (cv2.TERM_CRITERIA_MAX_ITER, 100, 0.0)
    _, labels, middles = cv2.kmeans(embeddings, groups, None, rounds, 5, cv2.KMEANS_PP_CENTERS)  # type: ignore[call-overload]
    kept = np.bincount(labels.ravel(), minlength=groups) >= SMALLEST
    middles, groups = middles[kept], int(kept.sum())
    own = ((embeddings[:, None] - middles) ** 2).sum(axis=2).argmin(axis=1)
    squares = ((embeddings - middles[own]) ** 2).sum(axis=1)
    counts = np.bincount(own, minlength=groups)
    widths = np.sqrt(np.bincount(own, squares, groups) / counts)
    return Background(middles.astype(np.float32), widths.astype(np.float32), (counts / counts.sum()).astype(np.float32))


def main() -> int:
    """Run the command; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m models.train.background", description=__doc__)
    parser.add_argument("--faces", type=Path, required=True, help="an .npz with images (N, 48, 48) uint8")
    parser.add_argument("--most", type=int, default=2500, help="pictures looked at, chosen at random")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    options = parser.parse_args()
    with np.load(options.faces, allow_pickle=False) as data:
        images = data["images"]
    chosen = np.random.default_rng(0).permutation(len(images))[: options.most]
    embeddings = embedded(images[chosen])
    made = grouped(embeddings)
    np.savez(options.out, middles=made.middles.astype(np.float16), widths=made.widths, shares=made.shares)
    print(
        f"{len(embeddings)} faces in {len(made.shares)} groups, the smallest {made.shares.min() * len(embeddings):.0f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
