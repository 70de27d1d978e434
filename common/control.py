"""Asking a running stage to do something, from the command line, the window or the page."""

from __future__ import annotations

import time
import uuid

from common.messages import Control, Reply
from common.news import NewsReader, NewsWriter
from common.settings import Config

REPEAT_EVERY_S = 0.3
Argument = str | int | float | bool | tuple[str | int | float, ...] | None


class NoAnswer(TimeoutError):
    """Nobody answered in time; the text says which stage was asked."""


class Asker:
    """Sends requests over the bus and collects their answers, without ever blocking its owner's loop.

    ``ask`` starts a request, ``answers`` repeats what is unanswered and returns what has come in. A request is the
    same request however often it is repeated: it is done once.
    """

    def __init__(self, config: Config, writer: NewsWriter) -> None:
        # Where requests have an endpoint of their own, whoever may publish news cannot control.
        self._own = NewsWriter(config, writer.sender, channel="control") if config.control_apart else None
        self._writer = self._own or writer
        self.reader = NewsReader(config, ())
        self._open: dict[str, tuple[str, Control, float, float]] = {}  # request: stage, message, next send, deadline

    def ask(self, stage: str, do: str, *, timeout_s: float = 5.0, **args: Argument) -> str:
        """Start a request; return its id."""
        request = uuid.uuid4().hex
        message = Control(sender=self._writer.sender, request=request, do=do, args=args)
        self.reader.socket.subscribe(f"reply.{request}".encode())
        now = time.monotonic()
        # Only sent: what others are answered meanwhile is for ``answers`` to return.
        self._writer.publish(message, stage)
        self._open[request] = (stage, message, now + REPEAT_EVERY_S, now + timeout_s)
        return request

    def answers(self) -> list[tuple[str, Reply | NoAnswer]]:
        """Repeat unanswered requests that are due; return what is settled: the reply, or that there was none."""
        settled: list[tuple[str, Reply | NoAnswer]] = []
        for _, message in self.reader.read():
            if isinstance(message, Reply) and message.request in self._open:
                settled.append((message.request, message))
                self._forget(message.request)
        now = time.monotonic()
        for request, (stage, message, next_send, deadline) in list(self._open.items()):
            if now >= deadline:
                settled.append((request, NoAnswer(f"{stage} did not answer: is it running? (python launch.py status)")))
                self._forget(request)
            elif now >= next_send:
                self._writer.publish(message, stage)
                self._open[request] = (stage, message, now + REPEAT_EVERY_S, deadline)
        return settled

    def close(self) -> None:
        self.reader.close()
        if self._own is not None:
            self._own.close()

    def _forget(self, request: str) -> None:
        del self._open[request]
        self.reader.socket.unsubscribe(f"reply.{request}".encode())


def ask(config: Config, stage: str, do: str, *, timeout_s: float = 5.0, **args: Argument) -> Reply:
    """Ask a stage and wait for its answer.

    Raises:
        NoAnswer: none came within ``timeout_s``.
    """
    writer = NewsWriter(config, f"command.{uuid.uuid4().hex[:12]}")
    asker = Asker(config, writer)
    try:
        asker.ask(stage, do, timeout_s=timeout_s, **args)
        while True:
            for _, answer in asker.answers():
                if isinstance(answer, NoAnswer):
                    raise answer
                return answer
            asker.reader.socket.wait(50)
    finally:
        asker.close()
        writer.close()
