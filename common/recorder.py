"""``--record``: takes what the conductor writes down and puts it in a file, in a thread of the run's first process.

The conductor never waits for the disk: what has come stands in a queue here, and what waits there is bounded; a live
run whose disk is too slow for that gives the recording up and goes on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from common.encryption import Cipher, KeyProblem, key_of
from common.recording import FOLDER, SUFFIX, RecordingError, Writer
from common.settings import Config
from common.transport import opened

BLOCK_BYTES = 256 * 1024  # a block is written when it is as large as this …
BLOCK_S = 0.5  # … or has waited so long: what kill -9 can cost
TOPIC = b"entries"
FAREWELL = b"farewell"  # the conductor has sent all that it had


def place_of(named: str, config: Config) -> Path:
    """Return where a recording goes: as named, or, named as nothing, among those that Mien keeps."""
    if named:
        return Path(named).absolute()
    return config.storage.data_dir / FOLDER / (time.strftime("%Y-%m-%d-%H%M%S") + SUFFIX)


class Recorder:
    """Writes a recording as long as the ``with`` block lasts.

    Args:
        config: of the run, with an archive endpoint and ``recording`` set.
        say: tells people.

    Raises:
        RecordingError: the file cannot be made, or the key to encrypt it is not there.
    """

    def __init__(self, config: Config, path: Path, say: Callable[[str], None]) -> None:
        self._path = path
        self._say = say
        self._stop = threading.Event()
        cipher = None
        if config.recording == "biometric":
            try:
                cipher = Cipher(key_of(config.storage.data_dir, make=True))
            except KeyProblem as error:
                raise RecordingError(str(error)) from error
        self._endpoint = config.endpoint("archive")
        self._writer: Writer | None = Writer(path, cipher)
        self._thread = threading.Thread(target=self._run, name="recorder")

    def __enter__(self) -> Self:
        # Bound here, so that an address in use is an error now and not a run without its recording.
        self._archive = opened("archive", self._endpoint, "pull", bind=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        waiting: list[bytes] = []
        whole = False
        began = time.monotonic()
        with self._archive as archive:
            while True:
                stopping = self._stop.is_set()
                parts = archive.receive(timeout_ms=100)
                if parts is not None and len(parts) == 2 and parts[0] == TOPIC:
                    if not waiting:
                        began = time.monotonic()
                    waiting.append(bytes(parts[1]))
                    whole = False
                elif parts is not None and len(parts) == 1 and parts[0] == FAREWELL:
                    whole = True
                due = sum(map(len, waiting)) >= BLOCK_BYTES or time.monotonic() - began >= BLOCK_S
                ending = stopping and parts is None
                if waiting and (due or ending):
                    self._write(b"".join(waiting))
                    waiting.clear()
                if ending:
                    break
        if self._writer is not None:
            try:
                self._writer.close(whole=whole)
            except RecordingError as error:
                self._say(str(error))
            else:
                self._say(f"recorded in {self._path}{'' if whole else ', but its end did not come'}")

    def _write(self, entries: bytes) -> None:
        if self._writer is None:
            return  # it has failed and that was said; what comes is taken all the same, so that nobody waits
        try:
            self._writer.add(entries)
        except RecordingError as error:
            self._say(f"{error}: the recording ends here, the run goes on")
            self._writer.close(whole=False)
            self._writer = None
