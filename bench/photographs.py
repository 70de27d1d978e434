"""Photographs of people, each tried against galleries without it: who is named right, who wrongly, which strangers.

A folder has one sub-folder or file a person, as ``people add --from`` takes it; in a file with several faces each is
somebody else. Without a folder the sample photographs are taken.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from bench.report import Report
from common import enrolment
from common.enrolment import PhotoReader, Rejected
from common.gallery import Gallery, Member
from common.media import sample
from common.people import PeopleError
from common.photos import PhotoError
from common.settings import Config
from common.votes import TrackIdentity

Floats = NDArray[np.float32]
SIZES = (1, 2, 5, 10, 20)  # people enrolled
TRIALS = 200  # galleries of each size, drawn with a seed

# The sample photographs and clips by who is on them.
SAMPLES = {
    "obama": ("obama.jpg", "obama2.jpg", "obama3.jpg"),
    "biden": ("biden.jpg",),
    "man": ("single_face.jpg", "man.mp4"),
    "woman": ("woman.mp4",),
    **{look: (f"portrait_{look}.jpg",) for look in ("surprised", "happy", "angry", "disgusted")},
}
CLIP_FRAMES = (5, 25, 45)


@dataclass(slots=True)
class Tally:
    """Pictures of enrolled people: named right, given another's name; pictures of strangers: named."""

    known: int = 0
    right: int = 0
    wrong: int = 0
    strange: int = 0
    named: int = 0


def photographs(report: Report, config: Config, folder: Path | None) -> None:
    """Galleries of 1 to 20 people, drawn by chance, with one and with two references each."""
    people = _samples(config) if folder is None else _of_folder(config, folder)
    vectors = [(who, vector) for who, own in people.items() for vector in own]
    apart = [float(np.linalg.norm(a - b)) for i, (p, a) in enumerate(vectors) for q, b in vectors[:i] if p != q]
    same = [float(np.linalg.norm(a - b)) for i, (p, a) in enumerate(vectors) for q, b in vectors[:i] if p == q]
    report.notes.append(
        f"photographs: {len(vectors)} of {len(people)} people; two people are {np.mean(apart):.3f} apart on the mean, "
        f"{np.quantile(apart, 0.01):.3f} at the first percent, {min(apart):.3f} at least; "
        f"two of one person {np.median(same):.3f}, {max(same):.3f} at most"
    )
    for references in (1, 2):
        for size in (size for size in SIZES if size < len(people)):
            tally = _tried(people, size, references)
            if tally is not None:
                report.add(
                    "Photographs, each against galleries without it",
                    references=references,
                    enrolled=size,
                    known_right_percent=100 * tally.right / tally.known,
                    known_given_another_name=tally.wrong,
                    known=tally.known,
                    strangers_named_percent=100 * tally.named / max(1, tally.strange),
                    strangers=tally.strange,
                )


def names(gallery: Gallery, embedding: Floats) -> int | None:
    """Return whom one look at a good crop names, as the running pipeline decides it."""
    track = TrackIdentity((1.0,), gallery.recognise)
    track.answered(embedding, 1.0)
    return track.identity.person


def _tried(people: dict[str, list[Floats]], size: int, references: int) -> Tally | None:
    """Return what galleries of so many people say; None: nobody has more pictures than that."""
    tally, rng = Tally(), np.random.default_rng(1000 * references + size)
    often = [who for who, own in people.items() if len(own) > references]
    for _ in range(TRIALS if often else 0):
        # One of those who have another picture to be known by is always there.
        first = str(rng.choice(often))
        rest = [str(who) for who in rng.permutation([who for who in people if who != first])[: size - 1]]
        orders = {who: rng.permutation(len(people[who])) for who in (first, *rest)}
        members = [
            Member(person=i, name=who, embeddings=np.stack([people[who][j] for j in order[:references]]))
            for i, (who, order) in enumerate(orders.items())
        ]
        gallery = Gallery(members)
        for i, (who, order) in enumerate(orders.items()):
            said = [names(gallery, people[who][j]) for j in order[references:]]
            tally.known += len(said)
            tally.right += said.count(i)
            tally.wrong += sum(person not in (i, None) for person in said)
        strange = [names(gallery, vector) for who, own in people.items() if who not in orders for vector in own]
        tally.strange += len(strange)
        tally.named += sum(person is not None for person in strange)
    return tally if tally.known else None


def _samples(config: Config) -> dict[str, list[Floats]]:
    reader, people = PhotoReader(config), {}
    for who, files in SAMPLES.items():
        people[who] = [vector for file in files for vector in _of_file(reader, sample(file))]
    group = sample("five_people.jpg")
    return people | {f"five people {face}": [reader.reference(group, face=face).embedding] for face in range(1, 6)}


def _of_file(reader: PhotoReader, path: Path) -> list[Floats]:
    if path.suffix != ".mp4":
        return [reader.reference(path).embedding]
    clip = cv2.VideoCapture(str(path))
    found = []
    for number in CLIP_FRAMES:
        clip.set(cv2.CAP_PROP_POS_FRAMES, number)
        ok, frame = clip.read()
        if ok:
            found.append(reader.reference_of(np.asarray(frame, np.uint8), path.name).embedding)
    clip.release()
    return found


def _of_folder(config: Config, folder: Path) -> dict[str, list[Floats]]:
    reader = PhotoReader(config)
    people: dict[str, list[Floats]] = {}
    try:
        planned = enrolment.plan(folder)
    except PeopleError as error:
        sys.exit(str(error))
    for who, paths in planned.items():
        for path in paths:
            try:
                vector = reader.reference(path).embedding
                people.setdefault(who, []).append(vector)
            except PhotoError as error:
                print(f"left out {path}: {error}", file=sys.stderr)
            except Rejected as error:
                several = _each_face(reader, path) if len(paths) == 1 else []
                people |= {f"{who} {number}": [vector] for number, vector in several}
                if not several:
                    print(f"left out {path}: {error}", file=sys.stderr)
    return people


def _each_face(reader: PhotoReader, path: Path) -> list[tuple[int, Floats]]:
    """Return the faces of a picture that shows several, with their numbers from the left."""
    found = []
    for number in range(1, 100):
        try:
            found.append((number, reader.reference(path, face=number).embedding))
        except Rejected as error:
            if "was asked for" in str(error) or "no face" in str(error):
                break
    return found
