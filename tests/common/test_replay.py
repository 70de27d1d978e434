"""What was decided is decided again: by made-up faces and workers, and by the recording that lies beside this test."""

from __future__ import annotations

import argparse
import io
import random
import tracemalloc
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import config as configuration
from common import forgetting, kept_recordings
from common import replay as replaying
from common.encryption import Cipher, new_key
from common.gallery import Gallery, Member
from common.messages import IdentityFinding, IdentityJob, MessageError
from common.people import PeopleError
from common.recall import Snapshot
from common.recorded import RecordedConductor
from common.recording import FOLDER, MAGIC, MOST_BLOCK, SUFFIX, Recording, RecordingError, Writer
from common.replay import Replayed, replay
from common.smoothing import Look
from common.store import Store
from common.tape import RecordedRecall, Tape
from tests.common.test_conductor import Outbox, Scene
from tests.people import face_of

GOLDEN = Path(__file__).resolve().parents[1] / "recordings" / "woman.mien-recording"


class RecordedScene(Scene):
    """A scene whose conductor writes down; everybody looks like ``person``."""

    def __init__(self, *, biometrics: bool = False, **overrides: Any) -> None:
        super().__init__(workers=(), **overrides)
        tape = Tape()
        self.out = Outbox()
        self.person = 1
        self.looks = 0
        self.conductor = self.recorded = RecordedConductor(
            self.config, self.out, sender="conductor.test.1", new_track=iter(range(1, 10_000)).__next__,
            recall=RecordedRecall(tape), tape=tape, biometrics=biometrics,
        )  # fmt: skip
        self.recorded.recall.unknown.reserve(range(1, 50))
        for worker in ("detection.a", "detection.b", "expression.a", "identity.a"):
            self.join(worker)

    def know(self, *people: int) -> None:
        members = [Member(person=p, name=f"Person {p}", embeddings=face_of(p)[None]) for p in people]
        self.conductor.people(Snapshot(gallery=Gallery(members)))

    def answer(self, worker: str, job: Any, faces: int = 1, label: int = 4) -> None:
        if not isinstance(job, IdentityJob):
            super().answer(worker, job, faces, label)
            return
        count = len(job.boxes)
        self.looks += 1
        finding = IdentityFinding(sender=worker, job=job.job, work_ms=1.0, count=count)
        embeddings = np.stack([face_of(self.person + face, self.looks) for face in range(count)])
        self.conductor.identity(finding, [embeddings, np.zeros((count, 150, 150, 3), np.uint8)], self.now)


def again(scene: RecordedScene, path: Path) -> Replayed:
    path.unlink(missing_ok=True)
    with Writer(path) as writer:
        writer.add(scene.recorded.written())
    with Recording(path, _no_key) as recording:
        return replay(recording)


def _no_key() -> Cipher:
    raise AssertionError("nothing is sealed here")


def test_names_and_strangers_are_decided_again_without_a_face(tmp_path: Path) -> None:
    scene = RecordedScene()
    scene.know(7)
    for seq in range(240):
        if seq == 60:
            scene.know(1, 7)  # she is enrolled while it runs: a name found late
        scene.now += 1 / 30
        scene.frame(seq)
        scene.answer_all(faces=2)
        scene.conductor.tick(scene.now)
    told = {face.identity.name for result in scene.out.results for face in result.faces}
    assert "Person 1" in told and scene.out.corrections
    done = again(scene, tmp_path / "one")
    assert done.differences == [] and done.notices == []
    assert (done.results, done.corrections) == (240, len(scene.out.corrections))


def test_nothing_is_kept_by_which_a_face_could_be_known_unless_asked_for(tmp_path: Path) -> None:
    marks = [face_of(1, look).tobytes() for look in range(1, 6)]
    for biometrics in (False, True):
        scene = RecordedScene(biometrics=biometrics)
        for seq in range(30):
            scene.now += 1 / 30
            scene.frame(seq)
            scene.answer_all()
        written = scene.recorded.written()
        assert any(mark in written for mark in marks) is biometrics
        sizes = [len(a) for e in _entries(written) if e[0] == "detection" for a in e[3][4:]]
        assert bool(sizes) is biometrics


def _entries(data: bytes) -> list[Any]:
    reader = msgpack.Unpacker(None, raw=False)
    reader.feed(data)
    return list(reader)


@settings(max_examples=25)
@given(seed=st.integers(0, 2**32))
def test_whatever_happens_it_is_decided_again(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    """Workers that vanish, answer late, twice or badly; frames of old runs; people who come and are forgotten."""
    chance = random.Random(seed)
    scene = RecordedScene(identity={"intervals_s": (0.1,)})
    run, seq = 1, 0
    for _ in range(chance.randrange(10, 120)):
        scene.now += chance.choice((0.0, 0.01, 0.03, 0.2, 2.5))
        scene.person = chance.choice((1, 1, 1, 4))
        try:
            match chance.randrange(12):
                case 0 | 1 | 2 | 3 | 4:
                    scene.frame(seq, run=run, every_frame=seed % 3 == 0)
                    seq += 1
                case 5 | 6 | 7 if scene.out.jobs:
                    worker, job, _ = scene.out.jobs.pop(chance.randrange(len(scene.out.jobs)))
                    scene.answer(worker, job, chance.randrange(3))
                case 8:
                    scene.conductor.tick(scene.now)
                case 9:
                    scene.conductor.gone(chance.choice(("detection.a", "expression.a", "identity.a")), scene.now)
                    scene.join(chance.choice(("detection.a", "expression.a", "identity.a")))
                case 10:
                    scene.know(*chance.sample(range(1, 8), chance.randrange(4)))
                    if scene.conductor.lines:
                        scene.conductor.select("cam0", chance.randrange(1, 4), None, None)
                case _:
                    run, seq = max(1, run + chance.randrange(-1, 2)), 0
        except MessageError:
            pass  # refused, and so written down
    done = again(scene, tmp_path_factory.getbasetemp() / "random")
    assert done.differences == []
    assert done.results == len(scene.out.results)


def test_what_was_recorded_before_expressions_had_a_pace_replays_as_it_was(tmp_path: Path) -> None:
    scene = RecordedScene(expression={"every_ms": 0})
    for seq in range(12):
        scene.frame(seq)
        scene.answer_all()
        scene.now += 1 / 30
    path, entries = tmp_path / "old", list(msgpack.Unpacker(io.BytesIO(scene.recorded.written())))
    assert entries[0][1]["settings"]["expression"].pop("every_ms") == 0
    with Writer(path) as writer:
        writer.add(b"".join(map(msgpack.packb, entries)))
    with Recording(path, _no_key) as recording:
        done = replay(recording)
    assert done.differences == [] and done.results == len(scene.out.results) == 12


def test_forgetting_takes_a_person_out_and_leaves_what_came_before(tmp_path: Path) -> None:
    scene = RecordedScene()
    scene.know(1, 7)
    scene.person = 7  # somebody else is there first, and is named; the other is only among the nearest
    for seq in range(120):
        if seq == 60:
            scene.now += 30  # later, another face at the same place
            scene.person = 1
        scene.now += 1 / 30
        scene.frame(seq, media_time_s=scene.now - 100)
        scene.answer_all()
    assert {face.identity.name for result in scene.out.results for face in result.faces} >= {"Person 1", "Person 7"}
    folder = tmp_path / FOLDER
    folder.mkdir()
    path = folder / f"one{SUFFIX}"
    again(scene, path)
    assert kept_recordings.forget(tmp_path, _unasked(), {99}) == 0
    assert kept_recordings.forget(tmp_path, _unasked(), {1}) == 1
    assert b"Person 1" not in _content(path)
    with Recording(path, _no_key) as recording:
        done = replay(recording)
    assert done.differences == [] and done.results >= 59
    assert kept_recordings.forget(tmp_path, _unasked(), {5, 7}) == 1
    assert not path.exists() or b"Person 7" not in _content(path)
    empty = path.with_name(f"empty{SUFFIX}")
    for cut in (b"", MAGIC[:3], MAGIC):
        empty.write_bytes(cut)
        assert kept_recordings.forget(tmp_path, _unasked(), {1}) == 1
        assert not empty.exists()
    with Writer(path.with_name(f"two{SUFFIX}")), pytest.raises(RecordingError, match="being recorded"):
        kept_recordings.forget(tmp_path, _unasked(), {1})


def test_forgetting_a_stranger_cleans_recordings_by_their_number(tmp_path: Path) -> None:
    scene = RecordedScene()
    for seq in range(120):
        if seq == 60:
            scene.now += 30
            scene.person = 4
        scene.now += 1 / 30
        scene.frame(seq, media_time_s=scene.now - 100)
        scene.answer_all()
    numbers = [face.identity.number for result in scene.out.results for face in result.faces if face.identity.number]
    first, second = dict.fromkeys(numbers)
    path = tmp_path / FOLDER / f"one{SUFFIX}"
    again(scene, path)
    with Store(tmp_path) as store:
        config = configuration.load(overrides={"storage": {"data_dir": str(tmp_path)}}, environment={})
        with pytest.raises(PeopleError, match="no unknown person has the number 48"):
            forgetting.forget_unknown(store, config, 48)
        forgetting.forget_unknown(store, config, second)
        with Recording(path, _no_key) as recording:
            done = replay(recording)
        assert done.differences == [] and 59 <= done.results < 62
        forgetting.forget_unknown(store, config, first)
    assert not path.exists() or replayed(path) == 0


def replayed(path: Path) -> int:
    """Return how many results a recording gives."""
    with Recording(path, _no_key) as recording:
        return replay(recording).results


def test_a_recording_larger_than_a_block_may_be_is_cleaned_in_little_memory(tmp_path: Path) -> None:
    folder = tmp_path / FOLDER
    path = folder / f"large{SUFFIX}"
    with Writer(path) as writer:
        writer.add(msgpack.packb(["begin", {}]))
        for _ in range(70):
            writer.add(msgpack.packb(["tick", 0.0, bytes(1_000_000), [], None, [], []]))
        writer.add(msgpack.packb(["select", 0.0, ["cam0", 1, 7, None], [], None, [], []]))
    tracemalloc.start()
    try:
        assert kept_recordings.forget(tmp_path, _unasked(), {7}) == 1
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()
    with Recording(path, _no_key) as recording:
        assert sum(1 for _ in recording.entries()) == 71 and recording.whole
    assert [file.name for file in folder.iterdir()] == [path.name]


def test_a_block_that_could_not_be_read_again_is_not_written(tmp_path: Path) -> None:
    with Writer(tmp_path / "one") as writer, pytest.raises(RecordingError, match="could not be read again"):
        writer.add(bytes(MOST_BLOCK + 1))


def _content(path: Path) -> bytes:
    with Recording(path, _no_key) as recording:
        return b"".join(recording.blocks())


def _unasked() -> Cipher:
    return Cipher(new_key())


def test_another_decision_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = RecordedScene()
    for seq in range(30):
        scene.now += 1 / 30
        scene.frame(seq)
        scene.answer_all()
    monkeypatch.setattr("common.smoothing.Smoother.update", _blind)
    done = again(scene, tmp_path / "other")
    assert done.differs and any("expression" in one for one in done.differences)


def _blind(self: Any, at_s: float, own: Any, reason: Any) -> Any:
    return Look(status="pending")


def test_of_a_damaged_recording_nothing_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray(GOLDEN.read_bytes())
    data[-100] ^= 1
    path = tmp_path / "damaged"
    path.write_bytes(data)
    assert replaying.main(argparse.Namespace(config=None, replay=path)) == 2
    told = capsys.readouterr()
    assert told.out == "" and "is damaged before byte" in told.err


def test_the_golden_recording_is_decided_as_it_was() -> None:
    """A real run, written down once. Decisions that are meant to change: python -m tests.golden makes it anew."""
    with Recording(GOLDEN, _no_key) as recording:
        done = replay(recording)
    assert done.differences == []
    assert done.results > 50 and done.notices == []
