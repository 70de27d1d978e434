"""``--replay``: decide again what a recording holds, and compare. The same recording gives the same results.

Results and corrections go to standard output, a line of JSON each; what differs from what was recorded is said, and
makes the exit code 1: the decisions are not what they were.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from common import clock, options
from common.conductor import CHIP, EMBEDDING, Conductor
from common.config import load
from common.detected import APPEARANCE
from common.encryption import Cipher, key_of
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
    unpack,
)
from common.outlet import written
from common.recall import Enrolment, Snapshot
from common.recorded import PLAIN, SECTIONS
from common.recording import Recording, RecordingError
from common.settings import Config
from common.tape import Diverged, ReplayedRecall, Tape, replayed_ids

CLOSE = 1e-5  # numbers that differ less are the same: another processor rounds the last bit otherwise
UNSAID = {"at", "n"}  # when it was sent, and as which: of the sending, not of the decision


@dataclass(slots=True)
class Replayed:
    """What a replay came to.

    Attributes:
        differences: where it decides otherwise than was recorded, in words; the first few.
        notices: what the recording says of itself (cut off, given up).
    """

    results: int = 0
    corrections: int = 0
    runs: int = 0
    seconds: float = 0.0
    differs: int = 0
    differences: list[str] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)

    def differ(self, what: str) -> None:
        """Count a difference."""
        self.differs += 1
        if len(self.differences) < 10:
            self.differences.append(what)


def main(arguments: argparse.Namespace) -> int:
    """Replay ``arguments.replay``; return 0: the same again, 1: something differs, 2: it cannot be read."""
    config = load(arguments.config, overrides=options.overrides_of(arguments))
    path: Path = arguments.replay

    def tell(line: str) -> None:
        print(line, file=sys.stderr)

    try:
        with Recording(path, lambda: Cipher(key_of(config.storage.data_dir, make=False))) as recording:
            for _ in recording.blocks():
                pass  # damage is found before anything is said
        with Recording(path, lambda: Cipher(key_of(config.storage.data_dir, make=False))) as recording:
            done = replay(recording, _Printed())
    except RecordingError as error:
        tell(str(error))
        return 2
    for notice in done.notices:
        tell(notice)
    for difference in done.differences:
        tell(f"differs: {difference}")
    if done.differs > len(done.differences):
        tell(f"… and {done.differs - len(done.differences)} more")
    outcome = f"{done.differs} differences" if done.differs else "all as recorded"
    tell(
        f"{done.results} results and {done.corrections} corrections of {done.seconds:.1f} s "
        f"in {done.runs} run{'' if done.runs == 1 else 's'}: {outcome}"
    )
    return 1 if done.differs else 0


def replay(recording: Recording, show: Callable[[Result | Correction], None] = lambda message: None) -> Replayed:
    """Decide again all that is in a recording.

    Args:
        show: takes every result and correction, in order.

    Raises:
        RecordingError: damaged, or of a form that this version does not know.
    """
    done = Replayed()
    stage: _Again | None = None
    lost = False  # the replay has left the recorded run: what follows in this run says nothing
    for number, entry in enumerate(recording.entries()):
        try:
            if entry[0] == "begin":
                stage, lost = _Again(entry[1], done, show), False
                done.runs += 1
            elif entry[0] == "gave up":
                done.notices.append(f"the recording of this run ends early: {entry[1]}")
            elif stage is None:
                raise RecordingError(f"{recording.path}: entry {number} comes before the run began")
            elif not lost:
                stage.entry(entry)
        except Diverged as error:
            done.differ(f"entry {number} ({entry[0]}): the replay {error}; the rest of this run is left out")
            lost = True
        except (MessageError, ValidationError, TypeError, ValueError, IndexError, KeyError) as error:
            raise RecordingError(f"{recording.path}: entry {number} cannot be understood: {error}") from error
    if not recording.whole:
        done.notices.append(f"{recording.path} was cut off: replayed up to there")
    return done


class _Again:
    """One recorded run of a conductor, decided again. An ``Outbox``."""

    def __init__(self, begin: dict[str, Any], done: Replayed, show: Callable[[Result | Correction], None]) -> None:
        self._done, self._show = done, show
        self._host = begin["host"]
        self._first: float | None = None
        self._before = done.seconds
        self._decided: list[Any] = []
        self._tape = Tape()
        settings = {key: value for key, value in begin["settings"].items() if key in ("every_frame", *SECTIONS)}
        # Recorded before there was this setting, when every frame's expressions were looked at.
        settings["expression"] = {"every_ms": 0} | settings.get("expression", {})
        config = Config.model_validate(settings | {"cameras": {name: {"source": "demo"} for name in begin["cameras"]}})
        recall = ReplayedRecall(self._tape, remembers=begin["remembers"])
        self._recall = recall
        self._conductor = Conductor(
            config, self, sender=begin["sender"], new_track=replayed_ids(self._tape), recall=recall
        )

    def entry(self, entry: Sequence[Any]) -> None:
        """Do what was done, and compare what is decided. Raises Diverged: another question is asked than was."""
        what, now, told, arrays, refused, tape, decided = entry
        if now:
            self._first = now if self._first is None else self._first
            self._done.seconds = self._before + now - self._first
        self._tape.answers.extend((kind, value) for kind, value in tape)
        self._decided = []
        again_refused = False
        try:
            self._tell(what, now, told, arrays, refused)
        except MessageError as error:
            again_refused = True
            if not refused:
                self._done.differ(f"{what} at {now:.3f} s is refused ({error}), which it was not")
        if refused and not again_refused:
            self._done.differ(f"{what} at {now:.3f} s was refused, and is not")
        self._recall.events()
        if self._tape.answers:
            kinds = len(self._tape.answers)
            raise Diverged(f"leaves {kinds} answers unasked")
        self._compare(what, now, decided)

    def _tell(self, what: str, now: float, told: Any, arrays: list[bytes], refused: bool) -> None:
        conductor = self._conductor
        match what:
            case "frame":
                frame = unpack(Frame, told)
                if frame.clock.host == self._host:  # the machine of then is the machine of now
                    here = frame.clock.model_copy(update={"host": clock.host()})
                    frame = frame.model_copy(update={"clock": here})
                conductor.frame(frame, b"", now)
            case "end":
                conductor.end_of_source(unpack(EndOfSource, told), now)
            case "subscribed":
                conductor.subscribed(told, now)
            case "gone":
                conductor.gone(told, now)
            case "ready":
                conductor.ready(unpack(Ready, told), now)
            case "detection":
                found = unpack(DetectionFinding, told)
                conductor.detection(found, [] if refused else _filled(found, arrays), now)
            case "expression":
                conductor.expression(unpack(ExpressionFinding, told), arrays, now)
            case "identity":
                seen = unpack(IdentityFinding, told)
                conductor.identity(seen, [] if refused else _blank(seen), now)
            case "tick":
                conductor.tick(now)
            case "people":
                conductor.people(_NOBODY)
            case "select":
                conductor.select(*told)
            case "enrol":
                conductor.enrol(told[0], Enrolment(request="", name="", fields={}), told[1])
            case _:
                raise RecordingError(f"it holds {what!r}, which this version does not know")

    def _compare(self, what: str, now: float, decided: list[Any]) -> None:
        if len(decided) != len(self._decided):
            self._done.differ(
                f"after {what} at {now:.3f} s: {len(self._decided)} things are decided, {len(decided)} were"
            )
            return
        for was, (kind, message, *rest) in zip(decided, self._decided, strict=True):
            if was[0] != kind:
                self._done.differ(f"after {what} at {now:.3f} s: {kind}, it was {was[0]}")
            elif isinstance(message, Message):
                recorded = unpack(type(message), was[1])
                for place in _unlike(said(recorded), said(message)):
                    self._done.differ(f"{kind} after {what} at {now:.3f} s: {place}")
            elif list(was[1:]) != [message, *rest]:
                self._done.differ(f"after {what} at {now:.3f} s: {kind} {[message, *rest]}, it was {list(was[1:])}")

    # --- what is decided (Outbox) ---

    def job(self, worker: str, message: Message, blobs: Sequence[Any]) -> None:
        self._decided.append(["job", worker, message.kind, getattr(message, "job", 0)])

    def result(self, result: Result, flight: Flight) -> None:
        self._decided.append(["result", result])
        self._done.results += 1
        self._show(result)

    def picture(self, result: Result, flight: Flight) -> None:
        self._decided.append(["picture", result])

    def correction(self, message: Correction) -> None:
        self._decided.append(["correction", message])
        self._done.corrections += 1
        self._show(message)

    def ended(self, camera: str, run: int, missing: int | None) -> None:
        self._decided.append(["ended", camera, run])


def said(message: Message) -> dict[str, Any]:
    """Return what a message says, without what only its sending made."""
    return message.model_dump(mode="json", by_alias=True, exclude=UNSAID)


def _unlike(was: Any, now: Any, place: str = "") -> Iterator[str]:
    if isinstance(was, dict) and isinstance(now, dict):
        for key in sorted(was.keys() | now.keys()):
            yield from _unlike(was.get(key), now.get(key), f"{place}.{key}".lstrip("."))
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for index, (one, other) in enumerate(zip(was, now, strict=True)):
            yield from _unlike(one, other, f"{place}.{index}")
    elif isinstance(was, float) and isinstance(now, int | float):
        if not math.isclose(was, now, rel_tol=CLOSE, abs_tol=CLOSE):
            yield f"{place} is {now}, it was {was}"
    elif was != now:
        yield f"{place} is {now}, it was {was}"


def _filled(finding: DetectionFinding, arrays: list[bytes]) -> list[bytes]:
    """The arrays of a detection, blank where the recording has left them out: nothing is decided by those here."""
    crops = sum(reason is None for reason in finding.reasons) * finding.crop_size**2
    patches = [bytes(rows * columns * 3) for rows, columns in finding.patch_shapes]
    return [*arrays[:PLAIN], bytes(finding.count * APPEARANCE * 4), bytes(crops), *patches]


def _blank(finding: IdentityFinding) -> list[bytes]:
    return [bytes(finding.count * EMBEDDING * 4), bytes(finding.count * CHIP * CHIP * 3)]


class _Printed:
    """Prints what is decided, a line of JSON each, for as long as somebody reads it."""

    def __init__(self) -> None:
        self._read = True

    def __call__(self, message: Result | Correction) -> None:
        if self._read:
            said_again = {"kind": message.kind, **said(message)}
            self._read = written(json.dumps(said_again, ensure_ascii=False, separators=(",", ":")), sys.stdout)


_NOBODY = Snapshot(gallery=ReplayedRecall(Tape()).gallery)
