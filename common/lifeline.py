"""How a child process and its supervisor hold on to each other: two inherited pipes, no bus.

The child's standard input is the lifeline: the line ``stop`` asks it to end, end-of-file means that the supervisor is
gone. Its standard output carries the heartbeat, one word a line. Pipes work alike on every system, and close by
themselves when either side is killed.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from typing import BinaryIO

from common.clock import ticked

SUPERVISED = "MIEN_SUPERVISED"  # environment variable that a supervisor sets for its children
WORN_OUT = 75  # exit code of a child that asks to be replaced by a fresh one
BEAT_EVERY_S = 1.0  # a process that is woken from idle costs half a millisecond
_GRACE_S = 2.0

log = logging.getLogger(__name__)


class Lifeline:
    """The child's end. Without a supervisor (a stage started by hand) it does nothing but hold the stop event.

    Attributes:
        supervised: somebody is there who starts another process when this one ends.
    """

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self.wake, self._waker = socket.socketpair()  # readable once ``stopping`` is set: ends a wait for sockets
        self._beat: BinaryIO | None = None
        self._last_beat = 0.0
        self._alone = False  # the supervisor is gone
        self.supervised = os.environ.pop(SUPERVISED, None) == "1"
        if not self.supervised:
            return
        # Keep the heartbeat pipe for ourselves: what libraries print goes to standard error from now on.
        self._beat = os.fdopen(os.dup(1), "wb", buffering=0)
        os.dup2(2, 1)
        lifeline = os.fdopen(os.dup(0), "rb", buffering=0)
        with open(os.devnull, "rb") as null:
            os.dup2(null.fileno(), 0)
        sys.stdout = sys.stderr
        threading.Thread(target=self._watch, args=(lifeline,), name="lifeline", daemon=True).start()

    def say(self, word: str) -> None:
        """Tell the supervisor a state: ``loading``, ``ready``."""
        self._write(word)

    def beat(self) -> None:
        """Show that the main loop turns; call it as often as you like."""
        if ticked(self._last_beat, BEAT_EVERY_S):
            self._last_beat = time.monotonic()
            self._write("beat")

    def _write(self, word: str) -> None:
        if self._beat is None:
            return
        try:
            self._beat.write(word.encode() + b"\n")
        except OSError:
            self._beat = None  # the supervisor is gone
            self.stop()

    def stop(self) -> None:
        """Ask the main loop to end, wherever it waits."""
        self.stopping.set()
        self._waker.close()

    def close(self) -> None:
        """Let go of what a wait was ended by; the last that a process does."""
        self._waker.close()
        self.wake.close()
        if self._alone:
            _end_group()

    def _watch(self, lifeline: BinaryIO) -> None:
        for line in lifeline:
            if line.strip() == b"stop":
                break
        else:
            self._alone = True
        self.stop()
        # The main loop ends by itself now. Should it be stuck in a read that never returns, end all the same.
        time.sleep(_GRACE_S)
        _end_group()
        os._exit(1)


def _end_group() -> None:
    """End this process and whatever it has started, where it leads a group of its own, as a supervisor's children do.

    The supervisor does that, too, unless it is gone.
    """
    if os.name == "posix" and os.getpgrp() == os.getpid():
        os.killpg(os.getpgrp(), signal.SIGKILL)
