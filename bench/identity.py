"""Identity: who is named right, who is not, how quickly, and how many can be told apart.

    python bench/identity.py [att|photos|speed|scale|index|live|store …] [--faces att_faces.npz] [--folder photos/]

``photos`` takes a folder as ``people add --from`` does, or the sample photographs. ``att`` needs the AT&T database of
faces as a file with ``images`` (400, 112, 92) uint8 and ``person`` (400,). Times are on one thread; the variants take
turns in one run.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.galleries import index, scale
from bench.live import live
from bench.photographs import names, photographs
from bench.report import Report, in_turn, median, percentile
from common import jpeg
from common.calibration import calibrate
from common.config import load
from common.enrolment import PhotoReader, Rejected
from common.gallery import Gallery, Member, Thresholds
from common.keeper import Keeper
from common.media import sample
from common.recall import Sighting
from common.settings import Config
from common.votes import AGREEING

Floats = NDArray[np.float32]
THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
SPLITS = 20
ENROLLED = 20
PORTRAITS = (1, 2, 3)


@dataclass(slots=True)
class Outcome:
    """Rates, one a split, in percent; ``mistaken`` counts pictures."""

    known: list[float] = field(default_factory=list)
    strangers: list[float] = field(default_factory=list)
    mistaken: int = 0

    def add(self, right: list[bool], wrong: list[bool], named: list[bool]) -> None:
        self.known.append(100 * float(np.mean(right)))
        self.strangers.append(100 * float(np.mean(named)))
        self.mistaken += sum(wrong)


def att(report: Report, config: Config, faces: Path | None) -> None:
    """20 people enrolled with some portraits each, 20 strangers; 20 seeded splits."""
    if faces is None:
        report.notes.append("att: left out, no --faces given")
        return
    embeddings, person = _att_embeddings(config, faces)
    calibrations: dict[tuple[int, int], Thresholds] = {}
    for portraits in PORTRAITS:
        shipped, calibrated = Outcome(), Outcome()
        for seed in range(SPLITS):
            rng = np.random.default_rng(seed)
            people = rng.permutation(np.unique(person))
            own = {int(p): embeddings[rng.permutation(np.flatnonzero(person == p))] for p in people}
            enrolled, strangers = [int(p) for p in people[:ENROLLED]], [int(p) for p in people[ENROLLED:]]
            members = [Member(person=p, name=str(p), embeddings=own[p][:portraits]) for p in enrolled]
            judged = Gallery(members)
            shipped.add(*_judged(judged, own, enrolled, strangers, portraits))
            # Thresholds come from other people than those judged with them: two halves, each judged by the other's.
            parts: list[tuple[list[bool], list[bool], list[bool]]] = []
            for half in range(2):
                mine = (enrolled[half::2], strangers[half::2])
                if (seed, half) not in calibrations:
                    others = [own[p] for p in (*enrolled[1 - half :: 2], *strangers[1 - half :: 2])]
                    calibrations[seed, half] = calibrate(others, seed=seed).thresholds
                parts.append(_judged(Gallery(members, calibrations[seed, half]), own, *mine, portraits))
            calibrated.add(*([*a, *b] for a, b in zip(*parts, strict=True)))
        for name, outcome in (("shipped defaults", shipped), ("calibrated on others", calibrated)):
            report.add(
                "AT&T portraits, mean of 20 splits",
                portraits=portraits,
                thresholds=name,
                known_right_percent=float(np.mean(outcome.known)),
                strangers_named_percent=float(np.mean(outcome.strangers)),
                worst_split_strangers=max(outcome.strangers),
                known_given_another_name=outcome.mistaken,
            )


def speed(report: Report, config: Config, faces: Path | None) -> None:
    """Faces a second on one core, against face_recognition on the same chips in the same run."""
    from models.embedder import FaceEmbedder, ReferenceEmbedder
    from models.runtime import ModelError

    reader = PhotoReader(config)
    chips = []
    for name in ("obama.jpg", "obama2.jpg", "obama3.jpg", "biden.jpg", "single_face.jpg", "portrait_happy.jpg"):
        crop = reader.reference(sample(name)).crop
        assert crop is not None
        chips.append(jpeg.decode(crop, 150, 150)[:, :, ::-1])
    batch = np.stack(chips).astype(np.uint8)
    ours = FaceEmbedder(cache_dir=config.storage.data_dir / "compiled")
    ways: dict[str, Callable[[], Floats]] = {
        "one by one": lambda: np.concatenate([ours.embed(batch[i : i + 1], False) for i in range(len(batch))]),
        "batches of 6": lambda: ours.embed(batch, False),
    }
    try:
        reference = ReferenceEmbedder()
        ways["face_recognition"] = lambda: reference.embed(batch, False)
    except ModelError as error:
        report.notes.append(f"speed: without the comparison: {error}")
    times: dict[str, list[float]] = {name: [] for name in ways}
    results = {name: way() for name, way in ways.items()}
    for name in in_turn(list(ways), 7):
        began = time.thread_time()
        ways[name]()
        times[name].append(time.thread_time() - began)
    slow = median(times["face_recognition"]) if "face_recognition" in times else None
    for name, spent in times.items():
        report.add(
            "Embedding 6 chips, one thread",
            way=name,
            ms_a_face=1e3 * median(spent) / len(batch),
            faces_a_second=len(batch) / median(spent),
            times_as_fast=None if slow is None else slow / median(spent),
            difference=None
            if slow is None
            else f"{float(np.abs(results[name] - results['face_recognition']).max()):.1e}",
        )


def store(report: Report, config: Config, faces: Path | None) -> None:
    """Sightings a second that reach the disk through the keeper, and how long its caller is held up."""
    with tempfile.TemporaryDirectory() as folder:
        own = load(overrides={"storage": {"data_dir": folder}}, environment={})
        keeper = Keeper(own, "bench")
        keeper.open()
        held: list[float] = []
        count = 20_000
        began = time.monotonic()
        for start in range(0, count, 100):
            events = [
                Sighting(track=i + 1, camera="cam0", person=None, unknown=1, begin_at=0.0, end_at=1.0)
                for i in range(start, start + 100)
            ]
            before = time.perf_counter()
            keeper.write(list(events))
            held.append((time.perf_counter() - before) / len(events))
        keeper.close()
        seconds = time.monotonic() - began
        report.add(
            "Sightings through the keeper",
            written=keeper.written,
            lost=keeper.lost,
            a_second=keeper.written / seconds,
            caller_held_us_p50=1e6 * median(held),
            caller_held_us_p99=1e6 * percentile(held, 0.99),
        )


PARTS: dict[str, Callable[[Report, Config, Path | None], None]] = {
    "att": att, "photos": photographs, "speed": speed, "scale": scale, "index": index,
    "live": live, "store": store,
}  # fmt: skip


def main() -> int:
    """Print the tables asked for, all when none is named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--faces", type=Path, help="the AT&T database, for 'att'")
    parser.add_argument("--folder", type=Path, help="photographs, for 'photos'")
    arguments = parser.parse_args()
    parts = arguments.parts or list(PARTS)
    for part in parts:
        if part not in PARTS:
            parser.error(f"unknown part {part!r}: one of {', '.join(PARTS)}")
    if any(os.environ.get(name) != "1" for name in THREADS):  # read when numpy is loaded: begin again with it set
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **dict.fromkeys(THREADS, "1")})
    cv2.setNumThreads(1)
    defaults = Thresholds()
    report = Report(
        "identity",
        "people named right and wrong, speed, scale",
        settings={"nearer": defaults.nearer, "lead": defaults.lead, "splits": SPLITS, "agreeing_looks": AGREEING},
    )
    for part in parts:
        PARTS[part](report, load(environment={}), arguments.folder if part == "photos" else arguments.faces)
    report.show()
    print(report.save())
    return 0


def _judged(
    gallery: Gallery, own: dict[int, Floats], enrolled: list[int], strangers: list[int], portraits: int
) -> tuple[list[bool], list[bool], list[bool]]:
    right, wrong = [], []
    for person in enrolled:
        for embedding in own[person][portraits:]:
            named = names(gallery, embedding)
            right.append(named == person)
            wrong.append(named is not None and named != person)
    strange = [names(gallery, embedding) is not None for person in strangers for embedding in own[person]]
    return right, wrong, strange


def _att_embeddings(config: Config, path: Path) -> tuple[Floats, NDArray[np.int64]]:
    """Return the embeddings of all portraits, padded and enlarged: a detector wants room around a face."""
    reader, embeddings, people = PhotoReader(config), [], []
    with np.load(path) as data:
        images, person = data["images"], data["person"].astype(np.int64)
    for image, owner in zip(images, person, strict=True):
        wide = cv2.copyMakeBorder(image, 60, 60, 60, 60, cv2.BORDER_REPLICATE)
        wide = cv2.resize(wide, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
        picture = np.asarray(cv2.cvtColor(wide, cv2.COLOR_GRAY2BGR), np.uint8)
        try:
            embeddings.append(reader.reference_of(picture, "").embedding)
        except Rejected as error:
            print(f"left out a portrait of {owner}: {error}", file=sys.stderr)
            continue
        people.append(int(owner))
    return np.stack(embeddings), np.array(people)


if __name__ == "__main__":
    sys.exit(main())
