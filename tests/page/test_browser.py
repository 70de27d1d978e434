"""The page in a real browser, against a whole running Mien: what a nurse does with it, from log-in to forgetting."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright
from playwright.sync_api import Error as PlaywrightError

from common import people
from common.control import ask
from common.media import sample
from common.settings import Config
from common.sources import parse_source
from common.store import Store
from tests.conftest import ROOT, wait_until
from tests.page.serving import PASSWORD, add_user
from tests.running import Running

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or "chromium"
SLOW_MS = 30_000.0  # a busy machine: what is waited for is there at once on others
expect.set_options(timeout=SLOW_MS)

# A rule that a 20 s clip can meet: sad or crying for two seconds.
RULES = {"rules": [{"name": "distress", "min_duration_s": 2, "cooldown_s": 0, "snapshot": False}]}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # The tests may run as root, where Chromium's own sandbox does not start.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Ward:
    """A running Mien with its page, and a browser in front of it; what goes wrong in the browser fails the test."""

    def __init__(self, mien: Running, chromium: Browser, **options: Any) -> None:
        self.mien = mien
        self.address = f"http://127.0.0.1:{mien.config.dashboard.port}"
        self._context = chromium.new_context(
            base_url=self.address, viewport={"width": 1366, "height": 768}, accept_downloads=True, **options
        )
        self._context.set_default_timeout(SLOW_MS)
        self.page: Page = self._context.new_page()
        self.problems: list[str] = []
        self.page.on("pageerror", lambda error: self.problems.append(str(error)))
        self.page.on("console", lambda line: self.problems.append(line.text) if line.type == "error" else None)

    def log_in(self, name: str = "the admin") -> None:
        wait_until(lambda: "the page is at" in self.mien.said(), 60, "the page is served")
        self.page.goto("/")
        self.page.get_by_label("User name").fill(name)
        self.page.get_by_label("Password").fill(PASSWORD)
        self.page.get_by_role("button", name="Log in").click()
        self.await_picture()

    def await_picture(self) -> None:
        """Return when a picture is on show."""
        expect(self.page.locator(".caption").first).to_have_text(re.compile(r"\d+ ms"), timeout=2 * SLOW_MS)

    def canvas(self) -> str:
        """Return the picture on show, as data."""
        return str(self.page.evaluate("document.querySelector('.view canvas').toDataURL('image/jpeg', 0.5)"))

    def close(self) -> None:
        self._context.close()


@pytest.fixture
def ward(config: Config, chromium: Browser) -> Iterator[Ward]:
    page = {"enabled": True, "port": config.dashboard.port}
    with Running(config, "demo", dashboard=page, alerts=RULES) as mien:
        add_user(mien.config, "the admin", "admin")
        add_user(mien.config, "the viewer", "viewer")
        mien.fresh_results(3)
        ward = Ward(mien, chromium)
        yield ward
        ward.close()
    assert ward.problems == []


@pytest.mark.timeout(400)
def test_a_shift_with_the_page(ward: Ward) -> None:
    page = ward.page
    ward.log_in()

    # The picture moves, and says how fast.
    first = ward.canvas()
    wait_until(lambda: ward.canvas() != first, 20, "the picture changes")
    expect(page.locator(".caption")).to_have_text(re.compile(r"cam0 · \d+/s · \d+ ms"))

    # A click on the face selects it: name, seven bars, the last minutes.
    face = page.locator("#mien-in-view button").first
    expect(face).to_have_text(re.compile("unknown"), timeout=SLOW_MS)
    canvas = page.locator(".view canvas").bounding_box()
    assert canvas is not None
    wait_until(lambda: _selected(page, canvas), 20, "a click selects the face")
    expect(page.locator(".panel .bar-row")).to_have_count(7)
    expect(page.locator(".panel-name")).to_have_text(re.compile("unknown"))

    # She is named from the live picture.
    page.locator(".panel button[data-do=name]").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("Wanda <b>Müller</b>")  # a name is a name, whatever it looks like
    expect(dialog.get_by_role("button", name="Save")).to_be_disabled()
    dialog.get_by_role("checkbox").click()
    dialog.get_by_role("button", name="Save").click()
    expect(page.locator(".panel-name")).to_have_text("Wanda <b>Müller</b>", timeout=60_000)
    with Store(ward.mien.config.storage.place) as store:
        [person] = people.everybody(store)
    assert (person.name, person.consent) == ("Wanda <b>Müller</b>", "given")

    # An alert comes while she is sad or crying, with a badge on every page, and is acknowledged.
    card = page.locator(".alert-open", has_text="Wanda <b>Müller</b> has looked")
    expect(card.first).to_be_visible(timeout=60_000)
    expect(card.first).to_contain_text("please check")
    page.goto("/people")
    expect(page.locator(".badge")).to_have_text(re.compile(r"[1-9]"))
    expect(page.locator(f'[data-person="{person.id}"]')).to_contain_text("Wanda <b>Müller</b>")
    page.goto("/alerts")
    page.get_by_role("button", name="Acknowledge").first.click()
    expect(page.locator(".alert", has_text="acknowledged by the admin").first).to_be_visible()
    page.locator(".alert", has_text="acknowledged by the admin").first.get_by_role("button", name="Useful").click()
    expect(page.locator(".alert", has_text="was useful").first).to_be_visible()

    # It is in her history, which can be noted in and taken away.
    page.goto(f"/history?person={person.id}")
    expect(page.locator("svg.ribbon")).to_be_visible()
    expect(page.get_by_text(re.compile(r"Assessed \d+ % of the time in view"))).to_be_visible()
    told = page.get_by_text(re.compile(r"Wanda <b>Müller</b> (has )?looked"))
    expect(told.locator("visible=true").first).to_be_visible()
    page.get_by_role("button", name="Add a note").click()
    page.get_by_role("dialog").locator("textarea").fill("talked with her")
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    expect(page.locator(".note", has_text="talked with her")).to_be_visible()
    for kind, begin in (("csv", b"time,at,"), ("parquet", b"PAR1"), ("json", b'{"time"')):
        with page.expect_download() as download:
            page.locator(f"[data-export={kind}]").click()
        assert Path(download.value.path()).read_bytes().startswith(begin)
    page.goto("/report")
    expect(page.get_by_role("heading", name="Wanda <b>Müller</b>")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="PDF").click()
    assert Path(download.value.path()).read_bytes().startswith(b"%PDF")

    # She is forgotten, once her name is typed, and her history with her.
    page.goto("/people")
    page.locator(f'[data-person="{person.id}"]').get_by_role("button", name="Menu").click()
    page.get_by_text("Forget", exact=True).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("somebody")
    dialog.get_by_role("button", name="Forget").click()
    expect(page.get_by_text("The name does not match.")).to_be_visible()
    dialog.get_by_label("Name").fill("Wanda <b>Müller</b>")
    dialog.get_by_role("button", name="Forget").click()
    expect(page.locator(f'[data-person="{person.id}"]')).to_have_count(0)
    with Store(ward.mien.config.storage.place) as store:
        assert people.everybody(store) == []
        log = [f"{line.who} {line.did} {line.about}" for line in people.audit_log(store)]
    assert any("viewed history of #1" in line and "the admin on the page" in line for line in log)
    assert any("forgot #1" in line for line in log)
    assert not any("Wanda" in line for line in log)


def _selected(page: Page, canvas: dict[str, float]) -> bool:
    # The box moves with the face: the middle of the picture is inside it for most of the clip.
    page.mouse.click(canvas["x"] + canvas["width"] * 0.66, canvas["y"] + canvas["height"] * 0.5)
    return page.locator(".panel .bar-row").count() == 7


@pytest.mark.timeout(240)
def test_who_may_only_look_and_a_source_that_goes_away(ward: Ward, tmp_path: Path) -> None:
    page = ward.page
    ward.log_in("the viewer")
    page.locator("#mien-in-view button").first.click()
    expect(page.locator(".panel-name")).to_be_visible()
    for missing in ("Name", "Follow", "Note", "Snapshot", "Change source", "Pause", "Resume"):
        expect(page.get_by_role("button", name=missing, exact=True)).to_have_count(0)
    for do in ("snapshot", "pause"):  # who tries all the same is told
        page.evaluate(f"emitEvent('mien-act', {{do: '{do}', camera: 'cam0'}})")
        expect(page.get_by_text("Your role does not allow this.")).to_be_visible()
        expect(page.get_by_text("Your role does not allow this.")).to_have_count(0)
    page.goto("/people")
    expect(page.get_by_role("button", name="Add a person")).to_have_count(0)

    # The picture stops: the page says so at once, in words, over the picture; and goes on by itself.
    page.goto("/")
    ward.await_picture()
    [conductor] = ward.mien.processes("conductor")
    conductor.suspend()
    try:
        expect(page.locator(".trouble")).to_contain_text(re.compile("stalled|offline", re.I), timeout=15_000)
    finally:
        conductor.resume()
    expect(page.locator(".trouble")).to_be_hidden(timeout=60_000)

    # Somebody pauses the camera: that is no fault, and is called by its name.
    assert ask(ward.mien.config, "capture", "pause", timeout_s=30, camera="cam0").ok
    expect(page.locator(".trouble")).to_contain_text("paused", timeout=15_000)
    assert ask(ward.mien.config, "capture", "resume", timeout_s=30, camera="cam0").ok
    expect(page.locator(".trouble")).to_be_hidden(timeout=60_000)

    # The stage is killed: pages say that the connection is lost, and are back without a new log-in.
    [stage] = ward.mien.processes("dashboard")
    stage.kill()
    expect(page.locator("#mien-lost")).to_be_visible(timeout=10_000)
    expect(page.locator("#mien-lost")).to_be_hidden(timeout=60_000)

    def shown() -> str | None:
        try:
            return ward.canvas()
        except PlaywrightError:  # the page is being loaded anew
            return None

    first = wait_until(shown, 30, "a picture")
    wait_until(lambda: shown() not in (None, first), 30, "the picture moves again")
    ward.problems = [one for one in ward.problems if "ERR_CONNECTION" not in one and "WebSocket" not in one]


@pytest.mark.timeout(240)
def test_source_and_snapshot_from_the_page_and_photographs_over_it(ward: Ward) -> None:
    page = ward.page
    ward.log_in()
    page.get_by_role("button", name="Snapshot").click()
    expect(page.get_by_text(re.compile(r"Saved .*\.jpg"))).to_be_visible()
    page.get_by_role("button", name="Change source").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_text("Screen", exact=True).click()
    region = ",".join(map(str, parse_source("screen").region or ()))
    expect(dialog.get_by_label(f"Region X,Y,W,H in pixels (empty: {region})")).to_be_visible()
    dialog.get_by_text("File", exact=True).click()
    dialog.locator("input[type=text]").last.fill("/nowhere/at/all.mp4")
    dialog.get_by_role("button", name="Save").click()
    expect(page.locator(".q-notification", has_text="/nowhere/at/all.mp4")).to_be_visible()
    dialog.locator("input[type=text]").last.fill(str(sample("man.mp4")))
    dialog.get_by_role("button", name="Save").click()
    expect(page.get_by_text(re.compile(r"cam0 shows .*man\.mp4"))).to_be_visible()

    page.goto("/people")
    page.get_by_role("button", name="Add a person").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("Joe")
    no_picture = ROOT / "README.md"
    dialog.get_by_role("checkbox").click()
    save = dialog.get_by_role("button", name="Save")
    expect(save).to_be_enabled()
    on_their_way: list[Route] = []
    page.route("**/upload/*", lambda route: on_their_way.append(route))
    dialog.locator("input[type=file]").set_input_files(
        [str(sample("biden.jpg")), str(sample("obama.jpg")), str(no_picture)]
    )
    expect(page.get_by_text("Not taken: README.md.")).to_be_visible()
    expect(save).to_be_disabled()  # the photographs are still on their way
    for _ in range(1000):
        if len(on_their_way) == 2:
            break
        page.wait_for_timeout(20)
    for route in on_their_way:
        route.continue_()
    uploaded = dialog.locator(".q-uploader__file--uploaded")
    expect(uploaded).to_have_count(2)
    uploaded.filter(has_text="obama.jpg").get_by_role("button").click()  # it was not him
    expect(uploaded).to_have_count(1)
    save.click()
    expect(page.get_by_text("Joe is enrolled: 1 picture.")).to_be_visible(timeout=60_000)
    expect(page.locator(".q-uploader")).to_have_count(0)
    expect(page.locator("[data-person]", has_text="Joe")).to_be_visible()
    natural = page.locator("[data-person] img").evaluate("image => image.decode().then(() => image.naturalWidth)")
    assert natural == 150

    # An unknown person is dragged onto him: it was him all along.
    page.locator("[data-unknown]").first.drag_to(page.locator("[data-person]", has_text="Joe"))
    dialog = page.get_by_role("dialog")
    expect(dialog.get_by_label("This is…")).to_have_value("Joe")
    dialog.get_by_role("checkbox").click()
    dialog.get_by_role("button", name="Save").click()
    expect(page.locator("[data-person]", has_text="Joe")).to_contain_text(re.compile(r"\d pictures"))
    with Store(ward.mien.config.storage.place) as store:
        assert [person.name for person in people.everybody(store)] == ["Joe"]


@pytest.mark.timeout(240)
def test_what_buttons_do_is_about_what_is_on_show(config: Config, chromium: Browser) -> None:
    served = {"enabled": True, "port": config.dashboard.port}
    with Running(config, "demo", dashboard=served, cameras={"cam1": {"source": "demo"}}) as mien:
        add_user(mien.config, "the admin", "admin")
        ward = Ward(mien, chromium)
        page = ward.page
        ward.log_in()

        # A note is about somebody: there is none of a face that nobody may know.
        face = page.locator("#mien-in-view button").first
        expect(face).to_have_text(re.compile(r"unknown \d+"), timeout=SLOW_MS)
        face.click()
        noting = page.locator(".panel [data-do=note]")
        expect(noting).to_be_visible()
        [number] = re.findall(r"\d+", page.locator(".panel-name").inner_text())
        with Store(mien.config.storage.place) as store:
            wait_until(
                lambda: any(one.number == int(number) and one.crops for one in people.unknown_people(store)),
                30, "a crop of her is in the store",
            )  # fmt: skip
            people.from_unknown(store, int(number), "Wanda", consent="refused")
        expect(noting).to_be_hidden()
        page.evaluate("emitEvent('mien-act', {do: 'note', camera: 'cam0'})")  # who tries all the same is told
        expect(page.get_by_text("a note needs a person or a number")).to_be_visible()

        # Who is selected on a camera is so no more when another one is on show, and that one is what is photographed.
        page.locator("#mien-cameras [data-camera=cam1]").click()
        expect(page.locator(".panel .bar-row")).to_have_count(0)
        ward.await_picture()
        page.get_by_role("button", name="Snapshot").click()
        expect(page.get_by_text(re.compile(r"Saved cam1-.*\.jpg"))).to_be_visible()
        ward.close()
        assert ward.problems == []


@pytest.mark.timeout(240)
def test_a_camera_is_paused_and_resumed_and_with_all_on_show_it_is_asked_which(
    config: Config, chromium: Browser
) -> None:
    served = {"enabled": True, "port": config.dashboard.port}
    with Running(config, "demo", dashboard=served, cameras={"cam1": {"source": "demo"}}) as mien:
        add_user(mien.config, "Kim", "operator")
        ward = Ward(mien, chromium)
        page = ward.page
        ward.log_in("Kim")
        pause, resume = (page.get_by_role("button", name=name, exact=True) for name in ("Pause", "Resume"))
        expect(resume).to_be_hidden()

        # The one on show, after a word on what that means.
        pause.click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("Pause cam0?")
        expect(dialog).to_contain_text("no alert comes from it")
        dialog.get_by_role("button", name="Pause").click()
        expect(page.locator(".trouble")).to_contain_text("paused")
        mien.until(lambda: mien.states["cam0"].paused and not mien.states["cam1"].paused, "only that one is paused")

        # All on show, and nobody selected: each has its own button.
        page.locator("#mien-cameras [data-camera='*']").click()
        pause.click()
        dialog.get_by_role("button", name="Resume: cam0").click()
        expect(page.get_by_text("cam0 goes on")).to_be_visible()
        mien.until(lambda: not mien.states["cam0"].paused, "it goes on")
        pause.click()
        dialog.get_by_role("button", name="Pause: cam1").click()
        mien.until(lambda: mien.states["cam1"].paused, "the other one is paused")

        # A snapshot of all says what was saved, and of which camera there was nothing.
        page.get_by_role("button", name="Snapshot").click()
        expect(page.get_by_text(re.compile(r"Saved cam0-[^,]*\.jpg$"))).to_be_visible()
        expect(page.get_by_text(re.compile("no picture from cam1"))).to_be_visible()

        # It was somebody else: whoever looks can let it go on.
        page.locator("#mien-cameras [data-camera=cam1]").click()
        expect(pause).to_be_hidden()
        resume.click()
        expect(page.locator(".trouble")).to_be_hidden(timeout=60_000)
        expect(pause).to_be_visible()

        # A snapshot is of all that is on show, and the source of none of them without being asked.
        page.locator("#mien-cameras [data-camera='*']").click()
        expect(page.locator("#mien-in-view button")).not_to_have_count(0)
        page.get_by_role("button", name="Snapshot").click()
        expect(page.get_by_text(re.compile(r"Saved cam0-.*\.jpg, cam1-.*\.jpg"))).to_be_visible()
        page.get_by_role("button", name="Change source").click()
        expect(dialog).to_contain_text("Which camera is meant?")
        dialog.get_by_role("button", name="cam1", exact=True).click()
        expect(page.get_by_role("dialog").last).to_contain_text("What should cam1 show?")
        with Store(mien.config.storage.place) as store:
            log = [(line.did, line.about) for line in people.audit_log(store) if "Kim" in line.who]
        for line in (("pause", "cam0"), ("resume", "cam0"), ("pause", "cam1"), ("resume", "cam1")):
            assert line in log
        assert ("snapshot", "cam0") in log and ("snapshot", "cam0, cam1") in log
        ward.close()
        assert ward.problems == []


SCREENS = (((1366, 768), "dark"), ((820, 1180), "light"), ((390, 844), "dark"))  # the ward's, a tablet, a telephone


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_it_fits_every_screen_and_speaks_chinese(config: Config, chromium: Browser) -> None:
    page = {"enabled": True, "port": config.dashboard.port}
    with Running(config, "demo", dashboard=page) as mien:
        add_user(mien.config, "the admin", "admin")
        for size, theme in SCREENS:
            ward = Ward(mien, chromium, color_scheme=theme)
            ward.page.set_viewport_size({"width": size[0], "height": size[1]})
            ward.log_in()
            for path in ("/", "/people", "/alerts", "/history", "/health", "/users", "/report"):
                ward.page.goto(path)
                if path != "/report":
                    expect(ward.page.get_by_role("navigation")).to_be_visible(timeout=SLOW_MS)
                wide = ward.page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
                assert wide <= 1, (size, path, wide)
            ward.page.goto("/")
            ward.page.context.add_cookies([{"name": "mien_language", "value": "zh", "url": ward.address}])
            ward.page.reload()
            expect(ward.page.get_by_role("link", name="人员")).to_be_visible(timeout=SLOW_MS)
            expect(ward.page.locator("html")).to_have_attribute("lang", "zh")
            if size[0] < 760:
                ward.page.get_by_role("tab", name="人员").click()
                expect(ward.page.locator("#mien-panel")).to_be_visible()
                expect(ward.page.locator(".views")).to_be_hidden()
            ward.close()
            assert ward.problems == []


@pytest.mark.timeout(240)
def test_with_the_keyboard_alone(ward: Ward) -> None:
    page = ward.page
    ward.log_in()
    page.locator("#mien-in-view button").first.wait_for()

    def tab_to(selector: str) -> None:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        pytest.fail(f"{selector} is not reached with the tabulator")

    tab_to("#mien-in-view button")
    page.keyboard.press("Enter")
    expect(page.locator(".panel .bar-row")).to_have_count(7)
    expect(page.locator(".panel [data-do=note]")).to_be_visible()
    tab_to(".panel [data-do=note]")
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog").locator("textarea")).to_be_focused()
    page.keyboard.type("written without a mouse")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    page.keyboard.press("Escape")
    expect(page.locator(".panel .bar-row")).to_have_count(0)
