"""What pages do when somebody clicks, with NiceGUI's own client instead of a browser: no sockets, a real store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nicegui import core, ui
from nicegui.testing import User, UserInteraction, user_simulation
from sqlalchemy import insert
from starlette.types import ASGIApp, Receive, Scope, Send

from common import alert_store, forgetting, history_store, people
from common.control import Argument
from common.ledger import Ledger
from common.messages import Alert, Identity
from common.page import access, alerts, health, history, live, users
from common.page import people as people_page
from common.page import site as sites
from common.page.desk import Desk, DeskError
from common.page.feed import Feed
from common.page.guard import Guard
from common.page.site import Site
from common.rundir import RunDir
from common.schema import UNKNOWN, UNKNOWN_CROP
from common.settings import Config
from common.store import Store
from tests.common.alerts.scripted import SAD, face, result
from tests.common.test_status import stats
from tests.people import reference

KIM = 1  # the number of the user who looks at the pages


class Asked(Desk):
    """A desk that notes what stages are asked for, and answers as it is told."""

    def __init__(self, config: Config) -> None:
        super().__init__(config, "test")
        self.asked: list[tuple[str, str, dict[str, Argument]]] = []
        self.refusal: str | None = None
        self.told: dict[str, Any] = {}  # with a refusal
        self.answer: dict[str, Any] = {}
        self.photographs: dict[str, bytes] = {}
        self.enrolments: list[tuple[str, ...]] = []  # who, role, by whom, how
        self.refusals: list[dict[str, Any]] = []  # of the next enrolments

    async def ask(self, stage: str, do: str, *, timeout_s: float = 5.0, **args: Argument) -> dict[str, Any]:
        self.asked.append((stage, do, args))
        if self.refusal is not None:
            raise DeskError(self.refusal, self.told)
        return self.answer

    async def child(self, module: str, *arguments: str) -> Any:
        self.photographs = {file.name: file.read_bytes() for file in Path(arguments[1]).iterdir()}
        self.enrolments.append(arguments[2:])
        done = {"pictures": len(self.photographs), "left_out": [], "refused": None, "other": None}
        return done | (self.refusals.pop(0) if self.refusals else {})


@pytest.fixture
def desk(config: Config) -> Iterator[Asked]:
    with Store(config.storage.place) as store:
        people.add(store, "Ada", [reference(1)])
        access.add_user(store, "Kim", "admin")
        access.add_user(store, "Lee", "admin")
    made = Asked(config)
    yield made
    made.close()


def visit(config: Config, desk: Asked, role: access.Role, play: Callable[[User, Site], Awaitable[None]]) -> None:
    """Open the pages as a user of this role, Kim, and do something with them."""
    with Store(config.storage.place) as store:
        access.set_role(store, KIM, role)
        [kim] = [user for user in access.users(store) if user.id == KIM]
        key = access.digest(access.begin(store, kim))

    class Gate:
        def __init__(self, app: ASGIApp) -> None:
            self._app = app

        async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
            scope["mien"] = access.Session(id=key, user=kim, began_at=0.0, seen_at=0.0)
            await self._app(scope, receive, send)

    async def run() -> None:
        site = Site(config, desk, Feed(config.cameras))
        async with user_simulation(root=lambda: ui.label("root")) as user:
            core.app.add_middleware(Gate)
            guard = Guard(core.app, config, desk)
            for page in (alerts, health, history, live, users):
                page.register(site, guard)
            people_page.register(core.app, site, guard)
            await play(user, site)

    asyncio.run(run())


def episode(config: Config) -> int:
    """Write an open episode of the person 1 down."""
    now = time.time()
    values = {
        "rule": "distress", "about": "expression", "camera": "cam0", "person_id": 1, "label": "sad",
        "began_at": now - 45, "opened_at": now - 35, "assessed_s": 45.0, "unassessed_s": 0.0, "text": "",
        "memory": "{}",
    }  # fmt: skip
    with Ledger(config.storage.place) as ledger, ledger.write() as connection:
        return alert_store.save(connection, None, values)


def step(number: int) -> Alert:
    """Return the news that something has happened to an episode."""
    return Alert(
        sender="alerts.test.1", camera="cam0", episode=number, event="judged", rule="distress", about="expression",
        person=1, name="Ada", number=None, track=None, label="sad", since=0.0, text="", by=None, until=None,
        judgement=None, why=None,
    )  # fmt: skip


async def await_episodes(site: Site, there: Callable[[], object] | None = None) -> None:
    following = asyncio.create_task(site.follow_alerts())
    deadline = time.monotonic() + 10
    while not (site.episodes if there is None else there()):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    following.cancel()


def test_an_alert_is_acknowledged_and_judged_in_the_users_name(config: Config, desk: Asked) -> None:
    number = episode(config)

    async def play(user: User, site: Site) -> None:
        await await_episodes(site)
        await user.open("/alerts")
        await user.should_see(marker=f"episode-{number}")
        user.find(marker="acknowledge").click()
        user.find(marker="false_alarm").click()
        await user.should_see("Open alerts")
        for _ in range(200):
            if len(desk.asked) == 2:
                break
            await asyncio.sleep(0.01)
        assert ("alerts", "acknowledge", {"episode": number, "by": "Kim"}) in desk.asked
        assert ("alerts", "judge", {"episode": number, "by": "Kim", "judgement": "false alarm"}) in desk.asked

    visit(config, desk, "operator", play)


def test_an_open_alert_says_more_as_time_goes_on_and_a_menu_on_it_stays_open(config: Config, desk: Asked) -> None:
    number = episode(config)

    async def play(user: User, site: Site) -> None:
        await await_episodes(site)
        await user.open("/alerts")
        [card] = user.find(marker=f"episode-{number}").elements
        with Ledger(config.storage.place) as ledger, ledger.write() as connection:
            alert_store.save(connection, number, {"assessed_s": 50.0, "unassessed_s": 20.0, "label": "angry"})
        site.take(step(number))
        following = asyncio.create_task(site.follow_alerts())
        await user.should_see("has looked angry for", retries=30)
        await user.should_see(", 0:20 of it not assessed", retries=30)
        following.cancel()
        assert user.find(marker=f"episode-{number}").elements == {card}

    visit(config, desk, "operator", play)


def unwritten(**fields: Any) -> Alert:
    """Return the news of an alert about the person 1 that could not be written down."""
    return step(0).model_copy(update={"event": "opened", "text": "please check", "since": time.time() - 40} | fields)


def test_an_alert_that_cannot_be_written_down_is_shown_and_counted_until_it_is(
    config: Config, desk: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sites, "ALERTS_EVERY_S", 0.05)
    monkeypatch.setattr(sites, "OPEN_EVERY_S", 0.05)

    async def play(user: User, site: Site) -> None:
        following = asyncio.create_task(site.follow_alerts())
        alert = unwritten()
        site.take(alert)
        site.take(unwritten(rule="away", about="offline", person=None, name=None, label=None))
        await user.open("/alerts")
        await user.should_see("Ada has looked sad for")
        await user.should_see("can be acknowledged as soon as Mien can write it down")
        await user.should_see("Camera cam0 offline for", retries=30)
        await user.should_not_see(marker="acknowledge")
        assert (site.telling()["alerts"], site.opened) == (2, 2)

        number = episode(config)  # written down: told once more, with its number
        site.take(alert.model_copy(update={"episode": number}))
        await user.should_see(marker="acknowledge", retries=30)
        assert (len(site.episodes), site.telling()["alerts"], site.opened) == (2, 2, 2)
        following.cancel()

    visit(config, desk, "operator", play)


def test_what_is_not_written_down_goes_when_it_is_over_or_erased_or_lost_with_its_stage(
    config: Config, desk: Asked
) -> None:
    nobody: dict[str, Any] = {"person": None, "name": None, "text": "", "why": "erased"}
    later = {"person": None, "name": None, "track": 7}
    for end in (
        unwritten(event="closed"),
        unwritten(event="closed", **nobody),
        unwritten(sender="alerts.test.2", person=2, name="Ben"),
        stats("alerts.test.2", "alerts"),
    ):
        site = Site(config, desk, Feed(config.cameras))
        since = {"since": 1000.0}
        site.take(unwritten(**since, **later))
        site.take(unwritten(**since, track=7, event="escalated"))  # by now it is known who it is
        [one] = site.episodes
        assert (one.name, one.state, site.opened) == ("Ada", "escalated", 2)
        site.take(end.model_copy(update=since) if isinstance(end, Alert) else end)
        assert [one.name for one in site.episodes] in ([], ["Ben"]), end
        assert site.telling()["alerts"] == len(site.episodes)
    site.take(unwritten(**nobody))  # of somebody who was forgotten before it was written: nothing to see
    assert site.episodes == []


def test_an_alert_that_goes_on_under_the_number_it_had_before_is_there_once(config: Config, desk: Asked) -> None:
    site = Site(config, desk, Feed(config.cameras))
    site.take(unwritten())
    site.take(unwritten(rule="another"))
    number = episode(config)  # the stage could open the store at last, and found it there: that is no news
    asyncio.run(await_episodes(site, lambda: any(one.id for one in site.episodes)))
    assert [(one.id, one.rule) for one in site.episodes] == [(number, "distress"), (0, "another")]


def test_earlier_alerts_follow_what_is_done_about_them_and_about_people(
    config: Config, desk: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sites, "PEOPLE_EVERY_S", 0.05)
    number = episode(config)
    with Ledger(config.storage.place) as ledger, ledger.write() as connection:
        alert_store.save(connection, number, {"closed_at": time.time()})

    async def play(user: User, site: Site) -> None:
        site.feed.join()  # as every open page does
        following = asyncio.create_task(site.follow_people())
        await user.open("/alerts")
        await user.should_see("Ada looked sad for")
        with Ledger(config.storage.place) as ledger, ledger.write() as connection:
            alert_store.save(connection, number, {"judgement": "false alarm"})
        site.take(step(number))
        await user.should_see("was a false alarm", retries=30)
        with Store(config.storage.place) as store:
            people.change(store, "Ada", name="Ada Lovelace")
        await user.should_see("Ada Lovelace looked sad for", retries=50)
        [who] = user.find(marker="who").elements
        assert isinstance(who, ui.select) and who.options == {0: "Everybody", 1: "Ada Lovelace"}
        with Store(config.storage.place) as store:
            people.change(store, "#1", consent="refused")
        await user.should_not_see(marker=f"episode-{number}", retries=50)
        assert who.options == {0: "Everybody"}
        following.cancel()

    visit(config, desk, "viewer", play)


def test_earlier_alerts_are_all_there_page_by_page(config: Config, desk: Asked) -> None:
    for _ in range(60):
        number = episode(config)
        with Ledger(config.storage.place) as ledger, ledger.write() as connection:
            alert_store.save(connection, number, {"closed_at": time.time()})

    async def play(user: User, site: Site) -> None:
        await user.open("/alerts")
        await user.should_see(marker=f"episode-{number}")
        await user.should_not_see(marker="episode-1")
        user.find(marker="more").click()
        await user.should_see(marker="episode-1", retries=30)
        await user.should_not_see(marker="more")

    visit(config, desk, "viewer", play)


def test_a_test_notification_says_who_got_it(config: Config, desk: Asked) -> None:
    desk.answer = {"sent": "nurses, desk"}

    async def play(user: User, site: Site) -> None:
        await user.open("/alerts")
        user.find(marker="test").click()
        await user.should_see("A test notification was sent to nurses, desk.")

    visit(config, desk, "admin", play)


def test_who_is_here_is_said_while_they_are(config: Config, desk: Asked) -> None:
    async def play(user: User, site: Site) -> None:
        ada = Identity(status="known", person=1, name="Ada", distance=0.3, confidence=0.9)
        site.recent.note(result(time.time(), face(SAD, ada)), time.monotonic() + 3600)
        await user.open("/people")
        await user.should_see("here now")
        site.recent.forget()
        await user.should_not_see("here now", retries=50)
        site.recent.note(result(time.time(), face(SAD, ada)), time.monotonic() + 3600)
        await user.should_see("here now", retries=50)

    visit(config, desk, "viewer", play)


def test_a_form_stays_while_the_gallery_below_it_is_drawn_anew(config: Config, desk: Asked) -> None:
    async def play(user: User, site: Site) -> None:
        await user.open("/people")
        user.find(marker="edit").click()
        await user.should_see(marker="edit-name")
        user.find(marker="edit-name").clear().type("Ada Lovelace")
        with Store(config.storage.place) as store:
            people.add(store, "Grace", [reference(2)])
        await user.should_see("Grace", retries=50)
        await user.should_see(marker="edit-name")
        user.find(marker="save").click()
        await user.should_see("Ada Lovelace", retries=50)

    visit(config, desk, "operator", play)


def test_a_form_changes_nothing_but_what_was_changed_in_it(config: Config, desk: Asked) -> None:
    async def play(user: User, site: Site) -> None:
        await user.open("/people")
        user.find(marker="edit").click()
        await user.should_see(marker="edit-name")
        with Store(config.storage.place) as store:  # meanwhile she takes her consent back, and tells why
            people.change(store, "Ada", consent="refused", notes="does not want to be filmed")
        user.find(marker="edit-name").clear().type("Ada Lovelace")
        user.find(marker="save").click()
        for _ in range(500):
            [ada] = await desk.store(None, people.everybody)
            if ada.name != "Ada":
                break
            await asyncio.sleep(0.01)

    visit(config, desk, "operator", play)
    with Store(config.storage.place) as store:
        [ada] = people.everybody(store)
    assert (ada.name, ada.consent, ada.notes) == ("Ada Lovelace", "refused", "does not want to be filmed")


def test_the_end_of_consent_changes_only_when_another_day_is_chosen(tmp_path: Path) -> None:
    with Store(tmp_path / "data") as store:
        ada = people.add(store, "Ada", [reference(1)], consent_until=time.time() + 86400)  # at some hour of the day
        day = time.strftime("%Y-%m-%d", time.localtime(time.time() + 86399))
        assert people_page.changed(ada, day, name="Ada", role="patient", notes="", consent="given") == {}
        assert people_page.changed(ada, "", role="staff") == {"role": "staff", "forever": True}
        [(key, end)] = people_page.changed(ada, "2030-01-31").items()
        assert (key, time.strftime("%Y-%m-%d %H:%M", time.localtime(end))) == ("consent_until", "2030-02-01 00:00")


def test_while_somebody_is_forgotten_everything_else_goes_on(
    config: Config, desk: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "NOTICED_S", 60.0)  # the run ends before

    async def play(user: User, site: Site) -> None:
        await user.open("/people")
        user.find(marker="forget-person").click()
        user.find(marker="forget-name").type("Ada")
        with RunDir(config), Store(config.storage.place) as other:  # a Mien that runs, and writes
            user.find(marker="forget").click()
            await user.should_see("Forgetting Ada. This takes some seconds…", retries=50)
            [button] = user.find(marker="forget").elements
            deadline = time.monotonic() + 20
            while people.everybody(other):
                assert time.monotonic() < deadline
                await asyncio.sleep(0.01)
            assert await asyncio.wait_for(desk.store(None, people.everybody), 10) == []
            assert await asyncio.wait_for(desk.ledger(alert_store.episodes), 10) == []
            await user.should_not_see("Ada is forgotten.")
            assert "loading" in button.props
        await user.should_see("Ada is forgotten.", retries=100)
        assert "loading" not in button.props
        assert ("conductor", "people", {}) in desk.asked

    visit(config, desk, "admin", play)
    with Store(config.storage.place) as store:
        assert people.audit_log(store)[-1].who.startswith("Kim on the page")


def test_what_a_stage_refuses_is_said_to_the_user(config: Config, desk: Asked) -> None:
    episode(config)
    desk.refusal = "alerts did not answer: is it running? (python launch.py status)"

    async def play(user: User, site: Site) -> None:
        await await_episodes(site)
        await user.open("/alerts")
        user.find(marker="acknowledge").click()
        await user.should_see("alerts did not answer")

    visit(config, desk, "operator", play)


def test_a_note_about_no_one_in_particular_is_found_and_deleted(config: Config, desk: Asked) -> None:
    with Ledger(config.storage.place) as ledger, ledger.write() as connection:
        connection.execute("INSERT INTO note (at, text, who, created_at) VALUES (1000, 'the lamp flickers', 'Kim', 0)")

    async def play(user: User, site: Site) -> None:
        await user.open("/history")
        await user.should_see("About no one in particular")
        await user.should_see("the lamp flickers")
        user.find(marker="delete-note").click()
        await user.should_see("Note: Delete?")
        user.find("Cancel").click()
        user.find(ui.dialog).trigger("hide")  # as a browser does when it is closed
        await user.should_not_see("Note: Delete?", retries=30)
        assert len(await desk.ledger(history_store.loose_notes)) == 1
        user.find(marker="delete-note").click()
        user.find(marker="really").click()
        await user.should_not_see("the lamp flickers", retries=30)

    visit(config, desk, "operator", play)
    with Store(config.storage.place) as store, Ledger(config.storage.place) as ledger:
        assert history_store.loose_notes(ledger) == []
        assert people.audit_log(store)[-1].about == "deleted, about no one in particular"


def test_a_viewer_sees_alerts_and_can_do_nothing_about_them(config: Config, desk: Asked) -> None:
    number = episode(config)

    async def play(user: User, site: Site) -> None:
        await await_episodes(site)
        await user.open("/alerts")
        await user.should_see(marker=f"episode-{number}")
        for marker in ("acknowledge", "useful", "false_alarm"):
            await user.should_not_see(marker=marker)
        await user.open("/users")
        await user.should_see("Your role does not allow this.")

    visit(config, desk, "viewer", play)


def test_who_is_given_a_lower_role_can_do_nothing_more_on_the_pages_that_are_open(config: Config, desk: Asked) -> None:
    episode(config)

    def demote() -> None:
        with Store(config.storage.place) as store:
            access.set_role(store, KIM, "viewer")

    async def judge(user: User, site: Site) -> None:
        await await_episodes(site)
        await user.open("/alerts")
        await user.should_see(marker="acknowledge")
        demote()
        user.find(marker="acknowledge").click()
        await user.should_see("log in again", retries=30)
        assert desk.asked == []

    async def rename(user: User, site: Site) -> None:
        await user.open("/people")
        user.find(marker="edit").click()
        user.find(marker="edit-name").clear().type("Eve")
        demote()
        user.find(marker="save").click()
        await user.should_see("log in again", retries=30)
        assert [one.name for one in await desk.store(None, people.everybody)] == ["Ada"]

    async def manage(user: User, site: Site) -> None:
        await user.open("/users")
        user.find(marker="add").click()
        user.find(marker="user-name").type("Eve")
        demote()
        user.find(marker="save").click()
        await user.should_see("log in again", retries=30)
        assert [one.name for one in await desk.store(None, access.users)] == ["Kim", "Lee"]

    visit(config, desk, "operator", judge)
    visit(config, desk, "operator", rename)
    visit(config, desk, "admin", manage)


def test_a_role_that_is_changed_on_the_page_counts_at_once(config: Config, desk: Asked) -> None:
    async def play(user: User, site: Site) -> None:
        with Store(config.storage.place) as store:
            [lee] = [one for one in access.users(store) if one.name == "Lee"]
            key = access.digest(access.begin(store, lee))
        await user.open("/users")
        [role] = user.find(marker="role-Lee").elements
        assert isinstance(role, ui.select)
        role.set_value("viewer")
        ended = {"longest_s": 1e9, "idle_s": 1e9}
        for _ in range(500):
            if await desk.store(None, access.session, key, **ended) is None:
                break
            await asyncio.sleep(0.01)
        assert await desk.store(None, access.session, key, **ended) is None

    visit(config, desk, "admin", play)


def test_nobody_takes_their_own_password_from_themselves(config: Config, desk: Asked) -> None:
    async def play(user: User, site: Site) -> None:
        await user.open("/users")
        await user.should_see(marker="user-Kim")
        await user.should_see("Change password")
        await user.should_not_see(marker="reset-Kim")
        user.find(marker="reset-Lee").click()
        await user.should_see(marker="secret", retries=30)

    visit(config, desk, "admin", play)


def test_users_and_tokens_are_removed_when_that_is_confirmed(config: Config, desk: Asked) -> None:
    with Store(config.storage.place) as store:
        access.add_token(store, "monitor")

    async def play(user: User, site: Site) -> None:
        await user.open("/users")
        for marker, title, there in (
            ("remove-Lee", "Lee: Remove?", access.users), ("remove-token-monitor", "monitor: Remove?", access.tokens),
        ):  # fmt: skip
            before = len(await desk.store(None, there))
            user.find(marker=marker).click()
            await user.should_see(title)
            user.find("Cancel").click()
            user.find(ui.dialog).trigger("hide")  # as a browser does when it is closed
            await user.should_not_see(title, retries=30)
            assert len(await desk.store(None, there)) == before
            user.find(marker=marker).click()
            user.find(marker="really").click()
            user.find(ui.dialog).trigger("hide")
            await user.should_not_see(marker=marker, retries=30)
            assert len(await desk.store(None, there)) == before - 1

    visit(config, desk, "admin", play)


def test_nothing_is_saved_while_a_photograph_is_on_its_way(config: Config, desk: Asked) -> None:
    async def play(user: User, site: Site) -> None:
        await user.open("/people")
        user.find(marker="add-person").click()
        user.find(marker="upload-name").type("Grace")
        [save] = user.find(marker="save").elements
        assert isinstance(save, ui.button) and not save.enabled  # nobody has agreed
        user.find(marker="consent").click()
        assert save.enabled
        user.find(marker="upload").trigger("start")
        assert not save.enabled
        user.find(marker="consent").click()
        user.find(marker="consent").click()
        user.find(marker="save").click()
        assert not save.enabled
        await upload(user, "one.jpg")
        user.find(marker="upload").trigger("finish")
        await user.should_see(marker="save")
        assert save.enabled and desk.enrolments == []
        user.find(marker="save").click()
        await user.should_see("Grace is enrolled: 1 picture.", retries=30)

    visit(config, desk, "operator", play)


def test_more_pictures_that_show_somebody_else_are_added_when_that_is_confirmed(config: Config, desk: Asked) -> None:
    stranger = {"left_out": [["one.jpg", None, "it shows somebody else than Ada's pictures"]]}
    desk.refusals = [{"pictures": 0, "refused": "somebody_else"} | stranger]

    async def play(user: User, site: Site) -> None:
        await user.open("/people")
        user.find(marker="add-pictures").click()
        await upload(user, "one.jpg")
        user.find(marker="save").click()
        await user.should_see("The same person?", retries=30)
        await user.should_see("Left out: one.jpg – it shows somebody else than Ada's pictures")
        user.find(marker="all-the-same").click()
        await user.should_see("Ada is enrolled: 1 picture.", retries=30)
        assert [how for *_, how in desk.enrolments] == ["more", "more-alike"]

    visit(config, desk, "operator", play)


def test_photographs_of_one_name_are_all_taken_and_let_go_with_the_form(config: Config, desk: Asked) -> None:
    async def play(user: User, site: Site) -> None:
        await user.open("/people")
        user.find(marker="add-person").click()
        user.find(marker="upload-name").type("Grace")
        [form], [upload] = user.find(ui.dialog).elements, user.find(marker="upload").elements
        assert isinstance(upload, ui.upload)
        for data in (b"one", b"another"):  # a telephone calls both the same
            await upload.handle_uploads([ui.upload.SmallFileUpload("image.jpg", "image/jpeg", data)])
        user.find(marker="upload").trigger("rejected", ["large.jpg", "notes.txt"])
        await user.should_see("Not taken: large.jpg, notes.txt.")
        await user.should_see("40 MB")
        user.find(marker="consent").click()
        user.find(marker="save").click()
        await user.should_see("Grace is enrolled: 2 pictures.", retries=30)
        assert sorted(desk.photographs.values()) == [b"another", b"one"]
        user.find(ui.dialog).trigger("hide")
        await user.should_not_see(marker="upload")
        assert form.is_deleted

    visit(config, desk, "operator", play)


async def upload(user: User, *files: str) -> None:
    [form] = user.find(marker="upload").elements
    assert isinstance(form, ui.upload)
    await form.handle_uploads([ui.upload.SmallFileUpload(file, "image/jpeg", b"a picture") for file in files])


def test_more_pictures_are_of_whom_they_were_chosen_for_whatever_they_are_called_by_now(
    config: Config, desk: Asked
) -> None:
    async def play(user: User, site: Site) -> None:
        await user.open("/people")
        user.find(marker="add-pictures").click()
        await user.should_see(marker="upload")
        with Store(config.storage.place) as store:
            people.change(store, "Ada", name="Ada Lovelace")
        await upload(user, "one.jpg")
        user.find(marker="save").click()
        await user.should_see("is enrolled: 1 picture.", retries=30)
        assert desk.enrolments == [("#1", "patient", "Kim", "more")]
        desk.refusals = [{"pictures": 0, "refused": "not_enrolled"}]
        user.find(marker="save").click()
        await user.should_see("This person is not enrolled any more.", retries=30)

    visit(config, desk, "operator", play)


def test_what_can_be_done_about_a_refused_enrolment_is_said_and_offered(config: Config, desk: Asked) -> None:
    faces = ["group.jpg", "several_faces", "two faces were found"]
    small = ["far.jpg", None, "the face is too small"]
    desk.refusals = [
        {"pictures": 0, "refused": "name_taken", "left_out": [faces, small]},
        {"pictures": 0, "refused": "alike", "other": "Ada"},
    ]

    async def play(user: User, site: Site) -> None:
        await user.open("/people")
        user.find(marker="add-person").click()
        user.find(marker="upload-name").type("Grace")
        await upload(user, "one.jpg")
        user.find(marker="consent").click()
        user.find(marker="save").click()
        await user.should_see("Grace is enrolled already: use “Add pictures”", retries=30)
        await user.should_see("Left out: group.jpg – several faces were found: crop the picture")
        await user.should_see("Left out: far.jpg – the face is too small")
        user.find(marker="save").click()
        await user.should_see("Grace looks like somebody who is enrolled already: Ada.", retries=30)
        user.find(marker="all-the-same").click()
        await user.should_see("Grace is enrolled: 1 picture.", retries=30)
        assert [how for _, _, _, how in desk.enrolments] == ["new", "new", "alike"]

    visit(config, desk, "operator", play)


def test_so_it_is_for_a_face_in_the_live_picture(config: Config, desk: Asked) -> None:
    async def asked_for(count: int) -> dict[str, Argument]:
        for _ in range(500):
            if len(desk.asked) == count:
                break
            await asyncio.sleep(0.01)
        stage, do, args = desk.asked[-1]
        assert (len(desk.asked), stage, do, args["name"]) == (count, "conductor", "enrol", "Zoe")
        return args

    async def play(user: User, site: Site) -> None:
        await user.open("/")
        assert user.client is not None
        act = UserInteraction(user, {user.client.layout}, None)
        act.trigger("mienAct", {"do": "name", "camera": "cam0", "track": 7})
        await user.should_see(marker="new-name")
        user.find(marker="new-name").type("Zoe")
        user.find(marker="consent").click()
        desk.refusal, desk.told = "somebody called 'Zoe' is enrolled already", {"there": "name"}
        user.find(marker="enrol").click()
        await user.should_see("Zoe is enrolled already: use “Add pictures”", retries=30)
        desk.refusal, desk.told = "this face looks like somebody", {"there": "look", "other": None}
        user.find(marker="enrol").click()
        await user.should_see("who is enrolled already: somebody who has not agreed.", retries=30)
        assert (await asked_for(2))["alike"] is False
        desk.refusal, desk.answer = None, {"person": "#2 Zoe, 5 pictures"}
        user.find(marker="all-the-same").click()
        await user.should_see("Zoe is known now", retries=30)
        assert (await asked_for(3))["alike"] is True

    visit(config, desk, "operator", play)


def test_unknown_people_are_all_there_some_at_a_time(config: Config, desk: Asked) -> None:
    with Store(config.storage.place) as store:
        for number in range(1, 71):
            stranger(store, number)

    async def play(user: User, site: Site) -> None:
        await user.open("/people")
        assert len(user.find(marker="strangers").elements) == 1
        shown = [number for number in range(1, 71) if _is_shown(user, f"unknown-{number}")]
        assert len(shown) == 60
        user.find(marker="more-strangers").click()
        await user.should_see(marker=f"unknown-{({*range(1, 71)} - {*shown}).pop()}", retries=50)
        await user.should_not_see(marker="more-strangers")

    visit(config, desk, "operator", play)


def _is_shown(user: User, marker: str) -> bool:
    try:
        return bool(user.find(marker=marker).elements)
    except AssertionError:
        return False


@pytest.mark.parametrize("blur", ["none", "no_consent", "unknown"])
def test_the_faces_of_unknown_people_are_shown_to_those_who_may_see_them(
    config: Config, desk: Asked, blur: str
) -> None:
    with Store(config.storage.place) as store:
        stranger(store, 7)
    privacy = config.privacy.model_copy(update={"blur": blur})
    hiding = config.model_copy(update={"privacy": privacy})

    def look(shown: bool) -> Callable[[User, Site], Awaitable[None]]:
        async def play(user: User, site: Site) -> None:
            await user.open("/people")
            await user.should_see(marker="unknown-7")
            assert (await user.http_client.get("/unknown/7/face")).status_code == (200 if shown else 404)
            pictures = [one.content for one in user.find(kind=ui.html).elements]
            assert any("/unknown/7/face" in picture for picture in pictures) is shown

        return play

    visit(hiding, desk, "viewer", look(blur != "unknown"))
    visit(hiding, desk, "operator", look(True))


def test_who_has_refused_consent_is_shown_to_nobody_but_operators(config: Config, desk: Asked) -> None:
    with Store(config.storage.place) as store:
        people.change(store, "Ada", consent="refused")

    async def viewer(user: User, site: Site) -> None:
        await user.open("/people")
        await user.should_see("Nobody is enrolled yet")
        await user.should_not_see("Ada")
        assert (await user.http_client.get("/people/1/face")).status_code == 404

    async def operator(user: User, site: Site) -> None:
        await user.open("/people")
        await user.should_see("Ada")
        await user.should_see("Consent: refused")

    visit(config, desk, "viewer", viewer)
    visit(config, desk, "operator", operator)


def test_health_says_that_nothing_was_heard_rather_than_that_all_is_well(config: Config, desk: Asked) -> None:
    async def play(user: User, site: Site) -> None:
        await user.open("/health")
        await user.should_see("Nothing has been heard of the other processes yet.")

    visit(config, desk, "viewer", play)


def test_since_when_a_stage_is_silent_is_known_also_when_nobody_looks(
    config: Config, desk: Asked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sites, "TICK_S", 0.01)
    site = Site(config, desk, Feed(config.cameras))
    site.board.note(stats("history.ward.7", "history"), time.monotonic() - 10)

    async def run() -> float:
        ticking = asyncio.create_task(site.tick())
        began = time.monotonic()
        while not site.unwell_since:
            assert time.monotonic() < began + 10
            await asyncio.sleep(0.01)
        ticking.cancel()
        return site.unwell_since["history.ward.7"]

    since = asyncio.run(run())
    assert site.unwell() == []  # not for long enough
    monkeypatch.setattr(sites.time, "monotonic", lambda: since + 6)
    assert site.unwell() == ["history.ward.7: silent for 16 s"]


def test_what_waits_for_the_store_is_told_once_it_has_waited_for_ten_seconds(
    config: Config, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, began = Site(config, desk, Feed(config.cameras)), time.monotonic()
    for after_s, said in ((0, []), (5, []), (9, []), (11, ["alerts.ward.7: the store cannot be written"])):
        monkeypatch.setattr(sites.time, "monotonic", lambda now=began + after_s: now)
        waits = {"waiting": 2.0, "waiting_s": float(after_s)}
        site.take(stats("alerts.ward.7", "alerts").model_copy(update={"detail": waits}))
        assert [text[: len(said[0])] if said else text for text in site.unwell()] == said


def stranger(store: Store, number: int) -> int:
    """Write an unknown person with one crop down; return their number."""
    seen = reference(number)
    with store.write() as connection:
        connection.execute(
            insert(UNKNOWN).values(
                id=number, embedding=store.seal_embedding(seen.embedding), weight=1.0, model=people.MODEL,
                first_at=1.0, last_at=2.0, looks=1,
            )
        )  # fmt: skip
        connection.execute(
            insert(UNKNOWN_CROP).values(
                unknown_id=number, embedding=store.seal_embedding(seen.embedding),
                crop=store.seal_crop(seen.crop or b""), quality=0.9, at=2.0,
            )
        )  # fmt: skip
    return number


def test_an_unknown_person_becomes_a_new_one_or_part_of_one_who_is_known(tmp_path: Path) -> None:
    with Store(tmp_path / "data") as store:
        ada = people.add(store, "Ada", [reference(1)])
        first, second = stranger(store, 7), stranger(store, 8)
        new = people_page.name_stranger(store, first, 0, "Grace", "visitor")
        assert (new.name, new.role, new.references) == ("Grace", "visitor", 1)
        kept = people_page.name_stranger(store, second, ada.id, "", "patient")
        assert (kept.id, kept.references) == (ada.id, 2)
        assert [person.name for person in people.everybody(store)] == ["Ada", "Grace"]
