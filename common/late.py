"""A ledger that may come late: where the store cannot be opened at first, a thread goes on trying.

Opening can take seconds (another program holds the store, it must be brought up to date first), in which a stage's loop
must go on.
"""

from __future__ import annotations

import threading
from pathlib import Path

from common.ledger import Ledger, LedgerError, LedgerUnavailable
from common.place import Place

TRY_EVERY_S = 2.0


class LateLedger:
    """Opens a ledger, at once or as soon as it can be done.

    Args:
        where, busy_ms: as of ``Ledger``.

    Attributes:
        problem: why it could not be opened at once; None where it could.

    Raises:
        LedgerError: it can never be opened as it is.
    """

    def __init__(self, where: Place | Path, *, busy_ms: int) -> None:
        self._where = where
        self._busy_ms = busy_ms
        self._stop = threading.Event()
        self._ledger: Ledger | None = None
        self._failed: LedgerError | None = None
        self.problem: LedgerUnavailable | None = None
        try:
            self._ledger = Ledger(where, busy_ms=busy_ms)
        except LedgerUnavailable as error:
            self.problem = error
            threading.Thread(target=self._try, name="ledger", daemon=True).start()

    def get(self) -> Ledger | None:
        """Return the ledger once it is open, None before. Raises LedgerError: it never will be."""
        if self._failed is not None:
            raise self._failed
        return self._ledger

    def close(self) -> None:
        """Stop trying, and close what was opened."""
        self._stop.set()
        if self._ledger is not None:
            self._ledger.close()

    def _try(self) -> None:
        while not self._stop.wait(TRY_EVERY_S):
            try:
                self._ledger = Ledger(self._where, busy_ms=self._busy_ms)
            except LedgerUnavailable as error:
                self.problem = error
            except LedgerError as error:
                self._failed = error
                return
            else:
                return
