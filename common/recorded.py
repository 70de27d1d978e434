"""A conductor that writes down what it is told and what it decides, so that a replay can decide again. No sockets.

An entry is one call: what it is, when (monotonic seconds), its message, the arrays that decisions need, whether the
message was refused, the answers on the tape, and what was decided. Of a finding the boxes, landmarks, scores, qualities
and probabilities are kept; crops, patches, appearances and embeddings only with ``biometrics``; whole pictures never.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgpack

from common import clock
from common.conductor import Conductor, Outbox
from common.line import Flight
from common.messages import (
    Correction,
    DetectionFinding,
    EndOfSource,
    ExpressionFinding,
    Frame,
    IdentityFinding,
    Message,
    MessageError,
    Ready,
    Result,
    pack,
)
from common.recall import Enrolment, Snapshot
from common.settings import Config
from common.tape import RecordedRecall, Tape, recorded_ids

PLAIN = 4  # boxes, scores, landmarks, qualities: the first parts of a detection, which say where and how, not who
SECTIONS = ("identity", "expression", "detection", "pipeline", "privacy")  # settings that decisions depend on


class RecordedConductor(Conductor):
    """Decides as ``Conductor`` does.

    Args:
        recall: the people that are known, answering on ``tape``.
        biometrics: keep all arrays of the findings.
    """

    def __init__(
        self,
        config: Config,
        outbox: Outbox,
        *,
        sender: str,
        new_track: Callable[[], int],
        recall: RecordedRecall,
        tape: Tape,
        biometrics: bool = False,
    ) -> None:
        self._decided = _Decided(outbox)
        super().__init__(config, self._decided, sender=sender, new_track=recorded_ids(tape, new_track), recall=recall)
        self._tape = tape
        self._biometrics = biometrics
        self._pack = msgpack.Packer(use_bin_type=True, autoreset=True).pack
        everything = config.model_dump(mode="json")
        settings = {key: everything[key] for key in ("every_frame", *SECTIONS)}
        for section in ("detection", "expression"):
            settings[section]["model"] = None  # where somebody's files are is nobody's business
        begin: dict[str, Any] = {"sender": sender, "host": clock.host(), "cameras": list(config.cameras)}
        begin |= {"settings": settings, "remembers": recall.remembers}
        self._entries: list[bytes] = [self._pack(["begin", begin])]
        self.stopped = False  # nothing more is written down

    def written(self) -> bytes:
        """Return the entries since the last call, packed one after the other."""
        entries = b"".join(self._entries)
        self._entries.clear()
        return entries

    def give_up(self, why: str) -> None:
        """Write no more, and say so in the recording; deciding goes on."""
        self.stopped = True
        self._entries.append(self._pack(["gave up", why]))

    # --- what arrives ---

    def frame(self, frame: Frame, pixels: Any, now: float) -> None:
        with self._entry("frame", now, frame):
            super().frame(frame, pixels, now)

    def end_of_source(self, end: EndOfSource, now: float) -> None:
        with self._entry("end", now, end):
            super().end_of_source(end, now)

    def subscribed(self, worker: str, now: float) -> None:
        with self._entry("subscribed", now, worker):
            super().subscribed(worker, now)

    def gone(self, worker: str, now: float) -> None:
        with self._entry("gone", now, worker):
            super().gone(worker, now)

    def ready(self, message: Ready, now: float) -> None:
        with self._entry("ready", now, message):
            super().ready(message, now)

    def detection(self, finding: DetectionFinding, blobs: Sequence[Any], now: float) -> None:
        with self._entry("detection", now, finding, blobs if self._biometrics else blobs[:PLAIN]):
            super().detection(finding, blobs, now)

    def expression(self, finding: ExpressionFinding, blobs: Sequence[Any], now: float) -> None:
        with self._entry("expression", now, finding, blobs):
            super().expression(finding, blobs, now)

    def identity(self, finding: IdentityFinding, blobs: Sequence[Any], now: float) -> None:
        with self._entry("identity", now, finding, blobs if self._biometrics else ()):
            super().identity(finding, blobs, now)

    def tick(self, now: float) -> None:
        with self._entry("tick", now, None):
            super().tick(now)

    def people(self, snapshot: Snapshot) -> None:
        with self._entry("people", 0.0, None):
            super().people(snapshot)

    def select(self, camera: str, track: int | None, person: int | None, number: int | None) -> bool:
        with self._entry("select", 0.0, [camera, track, person, number]):
            return super().select(camera, track, person, number)

    def enrol(self, camera: str, order: Enrolment, track: int) -> bool:
        with self._entry("enrol", 0.0, [camera, track]):  # under which name is not decided here
            return super().enrol(camera, order, track)

    # --- inside ---

    @contextlib.contextmanager
    def _entry(self, what: str, now: float, told: Any, blobs: Sequence[Any] = ()) -> Iterator[None]:
        refused = False
        try:
            yield
        except MessageError:
            refused = True
            raise
        finally:
            tape, decided = self._tape.cut(), self._decided.cut()
            if not self.stopped:
                message = pack(told) if isinstance(told, Message) else told
                arrays = [] if refused else [memoryview(blob).tobytes() for blob in blobs]
                self._entries.append(self._pack([what, now, message, arrays, refused, tape, decided]))


class _Decided:
    """An outbox that passes everything on and notes it."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._noted: list[Any] = []

    def cut(self) -> list[Any]:
        noted, self._noted = self._noted, []
        return noted

    def job(self, worker: str, message: Message, blobs: Sequence[Any]) -> None:
        self._noted.append(["job", worker, message.kind, getattr(message, "job", 0)])
        self._outbox.job(worker, message, blobs)

    def result(self, result: Result, flight: Flight) -> None:
        self._noted.append(["result", pack(result)])
        self._outbox.result(result, flight)

    def picture(self, result: Result, flight: Flight) -> None:
        self._noted.append(["picture", pack(result)])
        self._outbox.picture(result, flight)

    def correction(self, message: Correction) -> None:
        self._noted.append(["correction", pack(message)])
        self._outbox.correction(message)

    def ended(self, camera: str, run: int, missing: int | None) -> None:
        self._noted.append(["ended", camera, run])
        self._outbox.ended(camera, run, missing)
