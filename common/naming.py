"""The people of one camera's pictures: a name or number for each track, once a picture, corrected when it was wrong.

Pure: looks go in, identities, corrections and blurred places come out; what is to be written down goes to ``Recall``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.blurring import BLUR_MARGIN, wider
from common.collecting import Collector
from common.messages import MAX_FACES, Box, Correction, Enrolling, Frame, Identity
from common.recall import Enrolment, Recall, Sighting, UnknownLook, Withheld
from common.settings import Config
from common.unknown import MIN_QUALITY
from common.votes import TrackIdentity

NOTE_EVERY_S = 5.0  # how often the end of a sighting that goes on is written down
COVER_S = 1.0  # a face that was to be blurred and is lost stays covered so long
MOST_COVERS = 4 * MAX_FACES  # there is room for so many in a picture's message

Floats = NDArray[np.float32]


@dataclass(slots=True)
class Known:
    """What is known of one track.

    Attributes:
        number: of the stranger that it is.
        outdone_by: another track in the same picture is nearer to the person that this one would be.
        shown: what was decided and published of it last, since which frame it has been followed, and until when it was
            seen.
    """

    identity: TrackIdentity
    number: int | None = None
    outdone_by: int | None = None
    shown: Identity | None = None
    run: int = 0
    first_seq: int = 0
    begin_at: float = 0.0
    end_at: float = 0.0
    noted_at: float = -1e18
    noted_as: tuple[int | None, int | None] | None = None
    box: Box | None = None
    blurred_until_s: float = -1e18

    def seen(self, at: float) -> None:
        """It is in a picture of this moment, unix seconds; a clock that was set back takes all moments with it."""
        if (back := self.end_at - at) > 0:
            self.begin_at, self.noted_at = self.begin_at - back, self.noted_at - back
        self.end_at = at


@dataclass(slots=True)
class Followed:
    """Whom somebody follows on this camera: a track, and who it was when last seen."""

    track: int | None
    person: int | None = None
    number: int | None = None


@dataclass(slots=True)
class Shown:
    """What a picture says of its faces.

    Attributes:
        identities: by track.
        blur: boxes that nobody may see, x, y, width, height.
        blur_all: they are more than can be told one by one.
        selected: the track that is followed, if it is in the picture.
        enrolling: how far the enrolment is that is under way.
    """

    identities: dict[int, Identity] = field(default_factory=dict)
    blur: tuple[Box, ...] = ()
    blur_all: bool = False
    selected: int | None = None
    enrolling: Enrolling | None = None


class Naming:
    """Names the tracks of one camera."""

    def __init__(self, config: Config, camera: str, recall: Recall) -> None:
        self.corrections: deque[dict[str, Any]] = deque()  # fields of Correction messages to be sent
        self._config = config
        self._camera = camera
        self._recall = recall
        self._known: dict[int, Known] = {}
        self.collector = Collector(self._collected, recall.apart)
        self._followed: Followed | None = None

    # --- tracks ---

    def begin(self, track: int, frame: Frame) -> TrackIdentity:
        """Follow a new track; returns what decides its identity."""
        identity = TrackIdentity(self._config.identity.intervals_s, self._recall.recognise, self._recall.apart)
        self._known[track] = Known(
            identity, run=frame.run, first_seq=frame.seq, begin_at=frame.captured_at, end_at=frame.captured_at
        )
        return identity

    def end(self, track: int) -> None:
        """A track has ended."""
        self.collector.ended(track)
        known = self._known.pop(track, None)
        if known is not None:
            self._note(track, known, last=True)

    def clear(self) -> None:
        """All tracks have ended: another scene."""
        for track in list(self._known):
            self.end(track)

    def looked(
        self,
        track: int,
        embedding: Floats,
        chip: NDArray[np.uint8],
        quality: float,
        turn: float,
        frame: Frame,
        beside: Collection[int] = (),
    ) -> None:
        """An embedding (128,) of a track has been counted.

        Args:
            chip: (150, 150, 3) uint8 RGB.
            turn: -1 … 1.
            beside: the tracks of that frame: one person is not two of them. A track out of sight may be the same one.
        """
        known = self._known.get(track)
        if known is None:
            return
        self.collector.looked(track, embedding, chip, quality, turn)
        if frame.still or not self._recall.remembers:
            return
        summary = known.identity.summary()
        if known.identity.identity.status != "unknown" or known.identity.withheld or summary is None:
            return
        if summary.quality < MIN_QUALITY:
            return
        unknown, at = self._recall.unknown, frame.captured_at
        if known.number is not None and known.number in unknown:
            person = unknown.seen_again(known.number, embedding, quality, at)
        else:
            others = {self._known[other].number for other in beside if other != track and other in self._known}
            person = unknown.see(summary.embedding, quality, at, taken={number for number in others if number})
        if person is None:
            return
        known.number = person.number
        good = quality >= MIN_QUALITY
        look = UnknownLook(
            number=person.number,
            embedding=person.embedding.copy(),
            weight=person.weight,
            first_at=person.first_at,
            last_at=person.last_at,
            looks=person.looks,
            chip=chip.copy() if good else None,
            own=embedding.copy() if good else None,
            quality=quality,
        )
        self._recall.note(look)

    def changed(self, gone: frozenset[int] | None) -> None:
        """The gallery has changed: judge every track again; ``gone`` people are forgotten. None: only strangers."""
        for known in self._known.values():
            if known.number is not None and known.number not in self._recall.unknown:
                known.number = None  # named, merged or too long ago
            if gone is not None:
                known.identity.reconsider(gone)
        if gone and self._followed is not None and self._followed.person in gone:
            self._followed = None

    # --- once a picture ---

    def show(self, frame: Frame, faces: Sequence[tuple[int, Box]], loose: Sequence[Box], at_s: float) -> Shown:
        """Return what is said of a picture's faces.

        Args:
            faces: its tracks and where they are.
            loose: faces that are on no track: whoever must not be seen may be among them.
            at_s: media time.
        """
        shown = Shown()
        present = {track: self._known[track] for track, _ in faces if track in self._known}
        self._share(present)
        for track, box in faces:
            known_ = present.get(track)
            if known_ is None:
                continue
            identity = known_.identity.identity
            if known_.outdone_by is not None:
                identity = Identity(status="unknown")
            if identity.status == "unknown" and known_.number is not None and not identity.withheld:
                identity = identity.model_copy(update={"number": known_.number})
            shown.identities[track] = identity
            known_.seen(frame.captured_at)
            known_.box = box
            self._correct(track, known_, identity)
            self._note(track, known_)
            if self._hides(known_, identity):
                known_.blurred_until_s = at_s + COVER_S
        covers = self._covers(present, loose, at_s)
        shown.blur_all = len(covers) > MOST_COVERS
        shown.blur = () if shown.blur_all else covers
        shown.selected = self._follow(shown.identities)
        self.collector.expire(at_s)
        shown.enrolling = self.collector.progress()
        return shown

    def rescale(self, fx: float, fy: float) -> None:
        """The pictures have another size: what was covered in the last one is at another place in the next."""
        for known in self._known.values():
            if known.box is not None:
                x, y, width, height = known.box
                known.box = x * fx, y * fy, width * fx, height * fy

    # --- what people ask for ---

    @property
    def following(self) -> bool:
        """Whether somebody is followed, in the picture or not."""
        return self._followed is not None

    def select(self, track: int | None, person: int | None = None, number: int | None = None) -> bool:
        """Follow a face (None: nobody); returns False if there is no such track."""
        if track is None and person is None and number is None:
            self._followed = None
            return True
        if track is not None and track not in self._known:
            return False
        self._followed = Followed(track, person, number)
        return True

    def enrol(self, order: Enrolment, track: int, at_s: float) -> bool:
        """Gather crops of a track and enrol whom they show; returns False if there is no such track."""
        if track not in self._known:
            return False
        self.collector.begin(replace(order, track=track), track, at_s)
        return True

    # --- inside ---

    def _collected(self, order: Enrolment) -> None:
        """The crops of an enrolment are there: what the face was as a stranger becomes the person's."""
        known = self._known.get(order.track)
        stranger = known is not None and known.identity.identity.status == "unknown" and not known.identity.withheld
        self._recall.note(replace(order, number=known.number) if known is not None and stranger else order)

    def _share(self, present: dict[int, Known]) -> None:
        """One person is in one place: of two faces with one name the nearer one has it, and keeps it while it is only
        out of sight; of two with one number the one that has been there longer.
        """
        claims: dict[int, tuple[float, int]] = {}
        numbers: set[int] = set()
        for track, known in present.items():
            said = known.identity.identity
            if known.outdone_by is not None:
                other = None if known.outdone_by in present else self._known.get(known.outdone_by)
                if other is None or other.identity.identity.person != said.person:
                    known.outdone_by = None
            if said.person is None:
                known.outdone_by = None
            elif known.outdone_by is None:
                rank = (said.distance or 0.0, track)
                claims[said.person] = min(claims.get(said.person, rank), rank)
        for track, known in sorted(present.items()):
            said = known.identity.identity
            if said.person is not None and known.outdone_by is None and claims[said.person][1] != track:
                known.outdone_by = claims[said.person][1]
            if known.number is not None and said.status == "unknown":
                if known.number in numbers:
                    known.number = None  # the next look finds another
                else:
                    numbers.add(known.number)

    def _correct(self, track: int, known: Known, now: Identity) -> None:
        before = known.shown
        if before is None or now.status != "pending":
            known.shown = now  # a name in doubt is still the one that was said, and so the one to be taken back
        if before is None or (before.status, before.person, before.number) == (now.status, now.person, now.number):
            return
        if now.status == "pending" or (before.status == "pending" and now.status == "unknown" and not now.number):
            return  # nothing has been found out
        fields = {"camera": self._camera, "run": known.run, "track": track, "from_seq": known.first_seq}
        self.corrections.append({**fields, "was": before, "now": now})

    def _note(self, track: int, known: Known, *, last: bool = False) -> None:
        identity = known.identity.identity
        person = identity.person if identity.status == "known" and known.outdone_by is None else None
        number = known.number if identity.status == "unknown" else None
        who = (person, number)
        if known.identity.withheld:
            if known.number is not None or known.noted_as is not None:
                person = known.identity.held
                self._recall.note(Withheld(track=track, person=person, number=known.number, since=known.begin_at))
                if known.number is not None:
                    self._recall.unknown.withdraw(known.number, known.begin_at)
                known.number = known.noted_as = None
            return
        if who == (None, None) and known.noted_as is None:
            return
        due = known.end_at - known.noted_at >= NOTE_EVERY_S or (last and known.end_at > known.noted_at)
        if who == known.noted_as and not due:
            return
        known.noted_at, known.noted_as = known.end_at, who
        times = {"begin_at": known.begin_at, "end_at": known.end_at}
        self._recall.note(Sighting(track=track, camera=self._camera, person=person, unknown=number, **times))

    def _hides(self, known: Known, identity: Identity) -> bool:
        mode = self._config.privacy.blur
        if mode == "none":
            return False
        undecided = identity.status == "pending"
        return undecided or known.identity.withheld or (mode == "unknown" and identity.status == "unknown")

    def _covers(self, present: dict[int, Known], loose: Sequence[Box], at_s: float) -> tuple[Box, ...]:
        if self._config.privacy.blur == "none":
            return ()
        boxes = [wider(box) for box in loose]
        for track, known in self._known.items():
            # A face that the detector misses for a moment is still in the picture.
            if known.box is not None and at_s < known.blurred_until_s:
                fresh = track in present
                boxes.append(wider(known.box, BLUR_MARGIN if fresh else 2 * BLUR_MARGIN))
        return tuple(boxes)

    def _follow(self, identities: dict[int, Identity]) -> int | None:
        followed = self._followed
        if followed is None:
            return None
        current = identities.get(followed.track) if followed.track is not None else None
        if current is not None:
            if current.status != "pending":  # whoever it was taken for before is somebody else
                followed.person, followed.number = current.person, current.number
            return followed.track
        for track, identity in identities.items():
            if (followed.person is not None and identity.person == followed.person) or (
                followed.number is not None and identity.number == followed.number
            ):
                followed.track = track
                return track
        return None


def correction(fields: dict[str, Any], sender: str) -> Correction:
    """Return the message that a correction is published as."""
    return Correction(sender=sender, **fields)
