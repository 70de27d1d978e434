"""People in a running Mien: named, corrected, withheld, followed, enrolled live, forgotten; with real faces."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import cv2
import pytest

from common import control, forgetting, people
from common.enrolment import PhotoReader
from common.media import sample
from common.messages import Correction, Face
from common.settings import Config
from common.store import Store
from tests.chaos.faults import patience
from tests.conftest import wait_until
from tests.people import frame_of, own_data_dir
from tests.running import Running


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return own_data_dir(tmp_path / "own")


@pytest.fixture
def config(config: Config, data_dir: Path) -> Config:
    return config.model_copy(update={"storage": config.storage.model_copy(update={"data_dir": data_dir})})


class Watched(Running):
    """A running Mien with people of its own."""

    def __init__(self, config: Config, source: str, *arguments: str, **overrides: Any) -> None:
        storage = {"storage": {"data_dir": str(config.storage.data_dir)}}
        super().__init__(config, source, *arguments, **(storage | overrides))
        self.corrections: list[Correction] = []
        self._reader.socket.subscribe(b"corrections.")

    def read(self) -> list[tuple[str, Any]]:
        news = super().read()
        self.corrections += [message for _, message in news if isinstance(message, Correction)]
        return news

    def faces(self) -> list[Face]:
        return [face for result in self.results for face in result.faces]

    def now(self) -> Face | None:
        """The one face of the newest result, None where there is none."""
        return self.results[-1].faces[0] if self.results and self.results[-1].faces else None

    def until_now(self, status: str, timeout_s: float = 60.0) -> Face:
        def is_so() -> Face | None:
            face = self.now()
            return face if face is not None and face.identity.status == status else None

        face: Face = self.until(is_so, f"a face that is {status}", timeout_s)
        return face


def enrol_woman(config: Config, name: str = "Wanda", **fields: Any) -> None:
    with Store(config.storage.place) as store:
        reader = PhotoReader(config)
        people.add(store, name, [reader.reference_of(frame_of("woman.mp4", 30), "clip")], **fields)


def enrol_others(config: Config) -> None:
    with Store(config.storage.place) as store:
        reader = PhotoReader(config)
        people.add(store, "Manfred", [reader.reference_of(frame_of("man.mp4", 5), "clip")])
        for name in ("biden", "obama"):
            people.add(store, name.title(), [reader.reference(sample(f"{name}.jpg"))])


def test_a_known_face_is_named_at_once_and_nobody_is_ever_given_another_name(config: Config) -> None:
    enrol_woman(config)
    enrol_others(config)
    with Watched(config, str(sample("woman.mp4"))) as mien:
        mien.until(lambda: len([r for r in mien.results if r.faces]) >= 60, "60 frames with a face", 90)
        faces = mien.faces()
        assert {face.identity.name for face in faces} <= {None, "Wanda"}
        first = next(i for i, face in enumerate(faces) if face.identity.status == "known")
        assert first < 15 * patience()  # half a second
        assert all(face.identity.name == "Wanda" for face in faces[first:])
    with Store(config.storage.place) as store:
        assert len(people.sightings_of(store, people.find(store, "Wanda").id)) >= 1


def test_somebody_enrolled_while_it_runs_is_named_and_forgotten_within_seconds(config: Config) -> None:
    with Watched(config, str(sample("woman.mp4"))) as mien:
        number = mien.until_now("unknown").identity.number
        wait_until(lambda: _kept(config), 10, "the unknown person is written down")
        with Store(config.storage.place) as store:
            [stranger] = people.unknown_people(store)
            assert number in (stranger.number, None)
            person = people.from_unknown(store, stranger.number, "Wanda")
            face = mien.until_now("known", 5)
            assert (face.identity.name, face.identity.person) == ("Wanda", person.id)
            told = mien.until(lambda: [c for c in mien.corrections if c.now.name == "Wanda"], "a correction")[-1]
            assert told.was.status == "unknown" and told.track == face.track and told.from_seq <= mien.results[-1].seq
            # What was seen before the name was known is hers now.
            hers = lambda: face.track in {seen.track for seen in people.sightings_of(store, person.id)}  # noqa: E731
            wait_until(hers, 5, "her earlier sightings are hers")
            began = time.monotonic()
            forgetting.forget(store, config, "Wanda")
            mien.until(lambda: (f := mien.now()) is not None and f.identity.name is None, "she is forgotten", 5)
            assert time.monotonic() - began < 5
            seen = len(mien.results)
            mien.fresh_results(30)
            assert all(f.identity.name is None for r in mien.results[seen:] for f in r.faces)
            assert people.everybody(store) == []
            assert people.sightings_of(store, person.id) == []


def test_a_stranger_has_the_same_number_after_a_restart(config: Config) -> None:
    # Somebody who looks the same all the time, for half a minute: one look before and one after are enough.
    frame, clip = frame_of("man.mp4", 5), config.run_dir / "same.avi"
    writer = cv2.VideoWriter(str(clip), cv2.VideoWriter.fourcc(*"MJPG"), 10, (frame.shape[1], frame.shape[0]))
    for _ in range(300):
        writer.write(frame)
    writer.release()
    numbers = []
    for _ in range(2):
        with Watched(config, str(clip)) as mien:
            mien.until(lambda m=mien: (f := m.now()) is not None and f.identity.number is not None, "a number", 60)
            face = mien.now()
            assert face is not None
            numbers.append(face.identity.number)
    assert numbers[0] == numbers[1]


def test_without_consent_nothing_is_said_or_kept(config: Config) -> None:
    enrol_woman(config, consent="refused")
    with Watched(config, str(sample("woman.mp4"))) as mien:
        mien.until_now("unknown")
        mien.fresh_results(60)
        for face in mien.faces():
            assert (face.identity.name, face.identity.person, face.identity.number) == (None, None, None)
    with Store(config.storage.place) as store:
        assert people.unknown_people(store) == []
        assert people.sightings_of(store, people.find(store, "Wanda").id) == []


def test_consent_that_runs_out_while_it_runs_takes_the_name_away(config: Config) -> None:
    enrol_woman(config)
    with Watched(config, str(sample("woman.mp4"))) as mien:
        mien.until_now("known")
        with Store(config.storage.place) as store:
            people.change(store, "Wanda", consent_until=time.time() + 2.0)
        mien.until(lambda: (f := mien.now()) is not None and f.identity.status == "unknown", "no name any more", 8)


def test_a_face_is_selected_and_enrolled_live(config: Config) -> None:
    with Watched(config, "demo") as mien:  # the clip, again and again: it takes as long as it takes
        track = mien.until_now("unknown").track
        assert control.ask(mien.config, "conductor", "select", track=track).ok
        mien.until(lambda: mien.results[-1].selected == track, "the face is followed")
        refused = control.ask(mien.config, "conductor", "enrol", track=track + 1000, name="Wanda")
        assert not refused.ok and "no track" in str(refused.error)
        reply = control.ask(mien.config, "conductor", "enrol", timeout_s=90, track=track, name="Wanda")
        assert reply.ok, reply.error
        assert mien.until_now("known", 15).identity.name == "Wanda"
        with Store(config.storage.place) as store:
            [person] = people.everybody(store)
            assert person.references >= 2


def _kept(config: Config) -> bool:
    with Store(config.storage.place) as store:
        return bool(people.unknown_people(store))
