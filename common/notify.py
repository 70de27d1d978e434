"""Telling people outside: what the store says is to be sent is sent through apprise, one thread a target.

A notification is a row of the store until it is sent, so that a restart loses none and repeats none; only a process
that is killed between the sending and the note of it sends that one again. A target that fails is tried again, later
and later; one that hangs holds up nobody else. What nobody needs to know any more is not sent.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

from common.alert_book import SNAPSHOT_S
from common.alerts import wording
from common.alerts.rules import NotificationsConfig
from common.clock import JUMP_S
from common.ledger import Ledger, LedgerError
from common.place import Place
from common.sql import Row

LOOK_EVERY_S = 1.0  # also without being woken: a retry may be due

NOT_UNDERSTOOD = "its address is not one that apprise understands (https://github.com/caronc/apprise/wiki)"

log = logging.getLogger("mien.notify")

Send = Callable[[str, str, str, str | None], str | None]


def send(address: str, title: str, body: str, attachment: str | None) -> str | None:
    """Send one message to an apprise address; return None, or why it was not sent.

    Args:
        attachment: path of a picture; one that is no longer there is left out.
    """
    import apprise  # 35 MB that only those who notify need

    with apprise.LogCapture(level=logging.WARNING, fmt="%(message)s") as said:  # type: ignore[no-untyped-call]
        told = apprise.Apprise()
        if not told.add(address):
            return NOT_UNDERSTOOD
        there = attachment if attachment is not None and Path(attachment).is_file() else None
        try:
            # Where it is not said that this is text, a mail takes what is between < and > for HTML.
            done = bool(told.notify(title=title, body=body, body_format=apprise.NotifyFormat.TEXT, attach=there))
        except Exception as error:  # whatever a plug-in of apprise raises: the notification is tried again
            return f"{type(error).__name__}: {error}"[:500]
        reason = " ".join(said.getvalue().split())
    return None if done else (reason or "it was not taken, without a reason")[:500]


def problem(address: str) -> str | None:
    """Return why nothing can ever be sent to an address, None when it can be tried."""
    import apprise

    return None if apprise.Apprise().add(address) else NOT_UNDERSTOOD


class Outbox:
    """Sends what is waiting in the store.

    Args:
        where: the store is.
        send: what sends; see ``send``.
    """

    def __init__(self, where: Place | Path, settings: NotificationsConfig, *, send: Send = send) -> None:
        self._where = where
        self._settings = settings
        self._send = send
        self._stop = threading.Event()
        self._wakes = {target: threading.Event() for target in settings.targets}
        self._threads: list[threading.Thread] = []
        self.sent = 0
        self.failed = 0

    def open(self) -> None:
        """Start the threads."""
        for target in self._settings.targets:
            thread = threading.Thread(target=self._run, args=(target,), name=f"notify {target}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def wake(self) -> None:
        """Something was added: look now."""
        for event in self._wakes.values():
            event.set()

    def close(self) -> None:
        """End; what is not sent stays in the store. Does not wait long for a target that hangs."""
        self._stop.set()
        self.wake()
        deadline = time.monotonic() + 1.0
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    # --- the threads ---

    def _run(self, target: str) -> None:
        ledger: Ledger | None = None
        unsettled: dict[int, str | None] = {}  # sent or not, and not yet written down
        complained, begun = 0.0, False
        # Said now, not when the first alert should have gone out.
        if (wrong := problem(self._settings.targets[target])) is not None:
            log.error("nobody can be told by notifications.targets.%s: %s", target, wrong)
        while not self._stop.is_set():
            try:
                ledger = ledger or Ledger(self._where)
                if not begun:
                    self._drop_strangers(ledger)
                    begun = True
                self._turn(ledger, target, unsettled)
            except LedgerError as error:
                if time.monotonic() >= complained:
                    complained = time.monotonic() + 10.0
                    log.warning("notifications to %s wait: %s", target, error)
            except Exception as error:
                # A fault here must not silence a target for good.
                if time.monotonic() >= complained:
                    complained = time.monotonic() + 10.0
                    log.exception("notifications to %s wait: %s", target, error)
            self._wakes[target].wait(LOOK_EVERY_S)
            self._wakes[target].clear()
        if ledger is not None:
            ledger.close()

    def _turn(self, ledger: Ledger, target: str, unsettled: dict[int, str | None]) -> None:
        for number, error in list(unsettled.items()):
            self._settle(ledger, target, number, error)
            del unsettled[number]
        now, number = time.time(), 0
        # One at a time: while one is sent, the episode of the next may be acknowledged.
        while not self._stop.is_set() and (row := self._next(ledger, target, number, now)) is not None:
            number = row["id"]
            if (why := self._pointless(row)) is not None:
                self._give_up(ledger, target, number, why)
                continue
            body = row["body"]
            if row["happened_at"] is not None:
                body = f"{body} ({wording.moment(row['happened_at'], time.time())})"
            error = self._send(self._settings.targets[target], row["title"], body, row["snapshot"])
            unsettled[number] = error
            self._settle(ledger, target, number, error)
            del unsettled[number]

    def _next(self, ledger: Ledger, target: str, after: int, now: float) -> Row | None:
        """Return what is to be sent next, with what has become of its episode."""
        with ledger.read() as connection:
            waiting = connection.execute(
                "SELECT id, attempts, next_at FROM notification WHERE state = 'waiting' AND target = ? AND id > ? "
                "ORDER BY id",
                (target, after),
            ).fetchall()
            due = next((row["id"] for row in waiting if self._is_due(row["next_at"] - now, row["attempts"])), None)
            if due is None:
                return None
            row: Row | None = connection.execute(
                "SELECT notification.*, event, at AS happened_at, closed_at, acknowledged_at FROM notification "
                "LEFT JOIN episode ON episode.id = notification.episode_id "
                "LEFT JOIN episode_step ON episode_step.serial = notification.serial "
                "WHERE notification.id = ?",
                (due,),
            ).fetchone()
        return row

    def _is_due(self, ahead_s: float, attempts: int) -> bool:
        # What lies farther ahead than it was ever put off was so by a clock that has been set back since.
        return ahead_s <= 0 or ahead_s > self._pause_s(attempts) + JUMP_S

    def _pause_s(self, attempts: int) -> float:
        """Return for how long a notification is put off: at first for its picture, then after so many attempts."""
        if not attempts:
            return SNAPSHOT_S
        return min(self._settings.retry_longest_s, self._settings.retry_first_s * 2.0 ** min(attempts - 1, 30))

    def _pointless(self, row: Row) -> str | None:
        """Return why a notification helps nobody any more; None: it is to be sent."""
        if time.time() > row["created_at"] + self._settings.give_up_s:
            return "it has waited for longer than notifications.give_up_s"
        # That an episode is over may be told at any time; nobody is called to one that needs nobody.
        if row["event"] in ("opened", "escalated"):
            if row["closed_at"] is not None:
                return "its episode is over"
            if row["acknowledged_at"] is not None:
                return "its episode is acknowledged"
        return None

    def _give_up(self, ledger: Ledger, target: str, number: int, why: str) -> None:
        with ledger.write() as connection:
            connection.execute(
                "UPDATE notification SET state = 'failed', done_at = ?, error = ? WHERE id = ?",
                (time.time(), why, number),
            )
        self.failed += 1
        log.warning("notification %d to %s was not sent (given up): %s", number, target, why)

    def _settle(self, ledger: Ledger, target: str, number: int, error: str | None) -> None:
        now = time.time()
        with ledger.write() as connection:
            row = connection.execute("SELECT * FROM notification WHERE id = ?", (number,)).fetchone()
            if row is None:
                return  # its person was forgotten meanwhile
            attempts = row["attempts"] + 1
            state, next_at = "sent", now
            if error is not None:
                state, next_at = "waiting", now + self._pause_s(attempts)
                # A test is answered at once; an alert of yesterday helps nobody any more.
                if row["episode_id"] is None or next_at > row["created_at"] + self._settings.give_up_s:
                    state = "failed"
            done_at = None if state == "waiting" else now
            connection.execute(
                "UPDATE notification SET state = ?, attempts = ?, next_at = ?, done_at = ?, error = ? WHERE id = ?",
                (state, attempts, next_at, done_at, error, number),
            )
        self.sent += state == "sent"
        self.failed += state == "failed"
        if error is not None:
            what = "given up" if state == "failed" else f"again in {next_at - now:.0f} s"
            log.warning("notification %d to %s was not sent (%s): %s", number, target, what, error)

    def _drop_strangers(self, ledger: Ledger) -> None:
        """What waits for a target that is no longer configured will never be sent."""
        marks = ", ".join("?" * len(self._settings.targets))
        with ledger.write() as connection:
            connection.execute(
                "UPDATE notification SET state = 'failed', done_at = ?, error = 'its target is no longer configured' "
                f"WHERE state = 'waiting' AND target NOT IN ({marks})",
                (time.time(), *self._settings.targets),
            )
