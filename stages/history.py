"""The history stage: one row a person and second, written about once a second, made minutes when it is old."""

from __future__ import annotations

import time

from common import history_upkeep
from common.alerts.desk import seen_at
from common.clock import Jumps
from common.history_gather import MAX_SECONDS, Batch, Gatherer
from common.late import LateLedger
from common.ledger import Ledger, LedgerError
from common.messages import Correction, Message, Result
from common.settings import Config
from common.stage import Stage, StageError, main
from common.transport import Socket

SAMPLE_S = 0.1  # ten looks make a second's row
WRITE_EVERY_S = 1.0
WRITE_SECONDS = 2000  # at once: whoever is silent for 5 s is replaced, and after an outage much waits in memory
SWEEP_EVERY_S = 600.0
SWEEP_AGAIN_S = 1.0  # there was more to do than one transaction should hold
BUSY_MS = 500  # the loop must not stand still for long: what cannot be written now waits
COMPLAIN_EVERY_S = 10.0


class HistoryStage(Stage):
    """Writes down what is seen."""

    name = "history"

    def __init__(self, config: Config, *, camera: str | None = None) -> None:
        super().__init__(config, camera=camera)
        self._gatherer = Gatherer(config.history.undecided_s)
        self._waiting = Batch()
        self._jumps = Jumps()
        self._late: LateLedger | None = None
        self._generation = -1
        self._next_write = 0.0
        self._next_sweep = 0.0
        self._complain_at = 0.0
        self._lost = 0

    def open(self) -> None:
        try:
            self._late = LateLedger(self.config.storage.place, busy_ms=BUSY_MS)
        except LedgerError as error:
            raise StageError(str(error)) from error
        self._next_sweep = time.monotonic() + 5.0  # what starts together should not write together

    def close(self) -> None:
        if self._late is None:
            return
        while self._write(time.time(), final=True):
            pass
        if self._waiting:
            self.log.error("%d seconds of history could not be written and are lost", len(self._waiting))
        self._late.close()

    def topics(self) -> tuple[str, ...]:
        return ("samples.", "corrections.")

    def pace_ms(self) -> float:
        return 1e3 * SAMPLE_S

    def detail(self) -> dict[str, float | str]:
        return {"waiting": len(self._waiting), "lost": self._lost, "of nobody": self._gatherer.nobody}

    def on_news(self, topic: str, message: Message) -> None:
        started = time.perf_counter()
        self.meter.taken += 1
        self._mind_the_clock()
        if isinstance(message, Result):
            self._gatherer.result(message, seen_at(message, time.time()))
        elif isinstance(message, Correction):
            self._gatherer.correction(message)
        self.meter.worked((time.perf_counter() - started) * 1e3)

    def handle(self, ready: set[Socket]) -> None:
        self._mind_the_clock()
        now = time.monotonic()
        if now >= self._next_write:
            more = self._write(time.time())
            self._next_write = now if more else now + WRITE_EVERY_S
        if now >= self._next_sweep:
            self._next_sweep = now + (SWEEP_AGAIN_S if self._sweep(time.time()) else SWEEP_EVERY_S)

    # --- inside ---

    def _mind_the_clock(self) -> None:
        """Seconds before the clock was set are complete; those after it are counted anew."""
        jump = self._jumps.seconds()
        if jump:
            self._waiting.add(self._gatherer.batch(time.time() - jump, final=True))
            undecided = self._gatherer.begin_anew()
            told = (
                "the clock was set by %+.0f s: history goes on from there; %d seconds of faces without a name are lost"
            )
            self.log.warning(told, jump, undecided)

    def _write(self, now: float, *, final: bool = False) -> bool:
        """Write what waits, or as much of it as may be written at once; return whether more can be written now."""
        gathered = False
        try:
            ledger = self._open_ledger()
            generation = ledger.generation()
            if generation != self._generation:
                with ledger.read() as connection:
                    people = {row[0] for row in connection.execute("SELECT id FROM person")}
                    numbers = {row[0] for row in connection.execute("SELECT id FROM unknown")}
                if self._generation >= 0:
                    self._gatherer.forget(people, numbers)
                self._generation = generation
            self._waiting.add(self._gatherer.batch(now, final=final))
            gathered = True
            if self._waiting:
                first, later = self._waiting.split(WRITE_SECONDS)
                with ledger.write() as connection:
                    written = history_upkeep.write(connection, first)
                self._waiting = later
                self.meter.given += written
        except LedgerError as error:
            if not gathered:
                self._waiting.add(self._gatherer.batch(now, final=final))
            self._trouble(error)
            return False
        return bool(self._waiting)

    def _open_ledger(self) -> Ledger:
        assert self._late is not None
        ledger = self._late.get()
        if ledger is None:
            raise self._late.problem or LedgerError("the store is not open yet")
        if self._late.problem is not None:
            self._late.problem = None
            self.log.warning("the store can be used again: %d seconds that waited are written now", len(self._waiting))
        return ledger

    def _trouble(self, error: LedgerError) -> None:
        while len(self._waiting) > MAX_SECONDS:
            lost = len(self._waiting.rows.pop(0).seconds)
            self._lost += lost
            self.meter.dropped += lost
        if time.monotonic() >= self._complain_at:
            self._complain_at = time.monotonic() + COMPLAIN_EVERY_S
            self.log.warning("%s; %d seconds of history wait, %d are lost", error, len(self._waiting), self._lost)

    def _sweep(self, now: float) -> bool:
        keep = self.config.history
        try:
            with self._open_ledger().write() as connection:
                done = history_upkeep.sweep(connection, now, second_days=keep.second_days, minute_days=keep.minute_days)
        except LedgerError as error:
            self._trouble(error)
            return False
        if done.rolled or done.minutes:
            told = "%d seconds of %d tracks became minutes, %d minutes were old enough to be deleted"
            self.log.info(told, done.seconds, done.rolled, done.minutes)
        return done.more


if __name__ == "__main__":
    raise SystemExit(main(HistoryStage))
