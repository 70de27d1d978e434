"""The alerts stage's book: what happened to episodes is written down, numbered, and then published.

Whatever the store cannot take at the moment waits here, in order; an alert that has waited for two seconds is published
without a number all the same.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections.abc import Collection, Iterable, Iterator
from typing import Any

from common import alert_store
from common.alert_store import AlertError
from common.alerts import wording
from common.alerts.baseline import Usual
from common.alerts.episode import Happening, Key, Live, key_of, restored
from common.alerts.register import Known
from common.alerts.rules import NotificationsConfig, Party, Rule
from common.ledger import Ledger, LedgerError
from common.messages import Alert
from common.sql import Connection

AGAIN_S = 1.0  # a store that cannot be written holds its writer up at each attempt
PATIENCE_S = 2.0
SNAPSHOT_S = 3.0  # how long a notification waits for its picture
COMPLAIN_EVERY_S = 10.0

log = logging.getLogger("mien.alerts")


class Book:
    """Writes episodes down.

    Args:
        ledger: None where the store cannot be opened yet: everything waits until it is set.
        sender: the stage's instance, as its messages name it.
    """

    def __init__(self, ledger: Ledger | None, settings: NotificationsConfig, sender: str) -> None:
        self.ledger = ledger
        self._settings = settings
        self._sender = sender
        self._waiting: list[tuple[float, Happening, Alert]] = []  # since when, monotonic seconds
        self._told: set[int] = set()  # by id: published without a number already
        self._complain_at = 0.0
        self._refused: LedgerError | None = None
        self._again_at = 0.0
        self.notified = False  # notifications were added; whoever sends them clears it

    @property
    def _ledger(self) -> Ledger:
        if self.ledger is None:
            raise LedgerError("the store cannot be opened")
        return self.ledger

    @property
    def waiting(self) -> int:
        """How many steps wait to be written."""
        return len(self._waiting)

    @property
    def waiting_s(self) -> float:
        """For how long the first of them has waited, seconds."""
        return time.monotonic() - self._waiting[0][0] if self._waiting else 0.0

    def waiting_of(self, number: int) -> Live | None:
        """Return an episode as the steps that wait will write it, None while none of its steps waits.

        Raises:
            AlertError: what waits is that nothing of it is kept.
        """
        for _, step, _ in self._waiting:
            if step.live.number == number:
                if step.erase:
                    raise AlertError(f"there is no episode {number}")
                return step.live
        return None

    def keep(self, happenings: Iterable[Happening]) -> None:
        """Take what happened; ``flush`` writes it."""
        now = time.monotonic()
        for happening in happenings:
            if happening.erase:
                self._waiting = [item for item in self._waiting if item[1].live is not happening.live]
            # Made at once: the episode goes on changing while the store cannot be written.
            self._waiting.append((now, happening, message(happening, self._sender)))

    def opened_before(self, lives: Iterable[Live]) -> None:
        """These are in the store already: that they opened is no news, and whether they escalate is to be seen anew."""
        again = {id(live) for live in lives}
        gone = {
            id(step) for _, step, _ in self._waiting if id(step.live) in again and step.event in ("opened", "escalated")
        }
        self._told -= gone
        self._waiting = [item for item in self._waiting if id(item[1]) not in gone]

    def flush(self, now: float) -> list[Alert]:
        """Write what waits; return what is to be published now."""
        if not self._waiting:
            return []
        try:
            with self._writing() as connection:
                numbers = {id(item[1].live): item[1].live.number for item in self._waiting}
                done = [self._write(connection, step, alert, numbers, now) for _, step, alert in self._waiting]
        except LedgerError as error:
            self._complain(error)
            return self._overdue()
        for _, happening, _ in self._waiting:
            happening.live.number = numbers[id(happening.live)]
            happening.live.stored = happening.live.owner
        self._waiting, self._told = [], set()
        return done

    def settle(self, happening: Happening) -> Alert:
        """Write one step of what somebody asked for, now. Raises LedgerError: it cannot be done now."""
        with self._writing() as connection:
            numbers = {id(happening.live): happening.live.number}
            alert = self._write(connection, happening, message(happening, self._sender), numbers, time.time())
        happening.live.stored = happening.live.owner
        return alert

    def again(self) -> None:
        """Try at once also what could not be written a moment ago."""
        self._refused = None

    def progress(self, lives: Iterable[Live], usual: dict[int, Usual]) -> None:
        """Write how far open episodes are and what is usual for whom, so that a restart loses little."""
        rows = [live for live in lives if live.number is not None]
        learned = [(u.learned_s, json.dumps([round(m, 5) for m in u.mean]), p) for p, u in usual.items()]
        if not rows and not learned:
            return
        try:
            with self._writing() as connection:
                for live in rows:
                    alert_store.save(connection, live.number, _columns(connection, live))
                connection.executemany(
                    "INSERT INTO usual (person_id, learned_s, mean) SELECT id, ?, ? FROM person WHERE id = ? "
                    "ON CONFLICT (person_id) DO UPDATE SET learned_s = excluded.learned_s, mean = excluded.mean",
                    learned,
                )
        except LedgerError as error:
            self._complain(error)
            return
        for live in rows:
            live.stored = live.owner

    def add_test(self, targets: Iterable[str], now: float) -> list[int]:
        """Add a test to what is to be sent; return the notifications' numbers. Raises LedgerError."""
        with self._writing() as connection:
            text = "This is a test. If you can read it, alerts reach you."
            return [_notify(connection, None, None, target, "Mien: test", text, None, now, now) for target in targets]

    def picture(self, number: int, path: str | None, annotated: str | None, now: float) -> None:
        """The snapshot for an episode has come, or will not: send what waited for it. Raises LedgerError."""
        with self._writing() as connection:
            if path is not None:
                connection.execute("UPDATE episode SET snapshot = ? WHERE id = ?", (path, number))
            sql = "UPDATE notification SET snapshot = ?, next_at = ? WHERE episode_id = ? AND state = 'waiting'"
            connection.execute(f"{sql} AND attempts = 0", (annotated, now, number))

    # --- inside ---

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction. After one that came to nothing, the next is not even tried for a while: the stage would do
        little else than wait for the store. Raises LedgerError.
        """
        ledger = self._ledger
        if self._refused is not None and time.monotonic() < self._again_at:
            raise self._refused.with_traceback(None)
        try:
            with ledger.write() as connection:
                yield connection
        except LedgerError as error:
            self._refused, self._again_at = error, time.monotonic() + AGAIN_S
            raise
        self._refused = None

    def _write(
        self,
        connection: Connection,
        happening: Happening,
        alert: Alert,
        numbers: dict[int, int | None],
        now: float,
    ) -> Alert:
        live, number = happening.live, numbers[id(happening.live)]
        if happening.erase:
            if number is not None:
                connection.execute("DELETE FROM episode WHERE id = ?", (number,))
            return alert.model_copy(update={"episode": number or 0})
        if (number is None and _gone(connection, live)) or (number is not None and not _there(connection, number)):
            # Forgotten a moment ago: nothing comes back by what was noticed before.
            return _anonymous(alert, number or 0)
        columns = _columns(connection, live) | {"text": alert.text}
        number = numbers[id(live)] = alert_store.save(connection, number, columns)
        alert = alert.model_copy(update={"episode": number})
        serial = alert_store.add_step(
            connection, number, happening.event, happening.at, happening.by, alert.model_dump_json(by_alias=True)
        )
        self._notify(connection, happening, number, serial, now)
        return alert.model_copy(update={"serial": serial})

    def _notify(self, connection: Connection, happening: Happening, number: int, serial: int, now: float) -> None:
        live, settings = happening.live, self._settings
        if happening.event not in settings.events:
            return
        targets = settings.targets if live.rule.targets is None else live.rule.targets
        text = wording.text(live, happening.event, happening.at, names=settings.names)
        pictured = happening.event == "opened" and settings.snapshot and live.rule.snapshot
        for target in targets:
            due = now + SNAPSHOT_S if pictured else now
            camera = live.camera if pictured else None
            _notify(connection, number, serial, target, "Mien: please check", text, camera, now, due)
            self.notified = True
        waiting = connection.execute("SELECT count(*) FROM notification WHERE state = 'waiting'").fetchone()[0]
        if waiting > settings.most_waiting:
            log.error("%d notifications wait already (notifications.most_waiting): the oldest are given up", waiting)
            connection.execute(
                "UPDATE notification SET state = 'failed', error = 'too many waited', done_at = ? WHERE id IN "
                "(SELECT id FROM notification WHERE state = 'waiting' ORDER BY id LIMIT ?)",
                (now, waiting - settings.most_waiting),
            )

    def _overdue(self) -> list[Alert]:
        now = time.monotonic()
        late = [item for item in self._waiting if now - item[0] >= PATIENCE_S and id(item[1]) not in self._told]
        self._told |= {id(happening) for _, happening, _ in late}
        return [alert for _, _, alert in late]

    def _complain(self, error: Exception) -> None:
        if time.monotonic() >= self._complain_at:
            self._complain_at = time.monotonic() + COMPLAIN_EVERY_S
            log.warning("%s; %d steps of episodes wait", error, len(self._waiting))


def message(happening: Happening, sender: str) -> Alert:
    """Return what is published of a step; its serial is known when it has been written down."""
    live = happening.live
    return Alert(
        sender=sender,
        camera=live.camera,
        episode=live.number or 0,
        event=happening.event,
        rule=live.rule.name,
        about=live.rule.about,
        person=live.party.person,
        name=live.party.name,
        number=live.party.number,
        track=live.party.track,
        label=live.label,
        since=live.began_at,
        text=live.text,
        by=happening.by,
        until=happening.until,
        judgement=live.judgement,
        why=happening.why,
    )


def people_of(ledger: Ledger, now: float) -> tuple[dict[int, Known], float]:
    """Return what rules need to know of everybody who is enrolled, and until when that holds: a consent ends then."""
    with ledger.read() as connection:
        rows = connection.execute("SELECT id, name, role, consent, consent_until FROM person").fetchall()
    ends = [row["consent_until"] for row in rows if row["consent_until"] is not None and row["consent_until"] > now]
    people = {
        row["id"]: Known(
            name=row["name"],
            role=row["role"],
            withheld=row["consent"] != "given" or (row["consent_until"] is not None and row["consent_until"] <= now),
        )
        for row in rows
    }
    return people, min(ends, default=float("inf"))


def usual_of(ledger: Ledger) -> dict[int, Usual]:
    """Return what is usual for whom, as far as it was learned."""
    with ledger.read() as connection:
        rows = connection.execute("SELECT person_id, learned_s, mean FROM usual").fetchall()
    return {row["person_id"]: Usual(mean=json.loads(row["mean"]), learned_s=row["learned_s"]) for row in rows}


def left_open(
    ledger: Ledger, rules: Iterable[Rule], people: dict[int, Known], cameras: Collection[str]
) -> tuple[list[Live], list[Live]]:
    """Return the episodes that were open when the stage ended, and those whose rule or camera is configured no more.

    Those of people without consent are among the first: the desk sees to it that nothing is said or kept of them.
    """
    by_name = {rule.name: rule for rule in rules}
    kept: list[Live] = []
    stray: list[Live] = []
    with ledger.read() as connection:
        rows = alert_store.memories(connection)
    for row in rows:
        rule, known = by_name.get(row["rule"]), people.get(row["person_id"])
        fits = rule is not None and rule.about == row["about"]
        # Nobody would ever say of a camera that is gone that it shows something again.
        fits = fits and (row["about"] != "offline" or row["camera"] in cameras)
        used = rule if fits and rule is not None else Rule(name=row["rule"], about=row["about"])
        (kept if fits or (known is not None and known.withheld) else stray).append(
            restored(row, used, known.role if known else None)
        )
    return kept, stray


def lately_closed(ledger: Ledger, since: float) -> list[tuple[str, Key, float]]:
    """Return which rules closed for whom, and when: they cool down."""
    with ledger.read() as connection:
        rows = connection.execute("SELECT * FROM episode WHERE closed_at >= ? ORDER BY closed_at", (since,)).fetchall()
    found: list[tuple[str, Key, float]] = []
    for row in rows:
        party = Party(person=row["person_id"], number=row["unknown_id"], track=row["track"])
        found.append((row["rule"], key_of(party, row["camera"]), row["closed_at"]))
    return found


def stored(ledger: Ledger, number: int, rules: Iterable[Rule]) -> Live:
    """Return any episode as it was written down. Raises AlertError: there is none."""
    with ledger.read() as connection:
        row = alert_store.row(connection, number)
    by_name = {rule.name: rule for rule in rules}
    return restored(row, by_name.get(row["rule"], Rule(name=row["rule"], about=row["about"])))


def _notify(
    connection: Connection, number: int | None, serial: int | None, target: str, title: str, body: str,
    camera: str | None, at: float, due: float,
) -> int:  # fmt: skip
    sql = (
        "INSERT INTO notification (episode_id, serial, target, title, body, camera, created_at, next_at, state, "
        "attempts) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'waiting', 0)"
    )
    fields: tuple[Any, ...] = (number, serial, target, title, body, camera, at, due)
    return int(connection.execute(sql, fields).lastrowid or 0)


def _columns(connection: Connection, live: Live) -> dict[str, Any]:
    """Return what is to be written of an episode. Whose it is only where that was found out here: a merge, or the
    naming of an unknown person, has written it already.
    """
    columns = live.columns()
    if live.number is not None and (live.owner == live.stored or _gone(connection, live)):
        del columns["person_id"], columns["unknown_id"]
    return columns


def _gone(connection: Connection, live: Live) -> bool:
    person = live.party.person
    return person is not None and not connection.execute("SELECT 1 FROM person WHERE id = ?", (person,)).fetchone()


def _there(connection: Connection, number: int) -> bool:
    return connection.execute("SELECT 1 FROM episode WHERE id = ?", (number,)).fetchone() is not None


def _anonymous(alert: Alert, number: int) -> Alert:
    gone = {"person": None, "name": None, "number": None, "track": None, "text": "", "episode": number}
    return alert.model_copy(update=gone)
