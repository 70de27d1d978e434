"""Enrolling people from photographs: a folder with one sub-folder or file a person, or single pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from common import jpeg, people, photos
from common.gallery import Gallery
from common.people import LooksAlike, NameTaken, PeopleError, Person, Reference
from common.photos import PhotoError
from common.settings import Config
from common.store import Store
from models import quality
from models.chips import Aligner, cut_patch
from models.detector import Detections, FaceDetector
from models.embedder import FaceEmbedder

MIN_FACE_PX = 40  # a reference has to be better than what is merely recognised
MIN_SCORE = 0.6  # of the detector
SMALL_BESIDE = 0.4  # a second face of less than this part of the first one's side is somebody in the background
CROP_QUALITY = 92

_WHY = {
    "small": "the face is too small",
    "cut": "the face is cut off by the edge",
    "turned": "the face is turned away",
    "dark": "too dark",
    "bright": "too bright",
    "blurred": "too blurred",
}


class Rejected(ValueError):
    """A picture that cannot be a reference; the text says why."""


class SeveralFaces(Rejected):
    """A picture that does not say which of its faces is meant."""


class SomebodyElse(Rejected):
    """A picture that is certainly not of the person to whom it was to be added."""


class PhotoReader:
    """Makes references of photographs with the same models that the stages run.

    Raises ModelError when a model is missing.
    """

    def __init__(self, config: Config) -> None:
        cache = config.storage.data_dir / "compiled"
        cv2.setNumThreads(config.workers.threads)
        settings = config.detection
        self._detector = FaceDetector(settings.model, input_long_side=settings.input_long_side, cache_dir=cache)
        self._aligner = Aligner()
        self._embedder = FaceEmbedder(cache_dir=cache)

    def reference(self, path: Path, *, face: int | None = None) -> Reference:
        """Return the reference that a picture gives.

        Args:
            face: which face from the left, from 1, where there are several.

        Raises:
            PhotoError: no picture.
            SeveralFaces: it may be one or the other. Rejected: not one face that is good enough.
        """
        source = os.fsencode(path.name).decode("utf-8", "backslashreplace")  # what the store keeps is UTF-8
        return self.reference_of(photos.read(path), source, face=face)

    def reference_of(self, picture: NDArray[np.uint8], source: str, *, face: int | None = None) -> Reference:
        """The same for a picture in memory, (H, W, 3) uint8 BGR."""
        found = self._detector.detect(picture)
        sure = [i for i in range(len(found.boxes)) if found.scores[i] >= MIN_SCORE]
        if not sure:
            # Portraits cut tight have no room around the face, without which a detector does not know one.
            picture, found = self._with_border(picture)
            sure = [i for i in range(len(found.boxes)) if found.scores[i] >= MIN_SCORE]
        if not sure:
            raise Rejected("no face was found")
        index = _chosen(found.boxes, sure, face)
        box, landmarks = found.boxes[index], found.landmarks[index]
        measured = quality.assess(picture, box, landmarks)
        reason = quality.reason(measured, quality.Limits(min_size_px=MIN_FACE_PX))
        if reason is not None:
            raise Rejected(_WHY[reason])
        chip = self._aligner.chip(cut_patch(picture, box))
        return Reference(
            embedding=self._embedder.embed(chip[None])[0],
            crop=jpeg.encode(np.asarray(cv2.cvtColor(chip, cv2.COLOR_RGB2BGR), np.uint8), CROP_QUALITY),
            source=source,
            quality=quality.score(measured),
        )

    def _with_border(self, picture: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], Detections]:
        pad = max(picture.shape[:2]) // 2
        wide = np.asarray(cv2.copyMakeBorder(picture, pad, pad, pad, pad, cv2.BORDER_REPLICATE), np.uint8)
        if max(wide.shape[:2]) < 400:
            wide = np.asarray(cv2.resize(wide, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC), np.uint8)
        return wide, self._detector.detect(wide)


@dataclass(slots=True)
class Report:
    """What came of enrolling a folder.

    Attributes:
        enrolled: new people; extended: people who were there and got pictures.
        rejected: file and the error that says why: of the picture, or of the person (NameTaken, LooksAlike).
    """

    enrolled: list[Person] = field(default_factory=list)
    extended: list[Person] = field(default_factory=list)
    rejected: list[tuple[Path, ValueError]] = field(default_factory=list)


def plan(folder: Path) -> dict[str, list[Path]]:
    """Return who is in a folder: each sub-folder's name and its pictures, each single file's name without suffix.

    Raises:
        PeopleError: there is no such folder, it cannot be read, or holds no pictures.
    """
    found: dict[str, list[Path]] = {}
    try:
        for entry in _visible(folder):
            if entry.is_dir():
                pictures = [p for p in _visible(entry) if p.is_file() and p.suffix.lower() in photos.SUFFIXES]
                if pictures:
                    found.setdefault(entry.name, []).extend(pictures)
            elif entry.is_file() and entry.suffix.lower() in photos.SUFFIXES:  # a pipe would be waited for
                found.setdefault(entry.stem, []).append(entry)
    except FileNotFoundError as error:
        raise PeopleError(f"there is no folder {folder}") from error
    except NotADirectoryError as error:
        raise PeopleError(f"{folder} is a file: give a name with it (people add NAME --from {folder})") from error
    except PermissionError as error:
        raise PeopleError(f"there is no right to read {error.filename}: change that, or copy the pictures") from error
    except OSError as error:
        raise PeopleError(f"{str(folder)[:200]} cannot be read: {error.strerror or error}") from error
    if not found:
        raise PeopleError(f"{folder} holds no pictures ({', '.join(sorted(photos.SUFFIXES))})")
    return found


def pictures(source: Path) -> list[Path]:
    """Return one person's pictures: a file, or all in a folder. Raises PeopleError: there are none."""
    try:
        if source.is_dir():
            found = [path for paths in plan(source).values() for path in paths]
            return sorted(found)
        if not source.exists():
            raise PeopleError(f"there is no picture {source}")
        if not source.is_file():
            raise PeopleError(f"{source} is neither a picture nor a folder")
    except OSError as error:
        raise PeopleError(f"{str(source)[:200]} cannot be read: {error.strerror or error}") from error
    return [source]


def enrol(
    store: Store,
    reader: PhotoReader,
    planned: dict[str, list[Path]],
    *,
    face: int | None = None,
    again: bool = False,
    alike: bool = False,
    told: Callable[[Path], None] = lambda path: None,
    changes: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Report:
    """Enrol everybody of a plan, one transaction a person.

    Args:
        again: pictures go to whoever has the name, if they show them; a new person is added also when they look like
            somebody enrolled.
        alike: add who looks like somebody enrolled, or unlike the person of that name, all the same; a name that is
            taken stays so.
        told: hears of each file before it is looked at.
        changes: what else is to be changed of people who are there already, for ``people.change``.
        fields: role, notes, consent … of new people, for ``people.add``.
    """
    report = Report()
    for name, paths in planned.items():
        references = _read(reader, paths, report, face=face, told=told)
        if not references:
            continue
        try:
            _enrol_one(store, name, references, report, again=again, alike=alike, changes=changes or {}, fields=fields)
        except PeopleError as error:
            report.rejected.extend((path, error) for path, _ in references)
    return report


def extend(store: Store, reader: PhotoReader, who: str, paths: Sequence[Path], *, alike: bool = False) -> Report:
    """Add pictures to somebody who is enrolled: a name, or ``#3``, who may be called otherwise by the time it is done.

    Args:
        alike: also what shows somebody else, or looks like another one who is enrolled.

    Raises:
        NotEnrolled: nobody is that any more.
    """
    report = Report()
    references = _read(reader, paths, report)
    person = people.find(store, who)
    try:
        _extend_one(store, person, references, report, alike=alike, changes={})
    except LooksAlike as error:
        report.rejected.extend((path, error) for path, _ in references)
    return report


def outliers(references: Sequence[tuple[Path, Reference]]) -> list[Path]:
    """Return pictures that are certainly of somebody else than most of the others (three or more are needed)."""
    if len(references) < 3:
        return []
    embeddings = np.stack([reference.embedding for _, reference in references])
    apart = np.linalg.norm(embeddings[:, None] - embeddings[None], axis=2)
    near = np.array([np.median(np.delete(row, i)) for i, row in enumerate(apart)])
    return [path for (path, _), distance in zip(references, near, strict=True) if distance > people.STRANGER]


def _read(
    reader: PhotoReader,
    paths: Sequence[Path],
    report: Report,
    *,
    face: int | None = None,
    told: Callable[[Path], None] = lambda path: None,
) -> list[tuple[Path, Reference]]:
    references: list[tuple[Path, Reference]] = []
    for path in paths:
        told(path)
        try:
            references.append((path, reader.reference(path, face=face)))
        except (PhotoError, Rejected) as error:
            report.rejected.append((path, error))
    return references


def _alike(references: Sequence[tuple[Path, Reference]], name: str, report: Report) -> list[Reference]:
    """Return those that are of one person; the others are rejected."""
    odd = outliers(references)
    report.rejected.extend((path, Rejected(f"it shows somebody else than {name}'s other pictures")) for path in odd)
    return [reference for path, reference in references if path not in odd]


def _enrol_one(
    store: Store,
    name: str,
    references: list[tuple[Path, Reference]],
    report: Report,
    *,
    again: bool,
    alike: bool,
    changes: Mapping[str, Any],
    fields: dict[str, Any],
) -> None:
    name = people.checked_name(name)
    there = people.called(store, name)
    if there is not None:
        if not again:
            raise NameTaken(f"{there.name!r} is enrolled already")
        _extend_one(store, there, references, report, alike=alike, changes=changes)
        return
    kept = _alike(references, name, report)
    if not again and not alike:
        _unlike_others(people.gallery(store), kept, name)
    if kept:
        report.enrolled.append(people.add(store, name, kept, **fields))


def _extend_one(
    store: Store,
    person: Person,
    references: list[tuple[Path, Reference]],
    report: Report,
    *,
    alike: bool,
    changes: Mapping[str, Any],
) -> None:
    if alike:
        kept = [reference for _, reference in references]
    else:
        gallery = people.gallery(store)
        odd = _strangers(gallery, person, references)
        kept = [reference for path, reference in references if path not in odd]
        _unlike_others(gallery, kept or [reference for _, reference in references], person.name)
        report.rejected.extend(
            (path, SomebodyElse(f"it shows somebody else than {person.name}'s pictures")) for path in odd
        )
    if kept:
        report.extended.append(people.add_references(store, f"#{person.id}", kept, **changes))


def _strangers(gallery: Gallery, person: Person, references: Sequence[tuple[Path, Reference]]) -> list[Path]:
    """Return pictures that are certainly not of a person, by the nearest of the pictures that are known of them."""
    odd = people.strange(gallery, person.id, [one.embedding for _, one in references])
    if odd is None:
        return outliers(references)
    return [path for (path, _), is_odd in zip(references, odd, strict=True) if is_odd]


def _unlike_others(gallery: Gallery, references: Sequence[Reference], name: str) -> None:
    """Raise LooksAlike if references show somebody who is enrolled under another name."""
    other = people.look_alike(gallery, [one.embedding for one in references], name)
    if other is not None:
        raise LooksAlike(f"looks like {other.name!r}, who is enrolled already", other.name)


def _visible(folder: Path) -> Iterator[Path]:
    return iter(sorted(Path(entry.path) for entry in os.scandir(folder) if not entry.name.startswith(".")))


def _chosen(boxes: NDArray[np.float32], sure: list[int], face: int | None) -> int:
    if face is not None:
        if not 1 <= face <= len(sure):
            raise Rejected(f"face {face} was asked for, {len(sure)} were found")
        return sorted(sure, key=lambda i: float(boxes[i, 0]))[face - 1]
    sides = {i: float(np.sqrt(boxes[i, 2] * boxes[i, 3])) for i in sure}
    largest = max(sides, key=lambda i: sides[i])
    if any(side >= SMALL_BESIDE * sides[largest] for i, side in sides.items() if i != largest):
        number = {2: "two faces were", 3: "three faces were"}.get(len(sure), f"{len(sure)} faces were")
        raise SeveralFaces(f"{number} found")
    return largest
