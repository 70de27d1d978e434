"""People in running clips: how soon a known face has its name, wrong names, and how often identity looks at a face."""

from __future__ import annotations

import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from bench.pipeline import Running
from bench.report import Report, median
from common import media, people
from common.analyse import private_endpoints
from common.config import load
from common.enrolment import PhotoReader
from common.instance import instance_of
from common.media import sample
from common.messages import IdentityJob, Result, unpack
from common.news import NewsReader
from common.settings import Config
from common.store import Store
from common.transport import Socket, opened
from common.worker import job_topic

ROUNDS = 3
SECONDS = 20.0
EARLY_S = 5.0  # of a track
# clip: whom it shows, and which of its frames enrols them
CLIPS = {"woman.mp4": ("Wanda", 300), "man.mp4": ("Manfred", 40)}
PLAYED = ("woman.mp4",)  # the other one is over before the networks are loaded
STAGES = ("bus", "conductor", "detection", "identity", "expression", "capture")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What one playing of a clip showed of the person in it; seconds.

    Attributes:
        name_after_s: from the first result with the face to the first with the name; None: it never had one.
        faces, named, wrong: faces published, with the right name, with another one.
        early: looks of identity at the first track in its first five seconds.
        later: … and in every ten after that; None where the track was not that long.
    """

    name_after_s: float | None
    faces: int
    named: int
    wrong: int
    early: int
    later: float | None


def live(report: Report, config: Config, source: Path | None) -> None:
    """A clip played a few times, with the people of both clips and of two photographs enrolled."""
    for clip in PLAYED:
        rounds = [seen(*played(config, clip), CLIPS[clip][0]) for _ in range(ROUNDS)]
        waits = [1e3 * one.name_after_s for one in rounds if one.name_after_s is not None]
        report.add(
            "Known faces in running clips",
            clip=clip,
            rounds=ROUNDS,
            name_ms_median=median(waits) if waits else None,
            name_ms_longest=max(waits, default=None),
            faces=sum(one.faces for one in rounds),
            named_percent=100 * sum(one.named for one in rounds) / sum(one.faces for one in rounds),
            wrong_names=sum(one.wrong for one in rounds),
            looks_in_5_s=max(one.early for one in rounds),
            then_in_10_s=max((one.later for one in rounds if one.later is not None), default=None),
        )


def seen(results: list[tuple[float, Result]], looks: list[float], name: str) -> Seen:
    """Return what a clip with one face at a time showed of the person of this name."""
    faces = [(at, face) for at, result in results for face in result.faces]
    first = faces[0][1].track
    begin, end = faces[0][0], max(at for at, face in faces if face.track == first)
    named = [at for at, face in faces if face.track == first and face.identity.name == name]
    rest = end - begin - EARLY_S
    return Seen(
        name_after_s=named[0] - begin if named else None,
        faces=len(faces),
        named=sum(face.identity.name == name for _, face in faces),
        wrong=sum(face.identity.name not in (None, name) for _, face in faces),
        early=sum(at <= begin + EARLY_S for at in looks if at <= end),
        later=10 * sum(begin + EARLY_S < at <= end for at in looks) / rest if rest > 1 else None,
    )


def played(config: Config, clip: str) -> tuple[list[tuple[float, Result]], list[float]]:
    """Return what was published, and when identity was asked to look, until nothing comes any more; monotonic."""
    folder = Path(tempfile.mkdtemp(prefix="mien-"))
    for name in ("samples", "compiled"):
        (folder / name).symlink_to(media.data_dir() / name)
    settings = config.model_dump(mode="json", exclude={"endpoints", "cameras", "run_dir"})
    settings |= {"cameras": {"cam0": {"source": str(sample(clip))}}, "run_dir": str(folder / "run")}
    settings["storage"]["data_dir"] = str(folder)
    settings["endpoints"] = private_endpoints(folder / "run") | {"archive": None}
    own = load(overrides=settings, environment={})
    _enrol(own)
    results: list[tuple[float, Result]] = []
    looks: list[float] = []
    reader = NewsReader(own, ("results.",))
    jobs: Socket | None = None
    try:
        with Running(own, only=STAGES) as running:
            began = time.monotonic()
            while time.monotonic() < began + 60 + SECONDS:
                if jobs is None and "identity.1" in running.pids():
                    jobs = opened("jobs", own.endpoint("jobs"), "sub")
                    jobs.subscribe(job_topic(instance_of("identity", running.pids()["identity.1"])))
                results += [(time.monotonic(), one) for _, one in reader.read(timeout_ms=20) if isinstance(one, Result)]
                while jobs is not None and (parts := jobs.receive()) is not None:
                    looks += [time.monotonic()] * len(unpack(IdentityJob, parts[1]).shapes)
                if results and time.monotonic() > results[-1][0] + 2:
                    break
            if jobs is not None:
                jobs.close()
    finally:
        reader.close()
        shutil.rmtree(folder, ignore_errors=True)
    return results, looks


def _enrol(config: Config) -> None:
    reader = PhotoReader(config)
    with Store(config.storage.place) as store:
        for clip, (name, number) in CLIPS.items():
            film = cv2.VideoCapture(str(sample(clip)))
            film.set(cv2.CAP_PROP_POS_FRAMES, number)
            ok, frame = film.read()
            film.release()
            assert ok, f"{clip} has no frame {number}"
            people.add(store, name, [reader.reference_of(np.asarray(frame, np.uint8), clip)])
        for name in ("obama", "biden"):
            people.add(store, name.title(), [reader.reference(sample(f"{name}.jpg"))])
