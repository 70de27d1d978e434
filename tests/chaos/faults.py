"""A running Mien with somebody known in view, and what can be done to it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import cv2
import psutil

from common import crowd, people, ring
from common.control import ask
from common.crowd import FaceTruth
from common.enrolment import PhotoReader, Rejected
from common.ledger import Ledger
from common.messages import Face, Result, Stats
from common.settings import Config
from common.store import Store
from common.watching import Viewer
from tests.conftest import wait_until
from tests.people import frame_of, own_data_dir
from tests.running import Running

HOOKS = Path(__file__).parent / "hooks"
NAME = "Wanda"
CROWD = ("Ada", "Ben")  # two of the people in the crowd scene
RESUMES_S = 2.0  # a process does its own work again so long after it is ready
WRITES_S = 2.0  # … and history, whose first row is of a second that must be over and settled, so much later
OFTEN = {"intervals_s": [0.5]}  # identity's setting: a look every half second, for whoever waits for a fresh one
RULE = {"name": "negative", "min_duration_s": 1.5, "leave_s": 60, "pause_s": 300, "escalate_after_s": None}
# Ids go on from the last conductor's, as they do for everybody.
DEFAULTS = {"alerts": {"rules": [RULE]}, "pipeline": {"first_track": None}}


def data_dir(config: Config) -> Path:
    """A data directory with the models in which one person is enrolled, as the demo shows her."""
    path = own_data_dir(config.run_dir / "data")
    if not (path / "mien.db").exists():
        with Store(path) as store:
            reader = PhotoReader(config)
            people.add(store, NAME, [reader.reference_of(frame_of("woman.mp4", 30), "clip")])
    return path


@dataclass(frozen=True, slots=True)
class Hit:
    """A process was killed or stopped; from when to when its work was not done, unix seconds."""

    child: str
    began_at: float
    ended_at: float


def crowd_data_dir(config: Config) -> Path:
    """The same for ``demo:crowd``: the two people are enrolled whose faces it shows largest for longest."""
    path = own_data_dir(config.run_dir / "data")
    shown: dict[int, list[tuple[float, int, FaceTruth]]] = {}
    for frame in crowd.truth():
        for face in frame.faces:
            if face.visible == 1 and not face.turned:
                shown.setdefault(face.person, []).append((face.height, frame.frame, face))
    most = sorted(shown.values(), key=lambda faces: -sum(height for height, _, _ in faces))
    reader, names = PhotoReader(config), list(CROWD)
    capture = cv2.VideoCapture(str(crowd.crowd_video()))
    with Store(path) as store:
        for faces in most:
            best = sorted(faces, key=lambda one: -one[0])[:: max(1, len(faces) // 20)]
            references = [one for _, number, face in best if (one := looked_at(reader, capture, number, face))]
            if names and len(references) >= 3:
                people.add(store, names.pop(0), references[:5])
    capture.release()
    assert not names, "two people of the crowd can be enrolled"
    return path


def looked_at(reader: PhotoReader, video: cv2.VideoCapture, number: int, face: FaceTruth) -> people.Reference | None:
    """A face of a video as something to enrol; None where it cannot be used."""
    video.set(cv2.CAP_PROP_POS_FRAMES, number)
    ok, picture = video.read()
    assert ok
    x, y, width, height = (round(value) for value in face.box)
    around = picture[max(0, y - height // 2) : y + 3 * height // 2, max(0, x - width // 2) : x + 3 * width // 2]
    try:
        return reader.reference_of(around, f"frame {number}")
    except Rejected:
        return None


class Victim(Running):
    """A running Mien that bad things happen to.

    Args:
        faults: ``CHAOS_…`` variables for ``hooks/sitecustomize.py``: ``LEAK__IDENTITY="20"``.
        empty: nothing was in its data directory before but the sample media and the compiled models.
    """

    def __init__(
        self,
        config: Config,
        *arguments: str,
        source: str = "demo",
        prefix: tuple[str, ...] = (),
        faults: dict[str, str] | None = None,
        environment: dict[str, str] | None = None,
        empty: bool = False,
        **overrides: Any,
    ) -> None:
        hooks = {"PYTHONPATH": str(HOOKS)} | {f"CHAOS_{name}": value for name, value in (faults or {}).items()}
        self.environment = (hooks if faults else {}) | (environment or {})
        self.prefix = prefix
        self.hits: list[Hit] = []
        self.judged = 0
        if empty:
            shutil.rmtree(config.run_dir / "data", ignore_errors=True)
        else:
            data_dir(config)
        super().__init__(config, source, *arguments, **(DEFAULTS | overrides))

    def until(self, predicate: Callable[[], Any], what: str, timeout_s: float = 30.0) -> Any:
        """As ``Running.until``, with the patience that a busy machine needs."""
        return super().until(predicate, what, timeout_s * patience())

    def supervisor(self) -> Stats | None:
        """What the supervisor told last."""
        return next((stats for stats in self.stats.values() if stats.stage == "supervisor"), None)

    def told(self, child: str, what: str) -> float | str | None:
        """One of its figures of a child: ``state``, ``pid``, ``restarts``."""
        stats = self.supervisor()
        return None if stats is None else stats.detail.get(f"{child}.{what}")

    def children(self) -> list[str]:
        """The names of its children."""
        stats = self.until(self.supervisor, "the supervisor tells its figures")
        return [name.removesuffix(".pid") for name in stats.detail if name.endswith(".pid")]

    def pids(self) -> dict[str, int]:
        """The processes by name, as the supervisor told them last."""
        return {child: int(self.told(child, "pid") or 0) for child in self.children()}

    def face(self) -> Face | None:
        """The one face of the newest result, None where there is none."""
        return self.results[-1].faces[0] if self.results and self.results[-1].faces else None

    def until_known(self, timeout_s: float = 60.0) -> Face:
        """The face, as soon as it has a name and an expression of its own in a result that comes from now on."""
        self.read()
        have = len(self.results)

        def known() -> Face | None:
            face = self.face()
            new = len(self.results) > have and face is not None
            return face if new and face.identity.name == NAME and face.expression.label else None  # type: ignore[union-attr]

        face: Face = self.until(known, "the face has its name and expression", timeout_s)
        return face

    def hit(self, child: str, how: signal.Signals, *, timeout_s: float = 60.0) -> float:
        """Kill or stop a process; return how long its work took to go on once another was ready, seconds."""
        before = self.pids()
        have, began_at = len(self.said()), time.time()
        os.kill(before[child], how)
        # As it is printed: what was hit may be the bus, and without it nothing is told.
        self.until(lambda: f"mien {child} runs again" in self.said()[have:], f"{child} runs again", timeout_s)
        began = time.monotonic()
        self.until_working(child.partition(".")[0])
        took_s = time.monotonic() - began
        self.hits.append(Hit(child, began_at, time.time()))
        self.until(
            lambda: self.told(child, "state") == "running" and self.told(child, "pid") != before[child],
            f"it is told that {child} runs again",
        )
        after = self.pids()
        assert after.pop(child) != before.pop(child)
        assert after == before, f"others than {child} were replaced"
        return took_s

    def until_named(self, *names: str) -> None:
        """Wait until each of these people was in a result that comes from now on."""
        self.read()
        have = len(self.results)

        def named() -> set[str | None]:
            return {face.identity.name for result in self.results[have:] for face in result.faces}

        self.until(lambda: set(names) <= named(), f"{' and '.join(names)} are named", 120)

    def until_working(self, stage: str) -> None:
        """Wait for something that only this stage can have made, and only from now on."""
        self.read()
        have = len(self.results)

        def faces() -> list[Face]:
            return [face for result in self.results[have:] if result.analysed for face in result.faces]

        match stage:
            case "identity":
                looked = distances(self.results)
                self.until(lambda: distances(self.results[have:]) - looked, "somebody is looked at", 20)
            case "expression":
                self.until(lambda: any(face.expression.probabilities for face in faces()), "an expression is judged")
            case "history":
                rows = self.stored("SELECT count(*) FROM history_second")
                self.until(lambda: self.stored("SELECT count(*) FROM history_second") > rows, "a second is written")
            case "alerts":
                [[episode]] = self.stored("SELECT min(id) FROM episode")
                reply = ask(self.config, "alerts", "judge", timeout_s=20, episode=episode, by="Kim", judgement="useful")
                assert reply.ok, reply.error
                self.judged += 1
                steps = self.stored("SELECT event FROM episode_step WHERE event = 'judged'")
                assert len(steps) == self.judged
            case "snapshot":
                reply = ask(self.config, "snapshot", "snapshot", timeout_s=20, camera="cam0")
                assert reply.ok, reply.error
            case "preview":
                viewer = Viewer(self.config)
                try:
                    viewer.watch("cam0")
                    self.until(viewer.receive, "a preview comes", 20)
                finally:
                    viewer.close()
            case "dashboard":
                self.until(self.page_answers, "the page answers", 20)
            case _:  # without any of the others there are no results, or none with faces
                self.until(lambda: len(faces()) >= 3, "faces are found", 20)

    def page_answers(self) -> bool:
        """Whether the page is served."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.config.dashboard.port}/healthz", timeout=5):
                return True
        except HTTPError:  # an answer, too: it says that not all is well
            return True
        except OSError:
            return False

    def stored(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a query."""
        with Ledger(self.config.storage.data_dir) as ledger, ledger.read() as connection:
            return [tuple(row) for row in connection.execute(sql)]

    def end_hard(self) -> None:
        """Leave nothing running, whatever has happened: its processes end when their parent is gone."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(5)
        self._reader.close()

    def descriptors(self, stage: str) -> int:
        """How many descriptors a stage has open."""
        return sum(process.num_fds() for process in self.processes(stage))

    def until_said(self, text: str, timeout_s: float = 60.0) -> str:
        """The first line that holds this text."""

        def line() -> str | None:
            return next((line for line in self.said().splitlines() if text in line), None)

        found: str = self.until(line, f"it says {text!r}", timeout_s)
        return found

    def quiet(self) -> None:
        """No traceback was printed: those are for faults of the program."""
        assert "Traceback" not in self.said(), self.said()[-6000:]


def distances(results: Sequence[Result]) -> set[tuple[int, float]]:
    """What the looks at each face amounted to: another value, another look."""
    faces = [face for result in results for face in result.faces]
    return {(face.track, face.identity.distance) for face in faces if face.identity.distance is not None}


def patience() -> float:
    """How much longer than promised anything may take: 1, or more where other programs want the processors, too."""
    return max(1.0, psutil.getloadavg()[0] / (os.cpu_count() or 1) / 2)  # two at a core are Mien's own


def processes_with(*marks: str) -> list[psutil.Process]:
    """The processes that have one of these texts in their command line or their environment."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE or process.username() != psutil.Process().username():
                continue
            words = [*process.cmdline(), *process.environ().values()]
            if any(mark in word for mark in marks for word in words):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def left(config: Config, *, killed: bool = False) -> list[str]:
    """What a run that has ended has left: processes, sockets, shared memory, files of the run.

    Args:
        killed: nobody was there to clear up; the files and the empty directories are cleared by the next run.
    """
    # Whatever a stage has started, too: as one that makes the store, which knows nothing of the run.
    marks = (str(config.run_dir / "config.json"), str(config.storage.data_dir))
    found = [f"process {process.pid}" for process in processes_with(*marks)]
    if not killed and config.run_dir.exists():
        found += [str(path) for path in config.run_dir.iterdir()]
    shared = ring.ring_dir(config)
    if shared is not None and shared.exists():
        found += [str(path) for path in shared.iterdir()] + ([] if killed else [str(shared)])
    for endpoint in (config.endpoints.news_in, config.endpoints.news_out, config.endpoints.previews):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", int(endpoint.rsplit(":", 1)[1]))) == 0:
                found.append(endpoint)
    for path in config.run_dir.iterdir() if config.run_dir.exists() else ():
        with socket.socket(socket.AF_UNIX) as local:
            if path.is_socket() and local.connect_ex(str(path)) == 0:
                found.append(f"{path}, on which somebody listens")
    return found


def none_left(config: Config, timeout_s: float = 10.0) -> None:
    """Of a run that was killed nothing is there any more: no process, no socket that takes anybody, no picture."""
    last: list[str] = []

    def gone() -> bool:
        last[:] = left(config, killed=True)
        return not last

    try:
        wait_until(gone, timeout_s, "nothing is left")
    finally:
        assert not last, last
