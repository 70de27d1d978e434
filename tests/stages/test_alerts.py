"""The alerts and history stages as processes, fed over a real bus with made-up results."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from common import alert_store, control, forgetting, history_store, people
from common import config as configuration
from common.history_store import Subject
from common.ledger import Ledger, LedgerError
from common.messages import Alert, Control, Face, Message, Sample, Stats
from common.news import NewsReader, NewsWriter
from common.settings import Config
from common.store import Store
from stages.alerts import AlertsStage
from tests.common.alerts.scripted import ADA, HAPPY, PENDING, SAD, STRANGER, correction, face, result
from tests.conftest import end, start_stage, wait_until
from tests.people import reference
from tests.receivers import WebServer


@dataclass
class Ward:
    """A bus, the two stages, somebody who publishes results, and somebody who listens.

    Attributes:
        alerts: what was published, in order.
    """

    config: Config
    writer: NewsWriter
    reader: NewsReader
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    alerts: list[Alert] = field(default_factory=list)
    ready: set[str] = field(default_factory=set)

    def start(self, *stages: str) -> None:
        for stage in stages:
            self.ready.discard(stage)
            self.processes[stage] = start_stage(stage, self.config)
        self.until(lambda: self.ready >= set(stages), "the stages run", 30)

    def kill(self, stage: str) -> None:
        self.processes[stage].send_signal(signal.SIGKILL)
        self.processes.pop(stage).wait()

    def until(self, predicate: Any, what: str, timeout_s: float = 20, faces: tuple[Face, ...] | None = None) -> Any:
        """Publish these faces ten times a second until the predicate holds."""
        sent = 0.0

        def holds() -> Any:
            nonlocal sent
            if faces is not None and time.monotonic() - sent >= 0.1:
                sent = time.monotonic()
                self.writer.publish(Sample.of(result(time.time(), *faces)), "ward")
            for _, message in self.reader.read(timeout_ms=10):
                self._take(message)
            return predicate()

        return wait_until(holds, timeout_s, f"{what}; came: {[(one.event, one.text) for one in self.alerts]}")

    def events(self) -> list[str]:
        return [one.event for one in self.alerts]

    def ask(self, do: str, **args: Any) -> Any:
        return control.ask(self.config, "alerts", do, timeout_s=20, **args)

    def _take(self, message: Message) -> None:
        if isinstance(message, Alert):
            self.alerts.append(message)
        elif isinstance(message, Stats) and message.state == "running":
            self.ready.add(message.stage)


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


@pytest.fixture
def ward(config: Config, bus: object, web: WebServer) -> Iterator[Ward]:
    rules = [
        {"name": "negative", "min_duration_s": 1, "leave_s": 1, "cooldown_s": 0.5, "escalate_after_s": 300},
        {"name": "offline", "about": "offline", "min_duration_s": 30},
    ]
    changed = {
        "alerts": {"rules": rules},
        "notifications": {"targets": {"hook": web.address}, "retry_first_s": 0.1},
        "cameras": {"ward": {"source": "demo"}},
    }
    made = configuration.load(overrides=config.model_dump(mode="json") | changed, environment={})
    configuration.save(made, made.run_dir / "config.json")
    with Store(made.storage.place) as store:
        people.add(store, "Zoe", [reference(1)])
        people.add(store, "Yan", [reference(2)])
        people.add(store, "Ada", [reference(3)])
    built = Ward(made, NewsWriter(made, "conductor.test.1"), NewsReader(made, ("alerts.", "stats.")))
    yield built
    for process in built.processes.values():
        end(process)
    built.writer.close()
    built.reader.close()


def test_an_episode_from_opening_to_closing(ward: Ward, web: WebServer) -> None:
    ward.start("alerts")
    ward.until(ward.events, "it opens", faces=(face(SAD),))
    [opened] = ward.alerts
    assert (opened.event, opened.serial, opened.person, opened.name, opened.label) == ("opened", 1, 3, "Ada", "sad")
    assert opened.text == "Ada has looked sad for 0:01 – please check"
    wait_until(lambda: web.bodies, 30, "the notification comes")
    # With the moment, and nothing else.
    assert re.fullmatch(re.escape(opened.text) + r" \((\d{4}-\d\d-\d\d )?\d\d:\d\d\)", web.bodies[0]["message"].strip())
    answer = ward.ask("acknowledge", episode=opened.episode, by="Kim")
    assert answer.ok and answer.result["serial"] == 2
    refused = ward.ask("acknowledge", episode=opened.episode, by="Lee")
    assert not refused.ok and "acknowledged already, by Kim" in refused.error
    assert ward.ask("judge", episode=opened.episode, by="Kim", judgement="useful").ok
    ward.until(lambda: "closed" in ward.events(), "it closes", faces=(face(HAPPY),))
    assert ward.events() == ["opened", "acknowledged", "judged", "closed"]
    assert [one.serial for one in ward.alerts] == [1, 2, 3, 4]
    assert [one.n for one in ward.alerts] == sorted(one.n for one in ward.alerts)
    # Also when it is over, it can be judged, and whoever missed something asks for it.
    assert ward.ask("judge", episode=opened.episode, by="Lee", judgement="false alarm").ok
    missed = ward.ask("events", since=2)
    assert [(one["serial"], one["event"]) for one in json.loads(missed.result["events"])] == [
        (3, "judged"), (4, "closed"), (5, "judged"),
    ]  # fmt: skip
    assert (missed.result["last"], missed.result["more"]) == (5, False)
    with Ledger(ward.config.storage.place) as ledger:
        [kept] = alert_store.episodes(ledger)
    assert (kept.acknowledged_by, kept.judgement, kept.state) == ("Kim", "false alarm", "closed")
    assert len(web.bodies) == 1


def test_wrong_requests_are_answered_with_what_would_be_right(ward: Ward) -> None:
    ward.start("alerts")
    for args, why in (
        ({"do": "acknowledge"}, "which episode"),
        ({"do": "acknowledge", "episode": 99}, "no episode 99"),
        ({"do": "judge", "episode": 99, "judgement": "nice"}, "no episode 99"),
        ({"do": "events", "since": -1}, "0 or more"),
        ({"do": "test-notification", "target": "pigeon"}, "configured: hook"),
        ({"do": "dance"}, "does not know how"),
    ):
        answer = ward.ask(**args)
        assert not answer.ok and why in answer.error, (args, answer)


def test_an_open_episode_survives_kill_9_as_one_and_what_was_sent_is_not_sent_again(ward: Ward, web: WebServer) -> None:
    ward.start("alerts")
    ward.until(ward.events, "it opens", faces=(face(SAD),))
    with Ledger(ward.config.storage.place) as ledger:
        wait_until(lambda: alert_store.notifications(ledger)[0].state == "sent", 30, "the notification is sent")
    ward.kill("alerts")
    ward.start("alerts")
    began = time.monotonic()
    ward.until(lambda: time.monotonic() - began > 2.5, "she goes on", faces=(face(SAD, track=18),))
    assert ward.ask("acknowledge", episode=ward.alerts[0].episode, by="Kim").ok
    ward.until(lambda: "closed" in ward.events(), "it closes", faces=(face(HAPPY, track=18),))
    assert ward.events() == ["opened", "acknowledged", "closed"]
    assert [one.serial for one in ward.alerts] == [1, 2, 3]
    assert len(web.bodies) == 1


def test_an_acknowledgement_waits_for_a_store_that_is_busy(ward: Ward) -> None:
    ward.start("alerts")
    ward.until(ward.events, "it opens", faces=(face(SAD),))
    with Ledger(ward.config.storage.place) as ledger, ThreadPoolExecutor(1) as pool:
        with ledger.write() as connection:
            connection.execute("UPDATE person SET notes = 'busy'")
            answer = pool.submit(ward.ask, "acknowledge", episode=ward.alerts[0].episode, by="Kim")
            began = time.monotonic()
            wait_until(lambda: time.monotonic() - began > 0.8, what="it is asked meanwhile")
            assert not answer.done()
        assert answer.result(20).ok


@pytest.fixture
def stage(config: Config) -> Iterator[AlertsStage]:
    made = AlertsStage(config)
    try:
        made.open()
        yield made
    finally:
        made.close()
        made.news.close()
        made._inbox.close()


def test_what_is_asked_of_an_episode_while_nothing_can_be_written_is_done_late_and_holds_up_nothing(
    config: Config, stage: AlertsStage
) -> None:
    began = time.time()

    def look(seconds: float, *faces: Face) -> None:
        nonlocal began
        for _ in range(round(seconds * 5)):
            began += 0.2
            stage._desk.result(result(began, *faces), began)
        stage._publish()

    def ask(request: str, do: str, **args: Any) -> Any:
        return stage.control(Control(sender="test.1", request=request * 32, do=do, args=args))

    def answered() -> bool:
        stage.handle(set())
        return stage._answered.keys() >= {"7" * 32, "8" * 32, "9" * 32}

    look(15, face(SAD, STRANGER))
    [live] = stage._desk.open.values()
    assert live.number is not None
    with Ledger(config.storage.place) as ledger:
        with ledger.write():
            look(15, face(HAPPY, STRANGER))
            assert (len(stage._desk.open), stage._book.waiting, stage.detail()["waiting"]) == (0, 1, 1)
            asked_at = time.monotonic()
            assert ask("7", "acknowledge", episode=live.number, by="Kim") is None
            assert ask("8", "judge", episode=live.number, by="Kim", judgement="useful") is None
            assert ask("9", "acknowledge", episode=live.number, by="Lee") is None
            stage.handle(set())
            assert time.monotonic() - asked_at < 1.0
            assert not stage._answered and live.acknowledged_by is None  # it has not happened yet
        wait_until(answered, 10, "they are answered")
        said = [(reply.ok, reply.error) for reply in stage._answered.values() if reply is not None]
        assert said[:2] == [(True, None)] * 2 and not said[2][0] and "acknowledged already, by Kim" in str(said[2][1])
        [kept] = alert_store.episodes(ledger)
        assert (kept.state, kept.closed_why, kept.acknowledged_by) == ("closed", "no longer looks sad", "Kim")
        events = [step.event for step in alert_store.steps(ledger, live.number)]
        assert events == ["opened", "closed", "acknowledged", "judged"]
        assert stage.detail()["waiting"] == 0


def test_a_change_that_cannot_be_written_is_refused_in_the_end_and_has_not_happened(
    config: Config, stage: AlertsStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stages.alerts.ASKED_S", 1.0)
    began = time.time()
    for moment in range(75):
        stage._desk.result(result(began + moment / 5, face(SAD, STRANGER)), began + moment / 5)
    stage._publish()
    [live] = stage._desk.open.values()
    with Ledger(config.storage.place) as ledger, ledger.write():
        args = {"episode": live.number, "by": "Kim"}
        assert stage.control(Control(sender="test.1", request="7" * 32, do="acknowledge", args=args)) is None
        wait_until(lambda: stage.handle(set()) or stage._answered, 10, "it is answered")
    [answer] = stage._answered.values()
    assert answer is not None and not answer.ok and "locked" in str(answer.error)
    assert live.acknowledged_by is None


def test_news_that_take_long_to_handle_leave_a_turn_its_end(config: Config, bus: object) -> None:
    class Slow(AlertsStage):
        def on_news(self, topic: str, message: Message) -> None:
            taken.append(topic)
            pause.wait(0.05)

    taken: list[str] = []
    pause, stage, writer = threading.Event(), Slow(config), NewsWriter(config, "conductor.test.1")

    def turn() -> float:
        writer.publish(Sample.of(result(time.time())), "ward")
        stage.poller.wait(20)
        began = time.monotonic()
        stage._read_news()
        return time.monotonic() - began

    try:
        wait_until(lambda: turn() and taken, 20, "the first comes")
        for _ in range(40):
            writer.publish(Sample.of(result(time.time())), "ward")
        assert max(turn() for _ in range(20)) < 1.0  # all at once are two seconds
        wait_until(lambda: turn() and len(taken) >= 41, 20, "the others come in later turns")
    finally:
        stage.news.close()
        stage._inbox.close()
        writer.close()


def test_consent_that_runs_out_ends_the_episode_without_a_name(ward: Ward) -> None:
    ward.start("alerts")
    ward.until(ward.events, "it opens", faces=(face(SAD),))
    with Store(ward.config.storage.place) as store:
        people.change(store, "Ada", consent_until=time.time() + 1)
    ward.until(lambda: "closed" in ward.events(), "it ends", 6, faces=(face(SAD),))
    assert (ward.alerts[-1].person, ward.alerts[-1].name, ward.alerts[-1].text) == (None, None, "")
    with Ledger(ward.config.storage.place) as ledger:
        assert alert_store.episodes(ledger) == []


def test_whoever_asks_for_what_was_missed_learns_nothing_of_somebody_without_consent(ward: Ward) -> None:
    ward.start("alerts")
    ward.until(ward.events, "it opens", faces=(face(SAD),))
    ward.until(lambda: "closed" in ward.events(), "it closes", faces=(face(HAPPY),))
    assert len(json.loads(ward.ask("events", since=0).result["events"])) == 2
    with Store(ward.config.storage.place) as store:
        people.change(store, "Ada", consent="refused")
    missed = ward.ask("events", since=0)
    assert (missed.result["events"], missed.result["last"], missed.result["more"]) == ("[]", 2, False)


def test_a_test_notification_arrives_and_one_that_cannot_says_why(ward: Ward, web: WebServer) -> None:
    ward.start("alerts")
    answer = ward.ask("test-notification")
    assert answer.ok and answer.result["sent"] == "hook"
    assert "This is a test" in web.bodies[0]["message"]
    web.refuse = 1
    answer = ward.ask("test-notification", target="hook")
    assert not answer.ok and "503" in answer.error


def test_a_test_notification_waits_for_a_store_that_cannot_be_read_and_then_says_so(
    stage: AlertsStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise LedgerError("the server is away")

    monkeypatch.setattr(alert_store, "notifications", fail)
    request = "7" * 32
    stage._tests[request] = ([1], time.monotonic() + 60)
    stage.handle(set())
    assert request in stage._tests
    stage._tests[request] = ([1], time.monotonic())
    stage.handle(set())
    answer = stage._answered[request]
    assert answer is not None and not answer.ok and "the server is away" in str(answer.error)


def test_history_is_written_and_a_late_name_takes_what_was_before(ward: Ward) -> None:
    ward.start("history")
    began = time.monotonic()
    ward.until(lambda: time.monotonic() - began > 1.5, "somebody is seen", faces=(face(SAD, PENDING),))
    began = time.monotonic()
    ward.until(lambda: time.monotonic() - began > 1.5, "with a number", faces=(face(SAD, STRANGER),))
    now = time.time()
    with Ledger(ward.config.storage.place) as ledger:

        def seconds(subject: Subject) -> int:
            return len(history_store.steps(ledger, subject, now - 60, now + 60))

        ward.until(lambda: seconds(Subject(unknown=12)) >= 3, "it is written", faces=())
        ward.writer.publish(correction(17, STRANGER, ADA), "ward")
        ward.until(lambda: seconds(Subject(person=3)) >= 3, "it is hers", faces=())
        assert seconds(Subject(unknown=12)) == 0
        found = history_store.summary(ledger, Subject(person=3), now - 60, now + 60)
        assert found.expressions_s["sad"] >= 2
        assert found.share_present == pytest.approx(1, abs=0.05)


def test_a_locked_store_loses_no_history(ward: Ward) -> None:
    ward.start("history")
    with Ledger(ward.config.storage.place) as ledger:
        began, begin = time.monotonic(), time.time()
        with ledger.write() as connection:
            connection.execute("UPDATE person SET notes = 'busy'")
            ward.until(lambda: time.monotonic() - began > 3, "it is locked", faces=(face(SAD),))
        finish = time.time()
        wanted = set(range(int(begin) + 1, int(finish)))

        def kept() -> set[int]:
            return set(history_store.steps(ledger, Subject(person=3), begin - 5, finish + 5).at.tolist())

        ward.until(lambda: kept() >= wanted, "every second is there", faces=(face(SAD),))


def test_forgetting_reaches_both_stages_within_5_s(ward: Ward) -> None:
    ward.start("alerts", "history")
    ward.until(ward.events, "it opens", faces=(face(SAD),))
    with Ledger(ward.config.storage.place) as ledger, Store(ward.config.storage.place) as store:
        now = time.time()
        ward.until(lambda: history_store.subjects(ledger, now - 60, now + 60), "history is there", faces=(face(SAD),))
        forgetting.forget(store, ward.config, "Ada")
        began = time.monotonic()
        ward.until(lambda: "closed" in ward.events(), "the episode ends", 5, faces=(face(SAD),))
        # Results still name her for a moment: nothing of that is kept.
        ward.until(lambda: time.monotonic() - began > 3, "time passes", faces=(face(SAD),))
        closed = next(one for one in ward.alerts if one.event == "closed")
        assert (closed.person, closed.name, closed.text) == (None, None, "")
        assert alert_store.episodes(ledger) == []
        assert history_store.subjects(ledger, now - 60, now + 60) == []
    for name in ("mien.db", "mien.db-wal"):
        path = ward.config.storage.data_dir / name
        assert not path.exists() or b"Ada has looked" not in path.read_bytes(), name


def test_people_that_are_merged_while_an_episode_is_open_keep_it_as_one(ward: Ward) -> None:
    ward.start("alerts", "history")
    ward.until(ward.events, "it opens", faces=(face(SAD),))
    with Store(ward.config.storage.place) as store:
        zoe = people.find(store, "Zoe").id
        people.merge(store, "Ada", "Zoe")
    # Whoever names faces learns of it at about the same time.
    merged = ADA.model_copy(update={"person": zoe, "name": "Zoe"})
    ward.writer.publish(correction(17, ADA, merged), "ward")
    ward.until(lambda: "closed" in ward.events(), "it closes", faces=(face(HAPPY, merged),))
    assert ward.events() == ["opened", "closed"]
    assert ward.alerts[-1].text.startswith("Zoe: no longer looks sad")
    with Ledger(ward.config.storage.place) as ledger:
        [kept] = alert_store.episodes(ledger)
    assert (kept.person, kept.state) == (zoe, "closed")


def test_they_end_when_asked_and_say_so_when_the_store_cannot_be_used(ward: Ward) -> None:
    ward.start("alerts", "history")
    for stage in ("alerts", "history"):
        assert end(ward.processes.pop(stage)) == 0
    (ward.config.storage.data_dir / "mien.db").write_bytes(b"no database at all" * 100)
    for stage in ("alerts", "history"):
        process = start_stage(stage, ward.config, stderr=subprocess.PIPE)
        assert process.wait(30) == 2
        assert process.stderr is not None
        with process.stderr:
            assert b"cannot be opened" in process.stderr.read()
    assert os.path.getsize(ward.config.storage.data_dir / "mien.db") == 1800
