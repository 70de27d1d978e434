"""The default command: everything at once, watched, until somebody ends it."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator
from types import FrameType
from typing import Self

from common import media, options
from common.child import environment
from common.desktop import screen_problem
from common.endpoints import remote
from common.lifeline import SUPERVISED
from common.plan import plan
from common.rundir import RunDir
from common.settings import Config
from common.sources import parse_source
from common.supervisor import Supervisor

_MOST_LINES = 5000  # that wait for a terminal which takes none, as one that is paused
_LAST_LINES_S = 1.0
_TURN_S = 0.1
_FETCH = (
    "import sys; from common.lifeline import Lifeline; Lifeline(); from common import media; sys.exit(media.main())"
)


class RunError(RuntimeError):
    """A run that cannot begin; the text says why and what to do."""


def run(arguments: argparse.Namespace) -> int:
    """Start all that the configuration and the command line ask for; return the exit code when it has ended.

    Raises:
        ConfigError, RunDirError, RunError: it cannot begin.
    """
    config = recorded_as_asked(options.settled(arguments, tell=say), arguments)
    headless = arguments.headless
    if not headless and (problem := screen_problem()) is not None and "display" not in arguments.only:
        say(f"no window: {problem}")
        headless = True
    specs = plan(config, only=arguments.only, without=arguments.without, screen=not headless)
    if arguments.record is not None and not any(spec.stage == "conductor" for spec in specs):
        raise RunError("--record: the conductor writes a recording, and it is not among the stages that start here")
    if (problem := split_problem(config, {spec.stage for spec in specs})) is not None:
        raise RunError(problem)
    if arguments.check_config:
        print(f"the configuration is right; it starts: {', '.join(spec.name for spec in specs)}")
        return 0
    stop = threading.Event()
    end_on_signals(stop)
    if any(spec.stage == "capture" for spec in specs):
        have_sample_media(config, stop)
    if stop.is_set():
        return 0
    with Printer() as printer, RunDir(config) as place, _recorder(config, arguments):
        supervisor = Supervisor(
            config,
            specs,
            config_file=place.config_file,
            say=printer.say,
            arguments=("--verbose",) if arguments.verbose else (),
        )
        printer.say(f"another worker can join at any time: python -m stages.expression --config {place.config_file}")
        with Table(config, wanted=not arguments.verbose):
            code = supervisor.run(stop, duration_s=arguments.duration)
        if supervisor.failure is not None:
            place.broke_off = True
            printer.say(supervisor.failure)
    return code


def split_problem(config: Config, stages: Collection[str]) -> str | None:
    """Return why these stages cannot run here while the others run on another machine; None when they can."""
    if "conductor" in stages or not remote(config.endpoint("findings")):
        return None
    keeping = [stage for stage in ("history", "alerts", "dashboard", "mqtt") if stage in stages]
    if keeping and not getattr(config.storage, "url", None):
        return (
            f"{', '.join(keeping)}: what they keep is in a file, {config.storage.data_dir}, which the conductor on the "
            "other machine cannot see: run them where the conductor runs (here: --without " + ",".join(keeping) + ")"
        )
    return None


def recorded_as_asked(config: Config, arguments: argparse.Namespace) -> Config:
    """Return the configuration with what ``--record`` sets. Raises RunError: biometrics of what is not recorded."""
    if arguments.record is None:
        if arguments.record_biometrics:
            raise RunError("--record-biometrics says what a recording holds: add --record FILE")
        return config
    settings = config.model_dump()
    settings["recording"] = "biometric" if arguments.record_biometrics else "plain"
    settings["endpoints"]["archive"] = config.endpoint("archive")
    return Config.model_validate(settings)


@contextlib.contextmanager
def _recorder(config: Config, arguments: argparse.Namespace) -> Iterator[None]:
    if arguments.record is None:
        yield
        return
    from common.recorder import Recorder, place_of
    from common.recording import RecordingError

    try:
        recorder = Recorder(config, place_of(arguments.record, config), say)
    except RecordingError as error:
        raise RunError(f"--record: {error}") from error
    with recorder:
        yield


def say(line: str) -> None:
    """Print a line for people."""
    # When the terminal is gone, so is whoever could have read this; the run goes on until it is ended.
    with contextlib.suppress(OSError):
        # Looked up each time: the live table puts itself in the place of standard error while it is shown.
        print(line, file=sys.stderr, flush=True)


class Printer:
    """Prints lines in a thread of its own, in their order: a terminal that takes none holds up nobody.

    What waits when it ends has a second to be printed; more lines than ``_MOST_LINES`` do not wait.

    Args:
        say: prints a line; may block.
    """

    def __init__(self, say: Callable[[str], None] = say) -> None:
        self._say = say
        self._lines: deque[str] = deque()
        self._left_out = 0
        self._ended = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._print, name="printer", daemon=True)

    def say(self, line: str) -> None:
        """Print a line as soon as all before it are printed."""
        with self._changed:
            if len(self._lines) >= _MOST_LINES:
                self._left_out += 1
                return
            if self._left_out:
                self._lines.append(f"{self._left_out} lines are left out here: they could not be printed in time")
                self._left_out = 0
            self._lines.append(line)
            self._changed.notify()

    def _print(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._ended)
                if not self._lines:
                    return
                line = self._lines.popleft()
            self._say(line)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join(_LAST_LINES_S)


def end_on_signals(stop: threading.Event) -> None:
    """Set ``stop`` on Ctrl-C, on a request to end, and when the terminal closes (unless told to outlive it)."""

    def asked(signum: int, frame: FrameType | None) -> None:
        stop.set()

    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):
        number = getattr(signal, name, None)
        if number is not None and not (name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN):
            signal.signal(number, asked)


def have_sample_media(config: Config, stop: threading.Event | None = None) -> None:
    """Fetch the sample media when a demo is to be shown and they are missing, until ``stop`` is set.

    Raises:
        RunError: they cannot be had; other sources work without them.
    """
    kinds = {parse_source(camera.source).kind for camera in config.cameras.values()}
    os.environ["MIEN_DATA_DIR"] = str(config.storage.data_dir)
    folder = media.data_dir() / "samples"
    if not kinds & {"demo", "crowd"} or all((folder / name).is_file() for name in media.SAMPLES):
        return
    say("fetching the sample clips of the demo, once …")
    stop = stop or threading.Event()
    # It holds on to this process as a stage does, so that it ends, with what it has started, when this one is gone.
    given = environment(config.storage.data_dir) | {SUPERVISED: "1"}
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as said:
        fetching = subprocess.Popen(
            [sys.executable, "-c", _FETCH], env=given, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said,
            start_new_session=os.name == "posix",
        )  # fmt: skip
        with fetching:
            while fetching.poll() is None and not stop.wait(_TURN_S):
                pass
        said.seek(0)
        if fetching.returncode != 0 and not stop.is_set():
            raise RunError(said.read().strip() or "the sample media could not be fetched")


class Table:
    """The live table on the terminal, in a thread of its own while the run goes on."""

    def __init__(self, config: Config, *, wanted: bool) -> None:
        self._config = config
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if wanted and importlib.util.find_spec("common.livetable") is not None:
            self._thread = threading.Thread(target=self._show, name="table", daemon=True)

    def _show(self) -> None:
        from common import livetable

        livetable.run(self._config, self._stop, sys.stdout)

    def __enter__(self) -> None:
        if self._thread is not None:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(2.0)
