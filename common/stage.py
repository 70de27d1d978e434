"""The loop that every stage runs in: wait for sockets, handle, beat, publish figures, end when asked.

A stage is a subclass that opens its sockets, handles those that are ready and closes them; what it thinks lives in
pure code elsewhere. ``python -m stages.NAME --config FILE`` runs one.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import logging
import signal
import sys
import time
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import ClassVar

from common import transport
from common.clock import to_tick_s
from common.config import ConfigError, load
from common.instance import instance_of
from common.lifeline import BEAT_EVERY_S, WORN_OUT, Lifeline
from common.messages import Control, Message, Reply, Stats
from common.meter import Meter
from common.news import NewsReader, NewsWriter
from common.settings import Config
from common.transport import Poller, Socket, TransportError

Answer = dict[str, str | int | float | bool | None]

NEWS_S = 0.2  # of a turn; what has not been read by then waits for the next one, for it is between turns that one beats
NEWS = 256  # … or so many
_REMEMBERED = 256  # answered requests, so that a repeated one is answered again and not done again


class StageError(RuntimeError):
    """A stage cannot do its work; the text is for the person who can change that."""


class WornOut(RuntimeError):
    """This process had better be replaced by a fresh one; the text says why."""


class ControlError(ValueError):
    """A request that cannot be done; the text is sent back as the answer."""


class Stage(ABC):
    """One process of Mien.

    Attributes:
        name: row of the stage table.
        config, instance: the checked configuration; this process's own id (``common/instance.py``).
        camera: the camera's name, for stages that run once a camera.
        poller: watches the stage's sockets; ``handle`` gets those that are ready.
        meter: what the stage counts; published once a second.
    """

    name: ClassVar[str]

    def __init__(self, config: Config, *, camera: str | None = None) -> None:
        self.config = config
        self.camera = camera
        self.instance = instance_of(self.name)
        self.log = logging.getLogger(f"mien.{self.name}" + (f".{camera}" if camera else ""))
        self.meter = Meter()
        self.poller = Poller()
        self.finished = False  # a stage that has done all there was to do sets it
        self.state = "loading"
        self._answered: OrderedDict[str, Reply | None] = OrderedDict()
        self.news = NewsWriter(config, self.instance)
        self._inbox = NewsReader(config, (f"control.{self.name}", *self.topics()), sampled=self.sampled())
        self.poller.add(self._inbox.socket)

    # --- what a stage is made of ---

    @abstractmethod
    def open(self) -> None:
        """Load models, open sockets, add them to ``poller``."""

    @abstractmethod
    def handle(self, ready: set[Socket]) -> None:
        """Handle what waits on these sockets (none, after a time-out), without blocking for long."""

    @abstractmethod
    def close(self) -> None:
        """Close what ``open`` opened. Called once, also when ``open`` failed half-way."""

    def wait_ms(self) -> float:
        """Return how long the loop may wait for sockets before ``handle`` is called anyway; never beyond a beat."""
        return BEAT_EVERY_S * 1e3

    def pace_ms(self) -> float:
        """Return how long news may wait, for stages that need not be prompt: a turn costs more than what it reads."""
        return 0.0

    def control(self, request: Control) -> Answer | None:
        """Do what a control message asks and return the answer; None: it comes later, by ``answer``.

        Raises:
            ControlError: it cannot be done; the text says why.
        """
        raise ControlError(f"{self.name} does not know how to {request.do!r}")

    def answer(self, request: str, result: Answer | None = None, *, error: str | None = None) -> None:
        """Answer a request that ``control`` left open: with a result, or with why it could not be done."""
        reply = Reply(
            sender=self.instance, request=request, ok=error is None, result=result or {}, error=error and error[:1000]
        )
        self._answered[request] = reply
        while len(self._answered) > _REMEMBERED:
            self._answered.popitem(last=False)
        self.news.publish(reply, request)

    def concerns(self, request: Control) -> bool:
        """Whether a request is for this process: stages answer only for their camera, or the cameras of their cell."""
        camera = request.args.get("camera")
        if self.camera is None:  # of a camera that nobody has, each cell says so
            return camera not in self.config.cameras or camera in self.config.own_cameras
        return camera in (None, self.camera)

    def topics(self) -> tuple[str, ...]:
        """Return the topics of the news that ``on_news`` wants."""
        return ()

    def sampled(self) -> Mapping[str, float]:
        """Return of which of ``topics`` not every message is wanted, and the least pause between two, seconds."""
        return {}

    def on_news(self, topic: str, message: Message) -> None:
        """Take a message of one of ``topics``; a stage that names none gets none."""
        raise NotImplementedError(f"{self.name} subscribes to {topic} and does not read it")

    def detail(self) -> dict[str, float | str]:
        """Return figures of the stage's own for its ``Stats``."""
        return {}

    # --- the loop ---

    def run(self, lifeline: Lifeline) -> None:
        """Turn until asked to stop. Closes everything, whatever happens."""
        try:
            lifeline.say("loading")
            self.poller.wake_by(lifeline.wake)
            self.open()
            give_back_memory()
            self.state = "running"
            lifeline.say("ready")
            while not lifeline.stopping.is_set() and not self.finished:
                ready = self.poller.wait(min(1e3 * to_tick_s(BEAT_EVERY_S) + 1, self.wait_ms()))
                if self._inbox.socket in ready:
                    ready.discard(self._inbox.socket)
                    self._read_news()
                self.handle(ready)
                lifeline.beat()
                if self.meter.due():
                    self.publish_stats()
                if pause_ms := self.pace_ms():
                    lifeline.stopping.wait(min(pause_ms / 1e3, to_tick_s(BEAT_EVERY_S)))
            if self.finished:
                lifeline.say("finished")
        finally:
            self.close()
            self._inbox.close()
            self.news.close()

    def publish_stats(self) -> None:
        """Publish ``stats.<stage>`` now."""
        self.meter.bad_messages += self._inbox.bad
        self._inbox.bad = 0
        figures = self.meter.figures()
        self.news.publish(
            Stats.model_validate(
                {"from": self.instance, "stage": self.name, "state": self.state, "detail": self.detail(), **figures}
            ),
            self.name,
        )

    def _read_news(self) -> None:
        deadline = time.monotonic() + NEWS_S
        for _ in range(NEWS):
            for topic, message in (found := self._inbox.read(limit=1)):
                if isinstance(message, Control) and topic == f"control.{self.name}":
                    self._do(message)
                else:
                    self.on_news(topic, message)
            if not found or time.monotonic() >= deadline:
                return

    def _do(self, request: Control) -> None:
        if not self.concerns(request):
            return
        if request.request in self._answered:
            reply = self._answered[request.request]
            if reply is not None:
                self.news.publish(reply, request.request)
            return
        self._answered[request.request] = None  # under way: what is repeated meanwhile is not done again
        try:
            result = self.control(request)
        except ControlError as error:
            self.answer(request.request, error=str(error))
            return
        except Exception as error:
            # Requests are repeated until they are answered: one that ends the stage would end the next one, too.
            self.log.exception("the request to %r failed", request.do)
            self.answer(request.request, error=f"{request.do!r} failed: {type(error).__name__}: {error}")
            return
        if result is not None:
            self.answer(request.request, result)


def main(stage: type[Stage], argv: list[str] | None = None) -> int:
    """Run one stage as a process; the ``main`` of every module of ``stages``. Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=f"python -m stages.{stage.name}", description=(stage.__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--config", type=Path, help="TOML file; the same that the other stages use")
    parser.add_argument("--camera", help="for stages that run once a camera: its name")
    parser.add_argument("--verbose", action="store_true", help="say more")
    arguments = parser.parse_args(argv)
    set_up_logging(arguments.verbose)
    log = logging.getLogger(f"mien.{stage.name}")
    lifeline = Lifeline()

    def stop(signum: int, frame: FrameType | None) -> None:
        lifeline.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        config = load(arguments.config)
        if arguments.camera is not None and arguments.camera not in config.cameras:
            raise ConfigError(f"there is no camera {arguments.camera!r}; configured: {', '.join(config.cameras)}")
        stage(config, camera=arguments.camera).run(lifeline)
    except (ConfigError, StageError, TransportError) as error:
        log.error("%s", error)
        return 2
    except WornOut as error:
        log.error("%s", error)
        return WORN_OUT
    finally:
        transport.terminate()
        lifeline.close()
    return 0


def give_back_memory() -> None:
    """Return to the system what starting up has used and left, up to a tenth of the process; only glibc can."""
    gc.collect()
    gc.freeze()  # what is there by now stays: nobody need look through it again
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def set_up_logging(verbose: bool) -> None:
    """Log to standard error, each line with the time and the stage's name."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(name)s %(levelname)s %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
        force=True,
    )
    logging.Formatter.converter = time.localtime
