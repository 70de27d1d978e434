"""The alerts stage: results become episodes that are opened, escalated, acknowledged, closed, and told outside."""

from __future__ import annotations

import json
import time
from collections import deque
from pathlib import Path

from common import alert_book, alert_store, snapshots
from common.alert_book import Book
from common.alert_store import AlertError
from common.alerts import episode
from common.alerts.desk import Desk
from common.alerts.episode import Happening, Live
from common.clock import Jumps
from common.control import Asker, NoAnswer
from common.late import LateLedger
from common.ledger import Ledger, LedgerAway, LedgerError, LedgerUnavailable
from common.messages import Alert, CameraState, Control, Correction, Message, Result
from common.notify import Outbox
from common.settings import Config
from common.stage import Answer, ControlError, Stage, StageError, main
from common.transport import Socket

SAMPLE_S = 0.1  # rules count seconds: ten looks in one are enough
TICK_S = 0.25
PROGRESS_S = 5.0
REFRESH_S = 1.0  # how soon a change of people is noticed
SWEEP_S = 3600.0
SNAPSHOT_TIMEOUT_S = 2.5
BUSY_MS = 200  # the loop must not stand still for long: what cannot be written now waits
ASKED_S = 3.0  # whoever asks for a change of an episode waits so long for a store that is busy
EVENTS = 100  # of one answer

_WHEN_STOPPED = "the rule or the camera is no longer configured"


class AlertsStage(Stage):
    """Opens and follows episodes."""

    name = "alerts"

    def __init__(self, config: Config, *, camera: str | None = None) -> None:
        super().__init__(config, camera=camera)
        self._desk = Desk(config.alerts.rules, config.cameras, time.time())
        self._jumps = Jumps()
        self._late: LateLedger | None = None
        self._ledger: Ledger | None = None
        self._outbox = Outbox(config.storage.place, config.notifications)
        self._asker: Asker | None = None
        self._pictures: dict[str, int] = {}  # request: episode that waits for a picture
        self._tests: dict[str, tuple[list[int], float]] = {}  # request: notifications, deadline
        self._changes: deque[tuple[Control, float]] = deque()  # that wait for the store, deadline
        self._generation = -1
        self._expires = 0.0  # when somebody's consent ends
        self._next = dict.fromkeys(("tick", "progress", "refresh", "sweep"), 0.0)

    @property
    def _open_ledger(self) -> Ledger:
        if self._ledger is None:
            raise LedgerError("the store cannot be opened at the moment: try again later")
        return self._ledger

    def open(self) -> None:
        self._book = Book(None, self.config.notifications, self.instance)
        try:
            late = self._late = LateLedger(self.config.storage.place, busy_ms=BUSY_MS)
            try:
                self._take_ledger()
            except LedgerUnavailable as error:
                late.problem = error
        except LedgerError as error:
            raise StageError(str(error)) from error
        if self._ledger is None:
            told = "%s; until it can be used, alerts are shown, but not kept, and nobody outside is told"
            self.log.error(told, late.problem)
        self._asker = Asker(self.config, self.news)
        self.poller.add(self._asker.reader.socket)
        self._outbox.open()

    def _take_ledger(self) -> None:
        """Go on with what the store holds, as soon as it can be opened. Raises LedgerError: it never can."""
        assert self._late is not None
        ledger, now = self._late.get(), time.time()
        if ledger is None:
            return
        generation = ledger.generation()
        people, self._expires = alert_book.people_of(ledger, now)
        kept, stray = alert_book.left_open(ledger, self._desk.rules, people, self.config.cameras)
        cool = max((rule.cooldown_s for rule in self._desk.rules), default=0.0)
        closed, usual = alert_book.lately_closed(ledger, now - cool), alert_book.usual_of(ledger)
        self._desk.refresh(people, now)
        self._book.opened_before(self._desk.restore(kept, closed, now))
        self._desk.usual |= usual
        self._ledger = self._book.ledger = ledger
        self._generation = generation
        for live in stray:
            live.closed_at, live.closed_why = now, _WHEN_STOPPED
            live.text = f"{live.text} (closed: {_WHEN_STOPPED})"
        self._book.keep([Happening(event="closed", live=live, at=now, why=_WHEN_STOPPED) for live in stray])
        if kept:
            self.log.info("going on with %d open episodes", len(kept))
        if self._late.problem is not None:
            self.log.warning("the store can be used again")

    def close(self) -> None:
        self._outbox.close()
        if self._late is not None:
            self._book.again()
            self._publish()
            self._book.progress(self._desk.open.values(), self._desk.usual)
            if self._book.waiting:
                self.log.error("%d steps of episodes could not be written and are lost", self._book.waiting)
            self._late.close()
        if self._asker is not None:
            self.poller.remove(self._asker.reader.socket)
            self._asker.close()

    def topics(self) -> tuple[str, ...]:
        return ("samples.", "corrections.", "camera.")

    def pace_ms(self) -> float:
        return 1e3 * SAMPLE_S

    def detail(self) -> dict[str, float | str]:
        return {
            "open": len(self._desk.open),
            "sent": self._outbox.sent,
            "not sent": self._outbox.failed,
            "waiting": self._book.waiting,
            "waiting_s": round(self._book.waiting_s, 1),
        }

    def on_news(self, topic: str, message: Message) -> None:
        self._mind_the_clock()
        started, now = time.perf_counter(), time.time()
        self.meter.taken += 1
        if isinstance(message, Result):
            self._desk.result(message, now)
        elif isinstance(message, Correction):
            self._desk.correction(message, now)
        elif isinstance(message, CameraState):
            self._desk.camera(message, now)
        self._book.keep(self._desk.happenings())  # ``handle`` writes and publishes it, with all else that has come
        self.meter.worked((time.perf_counter() - started) * 1e3)

    def handle(self, ready: set[Socket]) -> None:
        self._mind_the_clock()
        now = time.time()
        if self._due("refresh", REFRESH_S):
            self._refresh(now)  # also opens what could not be opened yet
        if self._due("tick", TICK_S):
            self._desk.tick(now)
        self._publish()
        self._change_late()
        if self._due("progress", PROGRESS_S):
            self._book.progress(self._desk.open.values(), self._desk.usual)
        if self._ledger is not None and self._due("sweep", SWEEP_S):
            self._sweep(now)
        self._collect_pictures(now)
        self._answer_tests(now)

    # --- what people ask for ---

    def control(self, request: Control) -> Answer | None:
        try:
            match request.do:
                case "acknowledge" | "snooze" | "judge":
                    return self._change_or_wait(request, time.monotonic() + ASKED_S)
                case "events":
                    return self._events(request)
                case "test-notification":
                    return self._test(request)
        except (AlertError, LedgerError) as error:
            raise ControlError(str(error)) from error
        return super().control(request)

    def _change_or_wait(self, request: Control, deadline: float) -> Answer | None:
        """Make a change; where the store cannot take it now, it is tried again until the deadline: None."""
        try:
            return self._change(request)
        except LedgerError as error:
            if isinstance(error, LedgerAway) or time.monotonic() >= deadline:
                raise
            self._changes.append((request, deadline))
            return None

    def _change_late(self) -> None:
        for _ in range(len(self._changes)):
            request, deadline = self._changes.popleft()
            try:
                result = self._change_or_wait(request, deadline)
            except (AlertError, LedgerError) as error:
                self.answer(request.request, error=str(error))
            except Exception as error:  # as where it was asked: it must not end the stage, and what waits in it
                self.log.exception("the request to %r failed", request.do)
                self.answer(request.request, error=f"{request.do!r} failed: {type(error).__name__}: {error}")
            else:
                if result is not None:
                    self.answer(request.request, result)

    def _change(self, request: Control) -> Answer:
        number, by, now = request.args.get("episode"), request.args.get("by"), time.time()
        if not isinstance(number, int) or isinstance(number, bool):
            raise AlertError("which episode? give its number as 'episode'")
        who = by[:128] if isinstance(by, str) and by else request.sender
        self._publish()
        # A step that waits would later write over what is changed in the stored row only.
        live = self._desk.find(number) or self._book.waiting_of(number)
        live = live or alert_book.stored(self._open_ledger, number, self._desk.rules)
        before = live.columns()
        happening = _changed(live, request, now, who)
        try:
            alert = self._book.settle(happening)
        except LedgerError:
            # It did not happen: what is said and what is stored must agree.
            for name in ("acknowledged_at", "acknowledged_by", "snoozed_until", "judgement", "judged_by"):
                setattr(live, name, before[name])
            raise
        self._say(alert)
        return {"episode": number, "serial": alert.serial}

    def _events(self, request: Control) -> Answer:
        since = request.args.get("since", 0)
        if not isinstance(since, int) or isinstance(since, bool) or since < 0:
            raise AlertError("since which serial? give a number of 0 or more as 'since'")
        steps = alert_store.steps_since(self._open_ledger, since, consent_at=time.time(), limit=EVENTS)
        events = [json.loads(step.message) | {"serial": step.serial} for step in steps]
        while events and len(text := json.dumps(events, ensure_ascii=False).encode()) > 48 * 1024:
            events = events[: len(events) // 2]
        newest = alert_store.last_serial(self._open_ledger)
        last = events[-1]["serial"] if events else newest
        return {"events": text.decode() if events else "[]", "last": last, "newest": newest, "more": last < newest}

    def _test(self, request: Control) -> Answer | None:
        target, known = request.args.get("target"), self.config.notifications.targets
        if not known:
            raise AlertError("nobody is told: the configuration has no notifications.targets")
        if target is not None and target not in known:
            raise AlertError(f"there is no target {str(target)[:64]!r}; configured: {', '.join(known)}")
        targets = list(known) if target is None else [str(target)]
        timeout = request.args.get("timeout_s")
        wait = float(timeout) if isinstance(timeout, int | float) else 30.0
        numbers = self._book.add_test(targets, time.time())
        self._tests[request.request] = (numbers, time.monotonic() + wait)
        self._outbox.wake()
        return None

    def _answer_tests(self, now: float) -> None:
        for request, (numbers, deadline) in list(self._tests.items()):
            try:
                found = alert_store.notifications(self._open_ledger, limit=200)
            except LedgerError as error:
                if time.monotonic() >= deadline:
                    del self._tests[request]
                    self.answer(request, error=f"whether it was sent is not known: {error}")
                continue
            rows = [row for row in found if row.id in numbers]
            waiting = [row.target for row in rows if row.state == "waiting"]
            if waiting and time.monotonic() < deadline:
                continue
            del self._tests[request]
            failed = [f"{row.target}: {row.error}" for row in rows if row.state == "failed"]
            failed += [f"{target}: no answer yet" for target in waiting]
            if failed:
                self.answer(request, error="; ".join(failed))
            else:
                self.answer(request, {"sent": ", ".join(row.target for row in rows)})

    # --- inside ---

    def _mind_the_clock(self) -> None:
        jump = self._jumps.seconds()
        if jump:
            self.log.warning("the clock was set by %+.0f s: what is open goes on as if it had not been", jump)
            self._desk.shift(jump)
            self._outbox.wake()

    def _publish(self) -> None:
        self._book.keep(self._desk.happenings())
        for alert in self._book.flush(time.time()):
            self._say(alert)
            if alert.event == "opened" and alert.episode:
                self._ask_picture(alert)

    def _say(self, alert: Alert) -> None:
        self.news.publish(alert, alert.camera)
        self.meter.given += 1
        self.log.info("%s %d: %s", alert.event, alert.episode, alert.rule)
        if self._book.notified:
            self._book.notified = False
            self._outbox.wake()

    def _ask_picture(self, alert: Alert) -> None:
        live: Live | None = self._desk.find(alert.episode)
        wanted = live is not None and live.rule.snapshot and self.config.notifications.snapshot
        if wanted and self.config.notifications.targets and self._asker is not None:
            request = self._asker.ask("snapshot", "snapshot", timeout_s=SNAPSHOT_TIMEOUT_S, camera=alert.camera)
            self._pictures[request] = alert.episode

    def _collect_pictures(self, now: float) -> None:
        assert self._asker is not None
        if not self._pictures:
            return
        for request, reply in self._asker.answers():
            number, path = self._pictures.pop(request), None
            if isinstance(reply, NoAnswer) or not reply.ok:
                why = reply if isinstance(reply, NoAnswer) else reply.error
                self.log.warning("episode %d goes without a picture: %s", number, why)
            else:
                path = Path(str(next(iter(reply.result.values()))))
            # Names are drawn into the annotated picture; without names, the plain one goes out.
            suffix = snapshots.ANNOTATED if self.config.notifications.names else snapshots.PICTURE
            files = [None, None] if path is None else [f"{path}{snapshots.PICTURE}", f"{path}{suffix}"]
            try:
                self._book.picture(number, files[0], files[1], now)
            except LedgerError as error:
                self.log.warning("%s: the picture of episode %d is not attached", error, number)
            self._outbox.wake()

    def _refresh(self, now: float) -> None:
        try:
            if self._ledger is None:
                self._take_ledger()
                return
            generation = self._open_ledger.generation()
            if generation == self._generation and now < self._expires:
                return
            people, expires = alert_book.people_of(self._open_ledger, now)
            self._publish()  # what was noticed first is written down first
            with self._open_ledger.read() as connection:
                rows = alert_store.memories(connection)
        except LedgerError as error:
            self.log.warning("%s", error)
            return
        self._generation, self._expires = generation, expires
        self._desk.refresh(people, now, rows)
        self._publish()

    def _sweep(self, now: float) -> None:
        try:
            with self._open_ledger.write() as connection:
                gone = alert_store.sweep(connection, now - self.config.alerts.keep_days * 86400)
        except LedgerError as error:
            self.log.warning("%s", error)
            return
        if gone:
            self.log.info("%d episodes were older than %g days", gone, self.config.alerts.keep_days)

    def _due(self, what: str, every_s: float) -> bool:
        if time.monotonic() < self._next[what]:
            return False
        self._next[what] = time.monotonic() + every_s
        return True


def _changed(live: Live, request: Control, now: float, who: str) -> Happening:
    if request.do == "acknowledge":
        return episode.acknowledge(live, now, who)
    if request.do == "snooze":
        minutes = request.args.get("minutes", 15)
        if not isinstance(minutes, int | float):
            raise AlertError("for how many minutes? give a number as 'minutes'")
        return episode.snooze(live, now, who, float(minutes))
    return episode.judge(live, now, who, str(request.args.get("judgement"))[:64])


if __name__ == "__main__":
    raise SystemExit(main(AlertsStage))
