"""Notifications reach real receivers once, whatever fails in between."""

from __future__ import annotations

import email
import email.policy
import html
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from common import alert_book, alert_store, people
from common.alert_book import Book, left_open
from common.alerts.baseline import Usual
from common.alerts.episode import acknowledge
from common.alerts.register import Known
from common.alerts.rules import NotificationsConfig, Rule
from common.alerts.wording import moment
from common.ledger import Ledger, LedgerError
from common.notify import Outbox, send
from common.place import Place
from common.store import Store
from tests.common.alerts.scripted import ADA, BEGIN, PENDING, SAD, Script, face
from tests.conftest import wait_until
from tests.receivers import MailServer, WebServer

# A plug-in of apprise still imports it.
pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

RULE = Rule(name="negative", min_duration_s=1, leave_s=1, cooldown_s=0)


@pytest.fixture
def ledger(place: Place) -> Iterator[Ledger]:
    Store(place).close()
    with Ledger(place) as made:
        yield made


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


@pytest.fixture
def started(place: Place) -> Iterator[Callable[..., Outbox]]:
    running: list[Outbox] = []

    def start(settings: NotificationsConfig) -> Outbox:
        outbox = Outbox(place, settings)
        outbox.open()
        running.append(outbox)
        return outbox

    yield start
    for outbox in running:
        outbox.close()


def unnumbered() -> Script:
    """A script whose episodes are numbered by the store."""
    script = Script(RULE)
    script.numbered = False
    return script


def told(**targets: str) -> NotificationsConfig:
    return NotificationsConfig(targets=targets, retry_first_s=0.05, retry_longest_s=0.2)


def alert(ledger: Ledger, settings: NotificationsConfig, *, age_s: float = 0.0) -> int:
    """Open an episode and write it down, so long ago; return its number."""
    script = unnumbered()
    script.play(2, face(SAD, PENDING))
    now = time.time() - age_s
    book = Book(ledger, settings, "alerts.test.1")
    book.keep(script.happened)
    [published] = book.flush(now)
    return published.episode


def states(ledger: Ledger) -> list[str]:
    return [one.state for one in reversed(alert_store.notifications(ledger))]


def test_a_mail_arrives_with_text_and_picture(ledger: Ledger, started: Callable[..., Outbox], tmp_path: Path) -> None:
    picture = tmp_path / "ward.jpg"
    assert cv2.imwrite(str(picture), np.full((48, 64, 3), 90, np.uint8))
    with MailServer() as server:
        settings = told(mail=server.address)
        number = alert(ledger, settings)
        Book(ledger, settings, "alerts.test.1").picture(number, str(picture), str(picture), time.time())
        started(settings)
        wait_until(lambda: states(ledger) == ["sent"], 30, "it is sent")
        [mail] = server.mails
    message = email.message_from_bytes(mail, policy=email.policy.default)
    assert message["subject"] == "Mien: please check"
    [text, *_] = [part for part in message.walk() if part.get_content_type() in ("text/plain", "text/html")]
    assert "has looked sad for 0:01" in text.get_content()
    assert f"({moment(BEGIN + 1.2, time.time())})" in text.get_content()
    [attached] = [part for part in message.walk() if part.get_filename()]
    assert attached.get_payload(decode=True) == picture.read_bytes()


@pytest.mark.parametrize("form", ["text", "html"])
def test_a_name_arrives_whole_whatever_it_is_written_with(form: str) -> None:
    text = "Ann <Bob> & Co has looked sad for 0:10 – please check"
    with MailServer() as server:
        assert send(f"{server.address}&format={form}", "Mien: please check", text, None) is None
        [mail] = server.mails
    message = email.message_from_bytes(mail, policy=email.policy.default)
    parts = {part.get_content_type(): part.get_content().strip() for part in message.walk() if not part.is_multipart()}
    assert parts.pop("text/plain") == text
    assert list(parts) == (["text/html"] if form == "html" else [])
    for escaped in parts.values():
        assert "<" not in escaped
        assert html.unescape(escaped).replace("\xa0", " ") == text


def test_a_web_hook_that_fails_is_tried_again_until_it_takes_it_once(
    ledger: Ledger, web: WebServer, started: Callable[..., Outbox]
) -> None:
    web.refuse = 2
    settings = told(hook=web.address)
    alert(ledger, settings)
    started(settings)
    wait_until(lambda: states(ledger) == ["sent"], 30, "it is sent")
    assert (web.asked, len(web.bodies)) == (3, 1)
    [step] = alert_store.steps_since(ledger, 0)
    told_at = moment(step.at, time.time())
    assert web.bodies[0]["message"] == f"Somebody on ward has looked sad for 0:01 – please check ({told_at})"
    [row] = alert_store.notifications(ledger)
    assert (row.attempts, row.error) == (3, None)


def test_what_was_sent_is_not_sent_again_after_a_restart_and_what_was_not_is(
    ledger: Ledger, web: WebServer, started: Callable[..., Outbox]
) -> None:
    settings = told(hook=web.address)
    alert(ledger, settings)
    first = started(settings)
    wait_until(lambda: states(ledger) == ["sent"], 30, "it is sent")
    first.close()
    alert(ledger, settings)  # nobody runs
    started(settings)
    wait_until(lambda: states(ledger) == ["sent", "sent"], 30, "the second is sent")
    assert len(web.bodies) == 2


def test_a_target_that_hangs_holds_up_nobody_else(
    ledger: Ledger, web: WebServer, started: Callable[..., Outbox]
) -> None:
    web.hold.clear()
    with WebServer() as quick:
        settings = told(slow=web.address, quick=quick.address)
        alert(ledger, settings)
        started(settings)
        wait_until(lambda: quick.bodies and web.asked, 30, "the quick one has it")
        assert not web.bodies
        began = time.monotonic()
        web.hold.set()
        wait_until(lambda: web.bodies, 30, "the slow one has it, too")
        assert time.monotonic() - began < 10


def test_ending_does_not_wait_for_a_target_that_hangs(ledger: Ledger, web: WebServer, place: Place) -> None:
    web.hold.clear()
    settings = told(slow=web.address)
    alert(ledger, settings)
    outbox = Outbox(place, settings)
    outbox.open()
    wait_until(lambda: web.asked, 30, "it is asked")
    began = time.monotonic()
    outbox.close()
    assert time.monotonic() - began < 2
    web.hold.set()


def test_a_test_that_fails_says_why_and_is_not_tried_again(
    ledger: Ledger, web: WebServer, started: Callable[..., Outbox]
) -> None:
    web.refuse = 1
    settings = told(hook=web.address, nonsense="no-such-thing://x")
    Book(ledger, settings, "alerts.test.1").add_test(["hook", "nonsense"], time.time())
    started(settings)
    wait_until(lambda: states(ledger) == ["failed", "failed"], 30, "both have failed")
    [wrong, refused] = alert_store.notifications(ledger)
    assert wrong.error is not None and "apprise understands" in wrong.error
    assert refused.error is not None and "503" in refused.error
    assert web.asked == 1


def test_what_waits_for_a_target_that_is_gone_has_failed(ledger: Ledger, started: Callable[..., Outbox]) -> None:
    alert(ledger, told(gone="json://127.0.0.1:1/"))
    started(told(other="json://127.0.0.1:1/"))
    wait_until(lambda: states(ledger) == ["failed"], 30, "it is given up")
    assert "no longer configured" in (alert_store.notifications(ledger)[0].error or "")


def test_what_would_be_tried_again_too_late_is_given_up(ledger: Ledger, started: Callable[..., Outbox]) -> None:
    late = {"give_up_s": 300, "retry_first_s": 600, "retry_longest_s": 600}
    settings = told(hook="json://127.0.0.1:1/").model_copy(update=late)
    alert(ledger, settings)
    started(settings)
    wait_until(lambda: states(ledger) == ["failed"], 30, "it is given up")
    assert alert_store.notifications(ledger)[0].attempts == 1


@pytest.mark.parametrize("attempts", [0, 1])
def test_what_waits_is_not_put_off_by_a_clock_that_is_set_back(
    ledger: Ledger, web: WebServer, started: Callable[..., Outbox], attempts: int
) -> None:
    settings = told(hook=web.address).model_copy(update={"retry_longest_s": 300})
    alert(ledger, settings, age_s=-120)  # as it was by the clock of then
    with ledger.write() as connection:
        connection.execute("UPDATE notification SET attempts = ?", (attempts,))
    started(settings)
    wait_until(lambda: web.bodies, 30, "it is sent")


def test_what_has_waited_for_days_is_not_sent(ledger: Ledger, web: WebServer, started: Callable[..., Outbox]) -> None:
    settings = told(hook=web.address)
    alert(ledger, settings, age_s=3 * 86400)
    alert(ledger, settings)
    started(settings)
    wait_until(lambda: "waiting" not in states(ledger), 30, "both are settled")
    assert states(ledger) == ["failed", "sent"]
    assert len(web.bodies) == 1
    old = alert_store.notifications(ledger)[1]
    assert (old.attempts, old.error) == (0, "it has waited for longer than notifications.give_up_s")


def test_nobody_is_called_to_what_is_over_or_acknowledged_but_its_end_is_told(
    ledger: Ledger, web: WebServer, started: Callable[..., Outbox]
) -> None:
    settings = told(hook=web.address).model_copy(update={"events": ("opened", "escalated", "closed")})
    book = Book(ledger, settings, "alerts.test.1")
    for acknowledged in (False, True):
        script = Script(RULE.model_copy(update={"escalate_after_s": 2}))
        script.numbered = False
        script.play(5, face(SAD, PENDING))
        if not acknowledged:
            script.play(3, face({"happy": 0.9}, PENDING))
        now = time.time()
        book.keep(script.happened)
        book.flush(now)
        if acknowledged:
            book.settle(acknowledge(script.happened[0].live, now, "Kim"))
    started(settings)
    wait_until(lambda: "waiting" not in states(ledger), 30, "all are settled")
    assert states(ledger) == ["failed", "failed", "sent", "failed", "failed"]
    errors = [one.error for one in reversed(alert_store.notifications(ledger))]
    assert errors == ["its episode is over"] * 2 + [None] + ["its episode is acknowledged"] * 2
    [body] = web.bodies
    assert body["message"].startswith("Somebody on ward: no longer looks sad, after 0:0")


def test_a_moment_is_told_with_its_day_unless_that_is_today() -> None:
    noon = time.mktime((2027, 3, 1, 12, 5, 0, 0, 0, -1))
    assert moment(noon, noon + 3600) == "12:05"
    assert moment(noon, noon + 86400) == "2027-03-01 12:05"


def test_no_more_wait_than_is_allowed(ledger: Ledger) -> None:
    settings = told(hook="json://127.0.0.1:1/").model_copy(update={"most_waiting": 2})
    for _ in range(4):
        alert(ledger, settings)
    assert states(ledger) == ["failed", "failed", "waiting", "waiting"]


def test_without_names_nobody_is_named(ledger: Ledger) -> None:
    settings = told(hook="json://127.0.0.1:1/").model_copy(update={"names": False})
    script = unnumbered()
    script.play(2, face(SAD))
    with ledger.write() as connection:
        connection.execute(
            "INSERT INTO person (id, name, name_key, role, notes, consent, created_at, changed_at) "
            "VALUES (3, 'Ada', 'ada', 'patient', '', 'given', 0, 0)"
        )
    book = Book(ledger, settings, "alerts.test.1")
    book.keep(script.happened)
    [published] = book.flush(time.time())
    assert published.text.startswith("Ada has looked sad")
    with ledger.read() as connection:
        [row] = connection.execute("SELECT body FROM notification").fetchall()
    assert row["body"] == "A patient has looked sad for 0:01 – please check"


# --- the book ---


def test_steps_are_numbered_without_a_gap_and_can_be_asked_for(ledger: Ledger) -> None:
    script = unnumbered()
    script.play(2, face(SAD, PENDING))
    script.play(3, face({"happy": 0.9}, PENDING))
    book = Book(ledger, NotificationsConfig(), "alerts.test.1")
    book.keep(script.happened)
    published = book.flush(0.0)
    assert [(one.serial, one.episode, one.event) for one in published] == [(1, 1, "opened"), (2, 1, "closed")]
    assert [(one.serial, one.event) for one in alert_store.steps_since(ledger, 1)] == [(2, "closed")]
    [episode] = alert_store.episodes(ledger)
    assert (episode.state, episode.closed_why) == ("closed", "no longer looks sad")
    assert alert_store.last_serial(ledger) == 2


def test_a_locked_store_delays_what_is_written_and_not_what_is_said(
    ledger: Ledger, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alert_book, "PATIENCE_S", 0.3)
    monkeypatch.setattr(alert_book, "AGAIN_S", 0.1)
    script = unnumbered()
    script.play(2, face(SAD, PENDING))
    with Ledger(place, busy_ms=20) as impatient:
        book = Book(impatient, NotificationsConfig(), "alerts.test.1")
        book.keep(script.happened)
        with ledger.write():
            assert book.flush(3600.0) == []
            # Somebody sets the clock back by an hour meanwhile.
            [early] = wait_until(lambda: book.flush(0.0), 5, "it is said")
            assert (early.serial, early.event) == (0, "opened")
            assert (book.waiting, book.waiting_s >= 0.3) == (1, True)
            assert book.flush(1.0) == []  # once is enough
        [late] = wait_until(lambda: book.flush(2.0), 5, "it is written")
        assert (late.serial, late.episode) == (1, 1)
        assert script.happened[0].live.number == 1
        assert (book.waiting, book.waiting_s) == (0, 0.0)


def test_a_store_that_is_locked_holds_its_writer_up_once_a_second_and_not_at_each_step(
    ledger: Ledger, place: Place
) -> None:
    script = unnumbered()
    script.play(2, face(SAD, PENDING))
    with Ledger(place, busy_ms=200) as impatient:
        book = Book(impatient, NotificationsConfig(), "alerts.test.1")
        book.keep(script.happened)
        with ledger.write():
            began = time.monotonic()
            for _ in range(20):
                assert book.flush(0.0) == []
                book.progress([], {1: Usual(mean=[0.1] * 7, learned_s=60.0)})
                with pytest.raises(LedgerError):
                    book.settle(script.happened[0])
            assert time.monotonic() - began < 1.0
        book.again()
        assert [one.serial for one in book.flush(0.0)] == [1]


def test_what_was_acknowledged_stays_so_when_it_opens_again_while_the_store_is_away(ledger: Ledger) -> None:
    rule, settings = RULE.model_copy(update={"escalate_after_s": 5}), told(hook="json://127.0.0.1:1/")
    before, book = Script(rule), Book(ledger, NotificationsConfig(), "alerts.test.1")
    before.numbered = False
    before.play(2, face(SAD, PENDING))
    live = before.happened[0].live
    book.keep(before.happened)
    book.flush(before.now)
    book.settle(acknowledge(live, before.now, "Kim"))
    book.progress([live], {})

    after, book = Script(rule), Book(None, settings, "alerts.test.2")
    after.numbered, after.now = False, before.now + 10
    assert after.play(10, face(SAD, PENDING)) == ["opened", "escalated"]
    book.keep(after.happened)
    assert book.flush(after.now) == []
    kept, _ = left_open(ledger, [rule], {}, ())
    book.opened_before(after.desk.restore(kept, [], after.now))
    book.ledger = ledger
    assert book.flush(after.now) == []
    assert after.play(30, face(SAD, PENDING)) == []
    assert after.happened[0].live.counted_s == pytest.approx(live.counted_s + 40, abs=1)
    assert after.play(3, face({"happy": 0.9}, PENDING)) == ["closed"]
    book.keep(after.happened[-1:])
    assert [(one.episode, one.event, one.since) for one in book.flush(after.now)] == [(1, "closed", live.began_at)]
    [episode] = alert_store.episodes(ledger)
    assert (episode.state, episode.acknowledged_by, episode.opened_at) == ("closed", "Kim", live.opened_at)
    assert alert_store.notifications(ledger) == []  # nobody was called again
    assert [step.event for step in alert_store.steps_since(ledger, 0)] == ["opened", "acknowledged", "closed"]


def test_of_cameras_that_are_configured_no_more_nothing_stays_open(ledger: Ledger) -> None:
    rule = Rule(name="offline", about="offline", min_duration_s=30)
    script, book = Script(rule), Book(ledger, NotificationsConfig(), "alerts.test.1")
    script.numbered = False
    script.play(2, face(SAD))
    assert script.wait(40) == ["opened"]
    book.keep(script.happened)
    book.flush(script.now)
    for cameras, counts in ((("ward",), (1, 0)), (("door",), (0, 1))):
        kept, stray = left_open(ledger, [rule], {}, cameras)
        assert (len(kept), len(stray)) == counts


def test_what_is_left_open_of_somebody_without_consent_is_for_the_desk_whatever_is_configured(ledger: Ledger) -> None:
    with Store(ledger.place) as store:
        person = people.add(store, "Ada", [])
    script = Script(RULE, people={person.id: Known(name="Ada", role="patient")})
    script.numbered = False
    script.play(2, face(SAD, ADA.model_copy(update={"person": person.id})))
    book = Book(ledger, NotificationsConfig(), "alerts.test.1")
    book.keep(script.happened)
    book.flush(script.now)
    for withheld, counts in ((False, (0, 1)), (True, (1, 0))):
        kept, stray = left_open(ledger, [], {person.id: Known(name="Ada", role="patient", withheld=withheld)}, ())
        assert (len(kept), len(stray)) == counts


def test_episodes_of_people_who_were_merged_while_nothing_ran_go_on_as_one(ledger: Ledger, place: Place) -> None:
    with Store(place) as store:
        both = [people.add(store, name, []) for name in ("Ada", "Bea")]
        book = Book(ledger, NotificationsConfig(), "alerts.test.1")
        for person in both:
            known = Known(name=person.name, role="patient")
            script = Script(RULE, people={person.id: known})
            script.numbered = False
            script.play(2, face(SAD, ADA.model_copy(update={"person": person.id, "name": person.name})))
            book.keep(script.happened)
            book.flush(script.now)
        people.merge(store, "Bea", "Ada")
    after = Script(RULE, people={both[0].id: Known(name="Ada", role="patient")})
    kept, _ = left_open(ledger, [RULE], after.desk.register.people, ())
    book = Book(ledger, NotificationsConfig(), "alerts.test.2")
    book.opened_before(after.desk.restore(kept, [], after.now))
    assert after.events() == ["closed"]
    book.keep(after.happened)
    book.flush(after.now)
    first, second = sorted(alert_store.episodes(ledger), key=lambda one: one.id)
    assert first.open
    assert (second.state, second.closed_why) == ("closed", f"the same as episode {first.id}")
    assert (second.name, second.text) == ("Ada", f"Ada: the same as episode {first.id}, after 0:00")
    # The one that goes on is closed as ever.
    assert after.wait(RULE.pause_s + 1) == ["closed"]
    assert after.desk.open == {}


def test_somebody_forgotten_does_not_come_back_by_what_waited(ledger: Ledger) -> None:
    script = unnumbered()
    script.play(2, face(SAD))  # Ada, who is not in this store (any more)
    book = Book(ledger, NotificationsConfig(), "alerts.test.1")
    book.keep(script.happened)
    [published] = book.flush(0.0)
    assert (published.person, published.name, published.text) == (None, None, "")
    assert alert_store.episodes(ledger) == []
