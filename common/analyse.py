"""``analyse``: every frame of a video, or every picture of a folder, to a table and perhaps an annotated video.

The same stages as live, in every-frame mode and in a run directory of their own; the conductor hands each result to
this process, which waits for nothing else and loses nothing. The same input gives the same table, whatever the workers.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import shutil
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from common import blurring, options
from common.channels import CHANNELS
from common.config import ConfigError, load
from common.drawing import annotate
from common.encoder import STILLS_RATE, EncoderError
from common.messages import CameraState, EndOfSource, MessageError, Picture, array_from, kind_of, unpack
from common.news import NewsReader
from common.outputs import OutputError, Outputs
from common.plan import plan
from common.progress import Progress
from common.run import end_on_signals, say
from common.rundir import RunDir
from common.settings import POOLS, CameraConfig, Config
from common.sources import SourceError, open_source, parse_source
from common.supervisor import Supervisor
from common.tables import TableError, rows_of
from common.transport import Socket, opened

CAMERA = "input"
STAGES_NEEDED = ("bus", "conductor", "detection", "identity", "expression", "capture")
JOB_TIMEOUT_MS = 30_000.0  # nobody waits: a slow worker is not a lost one
INTERRUPTED = 130  # exit code, as of a program that Ctrl-C has ended
_STATE_WAIT_S = 3.0


class AnalyseError(Exception):
    """An analysis that cannot begin, or broke off; the text says why and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """What is to be analysed, looked at before anything is started.

    Attributes:
        source: as the capture stage is told.
        frames: how many are announced; None if unknown, and an estimate in some kinds of file.
        rate: pictures a second, for the annotated video.
    """

    source: str
    description: str
    frames: int | None
    rate: float
    still: bool


@dataclass(slots=True)
class Tally:
    """What was done so far."""

    frames: int = 0
    faces: int = 0
    not_analysed: int = 0
    tracks: set[int] = field(default_factory=set)


def main(arguments: argparse.Namespace) -> int:
    """Analyse ``arguments.input`` into ``arguments.out``; return the exit code.

    0: all of it is there; 1: something is missing, which was said; 2: it could not begin, and nothing was made; 130:
    interrupted. What was done before it broke off is kept, under a name that says so.

    Raises:
        ConfigError, RunDirError, TransportError: it cannot begin.
    """
    stop = threading.Event()
    end_on_signals(stop)
    try:
        outputs = Outputs(arguments.out, arguments.annotated, force=arguments.force)
        found = examine(arguments.input)
        outputs.spare(found.source)
        with contextlib.ExitStack() as stack:
            config = configure(arguments, found, stack)
            place = stack.enter_context(RunDir(config))
            outputs.create(found.rate, still=found.still)
            stack.callback(outputs.close)
            progress = stack.enter_context(Progress(found.frames))
            analysis = Analysis(config, found, outputs, progress, verbose=arguments.verbose)
            analysis.run(place.config_file, stop)
    except (AnalyseError, OutputError, SourceError, TableError) as error:
        say(f"cannot analyse {arguments.input}: {error}")
        return 2
    return analysis.conclude(interrupted=stop.is_set())


def examine(source: str) -> Input:
    """Open the input and read its first picture. Raises SourceError: unreadable, damaged, empty; AnalyseError: live."""
    spec = parse_source(source)
    if spec.kind not in ("video", "image", "folder", "demo", "crowd"):
        raise AnalyseError(f"{spec.description} has no end: give a video, a picture or a folder of pictures")
    notices: list[str] = []
    looked = open_source(spec, loop=False, notify=notices.append)
    try:
        looked.open()
        if looked.read() is None:
            raise SourceError(f"{spec.description} holds no picture")
        rate = STILLS_RATE if looked.still else looked.frame_rate or 25.0
        place = str(Path(spec.place).absolute()) if spec.place else spec.description
        return Input(
            source=place, description=spec.description, frames=looked.frame_count, rate=rate, still=looked.still
        )
    finally:
        looked.close()


def configure(arguments: argparse.Namespace, found: Input, stack: contextlib.ExitStack) -> Config:
    """Return the configuration of the analysis: the user's, in a private run directory that ``stack`` removes.

    Raises:
        ConfigError: a setting is wrong, or a pool has no worker.
    """
    config = load(arguments.config, overrides=options.overrides_of(arguments))
    for pool in POOLS:
        if getattr(config.workers, pool) < 1:
            raise ConfigError(f"workers.{pool} = 0: an analysis needs at least one worker in each pool")
    run_dir = arguments.run_dir and arguments.run_dir.absolute()
    if run_dir is None:
        run_dir = Path(tempfile.mkdtemp(prefix="mien-"))
        stack.callback(shutil.rmtree, run_dir, ignore_errors=True)
    settings = config.model_dump() | {
        "run_dir": run_dir,
        "every_frame": True,
        "loop": False,
        "cameras": {CAMERA: CameraConfig(source=found.source).model_dump()},
        "endpoints": private_endpoints(run_dir),
        "cell": {},
        "alerts": {"rules": ()},  # nobody is called, and those that are there may be for other cameras
    }
    settings["pipeline"] |= {
        "first_track": 1,
        "job_timeout_ms": max(JOB_TIMEOUT_MS, config.pipeline.job_timeout_ms),
    }
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]["msg"]
        raise ConfigError(f"{problem.removeprefix('Value error, ')} (--run-dir DIR)") from error


def private_endpoints(run_dir: Path) -> dict[str, str]:
    """Return an address for each channel that no other run uses."""
    if sys.platform != "win32":
        return {channel: f"ipc://{run_dir}/{channel}" for channel in CHANNELS}
    holders = [socket.create_server(("127.0.0.1", 0)) for _ in CHANNELS]
    ports = [holder.getsockname()[1] for holder in holders]
    for holder in holders:
        holder.close()
    return {channel: f"tcp://127.0.0.1:{port}" for channel, port in zip(CHANNELS, ports, strict=True)}


class Analysis:
    """One run over the input. Belongs to one thread."""

    def __init__(self, config: Config, found: Input, outputs: Outputs, progress: Progress, *, verbose: bool) -> None:
        self.tally = Tally()
        self.complete = False
        self.failure: str | None = None  # why it broke off
        self.warnings = 0
        self._run: int | None = None  # of the capture
        self._config = config
        self._found = found
        self._outputs = outputs
        self._progress = progress
        self._verbose = verbose
        self._began = time.monotonic()
        self._seconds = 0.0

    def run(self, config_file: Path, stop: threading.Event) -> None:
        """Analyse until the end, ``stop``, or a failure; close the files."""
        specs = plan(self._config, only=STAGES_NEEDED, screen=False)
        arguments = ("--verbose",) if self._verbose else ()
        with opened("archive", self._config.endpoint("archive"), "pull", bind=True) as archive:
            supervisor = Supervisor(self._config, specs, config_file=config_file, say=self._hear, arguments=arguments)
            try:
                supervisor.start()
                self._collect(archive, supervisor, stop)
                if self.complete:
                    self._ask_how_it_ended(supervisor)
            finally:
                supervisor.stop()
                self._outputs.close()
                self._seconds = time.monotonic() - self._began

    def conclude(self, *, interrupted: bool) -> int:
        """Name the files for good, or say what is kept; return the exit code."""
        tally, outputs = self.tally, self._outputs
        for failure in outputs.failures:
            say(failure)
        if self.complete and outputs.failures:
            say(f"{tally.frames} frames were analysed; what could be written of them is in {outputs.kept}")
            return 1
        if self.complete:
            try:
                outputs.publish()
            except OSError as error:
                say(f"{error.filename} cannot get its name: {error.strerror}; it is complete in {outputs.kept}")
                return 1
            missing = f", {tally.not_analysed} frames could not be analysed whole" if tally.not_analysed else ""
            say(
                f"{tally.frames} frames, {tally.faces} faces, {len(tally.tracks)} tracks in {self._seconds:.1f} s "
                f"({tally.frames / max(self._seconds, 1e-9):.1f} frames/s){missing}: "
                + " and ".join(map(str, outputs.finals))
            )
            return 1 if tally.not_analysed or self.warnings or self.failure else 0
        why = "interrupted" if interrupted and self.failure is None else self.failure
        if not tally.frames:
            outputs.discard()
            say(f"{why}; nothing was analysed, and nothing is left behind")
        else:
            of = f" of {self._found.frames}" if self._found.frames else ""
            say(f"{why}; what was done, {tally.frames}{of} frames, is in {outputs.kept}")
        return INTERRUPTED if interrupted and self.failure is None else 1 if tally.frames else 2

    # --- while it runs ---

    def _collect(self, archive: Socket, supervisor: Supervisor, stop: threading.Event) -> None:
        turned_at = -math.inf
        while not (stop.is_set() or self.complete or self.failure):
            parts = archive.receive(timeout_ms=50)
            if parts is not None:
                try:
                    self._take(parts)
                except OSError as error:
                    self.failure = f"{self._outputs.finals[0]} cannot be written: {error.strerror or error}"
            if (now := time.monotonic()) - turned_at >= 0.1:
                turned_at = now
                supervisor.turn(0.0)
                self._progress.show(self.tally.frames)
                self.failure = self.failure or supervisor.failure or _broken(supervisor)

    def _take(self, parts: list[memoryview]) -> None:
        kind = kind_of(bytes(parts[0][:256]))
        if kind is EndOfSource:
            end = unpack(EndOfSource, parts[1])
            if self._run not in (None, end.run):
                self.failure = "the input broke off: it was opened again and could be read no more"
            elif end.frames > self.tally.frames:
                self.failure = f"the last {end.frames - self.tally.frames} frames were lost on the way"
            else:
                self.complete = True
            return
        if kind is not Picture or len(parts) != 3:
            raise MessageError(f"the conductor sent {kind.__name__} with {len(parts)} parts")
        picture = unpack(Picture, parts[1])
        result = picture.result
        self._run = result.run
        tally = self.tally
        if result.seq != tally.frames:
            self.failure = f"frame {tally.frames} was lost on the way (frame {result.seq} came)"
            return
        assert self._outputs.table is not None
        self._outputs.table.write(rows_of(result))
        tally.frames += 1
        tally.faces += len(result.faces)
        tally.tracks.update(face.track for face in result.faces)
        named = f"frame {result.seq}{f' ({result.name})' if result.name else ''}"
        if not result.analysed:
            tally.not_analysed += 1
            say(f"{named} could not be analysed")
        elif any(face.expression.status == "pending" for face in result.faces):
            tally.not_analysed += 1
            say(f"{named}: not every face's expression could be judged")
        if self._outputs.video is not None:
            pixels = array_from(parts[2], (result.height, result.width, 3), np.uint8, "picture")
            at_s = tally.frames / self._found.rate if self._found.still else result.media_time_s
            try:
                self._outputs.video.write(annotate(blurring.fit_to_show(pixels, picture), result), at_s)
            except EncoderError as error:  # the results are worth more than the video: they go on
                self._outputs.failures.append(str(error))
                self._outputs.video = None
                say(f"{error}; the results go on without it")

    def _ask_how_it_ended(self, supervisor: Supervisor) -> None:
        """A file that cannot be read to its end has an end, too; the capture stage says why, once a second."""
        reader = NewsReader(self._config, (f"camera.{CAMERA}",))
        deadline = time.monotonic() + _STATE_WAIT_S
        try:
            while time.monotonic() < deadline:
                for _, message in reader.read(timeout_ms=50):
                    if isinstance(message, CameraState) and message.state == "ended":
                        if message.reason:
                            self.failure = message.reason
                            self.complete = self.tally.frames > 0
                            say(message.reason)
                        return
                supervisor.turn(0.0)
        finally:
            reader.close()

    def _hear(self, line: str) -> None:
        """Pass on what matters of that which stages and supervisor say."""
        bad = any(mark in line for mark in (" WARNING ", " ERROR "))
        if f"mien.capture.{CAMERA} WARNING" in line:
            self.warnings += 1  # a picture skipped, a video cut off
        if self._verbose or bad or "starting it again" in line or "FAILED" in line:
            say(line)


def _broken(supervisor: Supervisor) -> str | None:
    """Return why the analysis cannot go on, None if it can: workers may come and go, what remembers may not."""
    for child in supervisor.children:
        if child.spec.stage in ("conductor", "capture") and child.restarts:
            return f"{child.spec.name} ended in the middle ({child.last_error() or 'without a word'})"
    for pool in POOLS:
        workers = [child for child in supervisor.children if child.spec.stage == pool]
        if all(child.state == "failed" for child in workers):
            return f"no {pool} worker is left ({workers[0].last_error() or 'without a word'})"
    return None
