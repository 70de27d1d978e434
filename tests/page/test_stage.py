"""The stage between sockets and browsers: pictures untouched, encoded for nobody, small, and reports and resets."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from websockets.asyncio.client import connect

from common import alert_store, forgetting, history_rows, history_store, people
from common.history_rows import Tally
from common.history_store import Subject
from common.ledger import Ledger
from common.messages import Sample, pack
from common.news import NewsWriter
from common.page import access
from common.settings import Config
from common.store import Store
from common.transport import opened
from tests.conftest import ROOT, stage_environment, wait_until
from tests.page.serving import Served, add_user
from tests.people import reference
from tests.showing import face, five, preview, result

JPEG = b"\xff\xd8 not looked at by the server \xff\xd9" * 50


class Previews:
    """Binds the channel ``previews`` as the preview stage does, and notes who asks."""

    def __init__(self, config: Config) -> None:
        self._socket = opened("previews", config.endpoint("previews"), "xpub", bind=True)
        self.asked: set[bytes] = set()

    def listen(self) -> set[bytes]:
        while (parts := self._socket.receive()) is not None:
            word = bytes(parts[0])
            (self.asked.add if word[:1] == b"\x01" else self.asked.discard)(word[1:])
        return self.asked

    def send(self, seq: int) -> None:
        self._socket.send([b"preview.cam0", pack(preview(five(seq=seq))), JPEG])

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def previews(config: Config) -> Iterator[Previews]:
    bound = Previews(config)
    yield bound
    bound.close()


@pytest.fixture
def served(config: Config, tmp_path: Path) -> Iterator[Served]:
    add_user(config, "the admin", "admin")
    with Served(config, tmp_path / "page.log") as page:
        yield page.await_ready()


def feed_of(served: Served) -> Any:
    browser = served.logged_in("the admin")
    cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    address = served.address.replace("http", "ws") + "/feed"
    return connect(address, origin=served.address, additional_headers={"cookie": cookie}, proxy=None)  # type: ignore[arg-type]


async def until(predicate: Any, timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not predicate():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def picture(feed: Any) -> bytes:
    while True:
        message = await asyncio.wait_for(feed.recv(), 10)
        if isinstance(message, bytes):
            return message


def test_pictures_are_asked_for_only_while_somebody_watches_and_go_through_untouched(
    served: Served, previews: Previews
) -> None:
    async def play() -> None:
        async with feed_of(served) as feed:
            await feed.recv()
            await asyncio.sleep(0)  # connected, and watching nothing
            assert previews.listen() == set()
            await feed.send(json.dumps({"watch": ["cam0"]}))
            await until(lambda: previews.listen() == {b"preview.cam0"})
            previews.send(1)
            data = await picture(feed)
            length = int.from_bytes(data[:4], "little")
            assert json.loads(data[4 : 4 + length])["seq"] == 1
            assert data[4 + length :] == JPEG
            for nonsense in ("no json", "[]", '{"watch": 7, "drawn": []}', '{"watch": [{}, "nowhere"]}', "x" * 5000):
                await feed.send(nonsense)
            await until(lambda: previews.listen() == set())  # it watches a camera that is not there
        await until(lambda: previews.listen() == set())

    asyncio.run(play())


def test_a_browser_that_stops_answering_holds_up_nobody_and_is_no_longer_encoded_for(
    served: Served, previews: Previews
) -> None:
    async def play() -> None:
        async with feed_of(served) as lively, feed_of(served) as stalled:
            for feed in (lively, stalled):
                await feed.send(json.dumps({"watch": ["cam0"]}))
            await until(lambda: previews.listen() == {b"preview.cam0"})
            began = time.monotonic()
            for seq in range(60):
                previews.send(seq)
                data = await picture(lively)
                await lively.send(json.dumps({"drawn": "cam0"}))
            length = int.from_bytes(data[:4], "little")
            assert json.loads(data[4 : 4 + length])["seq"] == 59
            assert time.monotonic() - began < 10
            await lively.send(json.dumps({"watch": []}))
            await until(lambda: previews.listen() == set(), 15)  # only the stalled one is left: nothing is encoded
            got = [await picture(stalled), await picture(stalled)]
            assert len(got) == 2
            await stalled.send(json.dumps({"drawn": "cam0"}))
            await until(lambda: previews.listen() == {b"preview.cam0"})  # it has time again

    asyncio.run(play())


def test_it_loads_no_network_and_stays_small(served: Served) -> None:
    browser = served.logged_in("the admin")
    for path in (
        "/",
        "/people",
        "/alerts",
        "/history",
        "/health",
        "/users",
        "/report",
        "/metrics",
        "/api/openapi.json",
    ):
        assert browser.get(path).status_code == 200
    process = psutil.Process(served.process.pid)
    loaded = {Path(region.path).name for region in process.memory_maps()}
    for library in ("cv2", "torch", "openvino", "onnx", "dlib", "pyarrow"):
        assert not [name for name in loaded if library in name.lower()], library
    # Its own pages: what it shares counts the more for it, the fewer other processes there are at the moment.
    assert process.memory_full_info().uss < 115 * 2**20


def test_nobody_looking_costs_next_to_nothing(served: Served) -> None:
    process = psutil.Process(served.process.pid)
    process.cpu_percent()
    deadline = time.monotonic() + 5
    wait_until(lambda: time.monotonic() > deadline, 10, "five seconds of watching it")
    assert process.cpu_percent() < 8.0


def seen(config: Config, seconds: int) -> tuple[float, float]:
    """Write a history: person 1, sad, for so many seconds until now; return the period."""
    now = int(time.time())
    tally = Tally()
    for _ in range(10):
        tally.add([0.0, 0.0, 0.0, 0.1, 0.9, 0.0, 0.0])
    with Store(config.storage.place) as store:
        people.add(store, "张伟 Zoë Łukasz", [])
    with Ledger(config.storage.place) as ledger, ledger.write() as connection:
        connection.execute(
            "INSERT INTO history_track (track, camera, person_id, begin_at, end_at) VALUES (1, 'cam0', 1, ?, ?)",
            (now - seconds, now),
        )
        connection.executemany(
            "INSERT INTO history_second (track, second, seen) VALUES (1, ?, ?)",
            [(now - seconds + index, tally.packed()) for index in range(seconds)],
        )
    assert history_rows.REASONS
    return float(now - seconds), float(now + 1)


def test_a_report_is_a_page_and_a_pdf_in_both_languages_and_is_noted(config: Config, served: Served) -> None:
    seen(config, 600)
    browser = served.logged_in("the admin")
    page = browser.get("/report").text
    assert "张伟 Zoë Łukasz" in page and "In view 10 min · Assessed 100 % of the time in view" in page
    assert "sad 100%" in page and "not a medical device" in page
    begin = time.strftime("%Y-%m-%dT%H:%M", time.localtime(time.time() - 3600))
    end = time.strftime("%Y-%m-%dT%H:%M", time.localtime(time.time() + 60))
    for language in ("en", "zh"):
        browser.cookies.set("mien_language", language)
        pdf = browser.get(f"/report.pdf?begin={begin}&end={end}")
        assert pdf.status_code == 200, pdf.text
        assert pdf.content.startswith(b"%PDF") and b"STSong" in pdf.content
    assert "交班报告" in browser.get("/report").text
    wrong = browser.get(f"/report?begin={end}&end={begin}")
    assert wrong.status_code == 422 and "结束时间早于开始时间" in wrong.text
    lines = browser.get("/users").text
    assert "report of #1," in lines
    too_long = browser.get(f"/report?begin=2020-01-01T00:00&end={end}")
    assert too_long.status_code == 422 and "最多涵盖 7 天" in too_long.text


def test_a_note_about_no_one_in_particular_is_in_the_report_of_everybody(config: Config, served: Served) -> None:
    now = time.time()
    begin, _ = seen(config, 60)
    with Ledger(config.storage.place) as ledger, ledger.write() as connection:
        for at, text in ((now - 60, "the lamp <b>flickers</b>"), (begin - 86400, "long ago")):
            connection.execute("INSERT INTO note (at, text, who, created_at) VALUES (?, ?, 'Kim', 0)", (at, text))
    browser = served.logged_in("the admin")
    page = browser.get("/report").text
    assert "About no one in particular" in page and "the lamp &lt;b&gt;flickers&lt;/b&gt; (Kim)" in page
    assert "long ago" not in page
    assert "flickers" not in browser.get("/report", params={"who": "person 1"}).text
    period = {"begin": _moment(now - 3600), "end": _moment(now)}
    answer = browser.get("/report.pdf", params=period)
    assert answer.status_code == 200 and answer.content.startswith(b"%PDF")


def _moment(at: float) -> str:
    return datetime.fromtimestamp(at).isoformat()


def test_of_many_people_a_report_shows_those_who_were_there_and_says_who_is_missing(
    config: Config, served: Served
) -> None:
    with Store(config.storage.place) as store:
        for number in range(60):
            people.add(store, f"absent {number}", [])
        late = people.add(store, "Zoe", [])
    browser = served.logged_in("the admin")
    with Ledger(config.storage.place) as ledger:
        history_store.add_note(ledger, Subject(person=late.id), time.time() - 60, "a visitor came", "Kim")
        page = browser.get("/report").text
        assert "a visitor came" in page and "<h2>Zoe</h2>" in page and "<h2>absent" not in page
        for number in range(1, 46):
            history_store.add_note(ledger, Subject(person=number), time.time() - 60, "here, too", "Kim")
    page = browser.get("/report").text
    assert page.count("<h2>absent") == 40 and "6 more people are not shown" in page


def test_of_somebody_who_has_taken_consent_back_nothing_is_shown(config: Config, served: Served) -> None:
    begin, end = seen(config, 60)
    values = {
        "rule": "distress", "about": "expression", "camera": "cam0", "person_id": 1, "label": "sad", "began_at": begin,
        "opened_at": begin, "closed_at": end, "assessed_s": 60.0, "unassessed_s": 0.0, "text": "", "memory": "{}",
    }  # fmt: skip
    with Ledger(config.storage.place) as ledger, ledger.write() as connection:
        alert_store.save(connection, None, values)
    browser = served.logged_in("the admin")
    export = f"/export?begin={begin}&end={end}&format=csv&person=1"
    paths = ("/history?person=1", "/alerts", "/report", "/api/v1/alerts", "/api/v1/alerts?person=1", export)
    for path in paths:
        assert "Zoë" in browser.get(path).text, path
    assert "alerts of #1 by the interface for programs" in browser.get("/users").text
    changes: list[dict[str, Any]] = [{"consent": "refused"}, {"consent": "given", "consent_until": time.time() - 1}]
    for consent in changes:
        with Store(config.storage.place) as store:
            people.change(store, "#1", **consent)
        for path in paths:
            assert "Zoë" not in browser.get(path).text, (path, consent)
        assert browser.get(export).status_code == 404
        assert "Nothing is shown of this person" in browser.get("/history?person=1").text
    assert "Nothing is shown of this person" in browser.get("/history?person=99&day=9999-12-31").text
    assert browser.get("/export?begin=nan&end=nan&format=csv&person=1").status_code == 422


def test_history_is_read_by_programs_too(config: Config, served: Served) -> None:
    begin, end = seen(config, 120)
    browser = served.logged_in("the admin")
    told = browser.get(f"/api/v1/history/1?begin={begin}&end={end}").json()
    assert told["step_s"] == 1 and len(told["steps"]) == 120
    assert {step["label"] for step in told["steps"]} == {"sad"} and told["expressions_s"]["sad"] == 120
    assert told["assessed_s"] + told["unassessed_s"] + told["absent_s"] + told["offline_s"] == pytest.approx(
        told["period_s"], abs=2
    )
    assert browser.get(f"/api/v1/history/1?begin={end}&end={begin}").status_code == 422
    assert browser.get(f"/api/v1/history/1?begin=0&end={end}").status_code == 422
    assert browser.get(f"/api/v1/history/99?begin={begin}&end={end}").status_code == 404


def test_a_lost_password_is_replaced_where_the_store_is(config: Config) -> None:
    add_user(config, "Kim", "admin")
    command = [sys.executable, "-m", "common.page.reset", "kim", "--data-dir", str(config.storage.data_dir)]
    done = subprocess.run(command, env=stage_environment(), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    password = re.fullmatch(r"one-time password of Kim: (\S+)\n", done.stdout)
    assert password is not None
    with Store(config.storage.place) as store:
        user = access.check(store, "Kim", password[1])
        assert user is not None and user.one_time
    command[3] = "nobody"
    done = subprocess.run(command, env=stage_environment(), cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and "there are: Kim" in done.stderr


def test_text_can_be_read_on_its_ground() -> None:
    css = (ROOT / "common" / "page" / "static" / "page.css").read_text(encoding="utf-8")
    for block in re.findall(r"(?::root|body\.body--dark) \{([^}]*--ground[^}]*)\}", css):
        colours = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block))
        for ink in ("ink", "quiet", "accent", "bad"):
            for ground in ("ground", "card", "soft", "bad-soft"):
                if ink == "quiet" and ground in ("soft", "bad-soft"):
                    continue
                assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
        assert contrast(colours["on-accent"], colours["accent"]) >= 4.5
        assert contrast(colours["edge"], colours["card"]) >= 3


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours, as the Web Content Accessibility Guidelines define it."""

    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    bright, dark = sorted((light(one), light(other)), reverse=True)
    return (bright + 0.05) / (dark + 0.05)


def test_whom_somebody_forgets_elsewhere_the_page_does_not_remember(
    bus: subprocess.Popen[bytes], config: Config, tmp_path: Path
) -> None:
    add_user(config, "the admin", "admin")
    with Store(config.storage.place) as store:
        ada = people.add(store, "Ada", [reference(1)])
    seen = result(640, 360, (face(7, (1, 2, 30, 40), "sad", name="Ada"),), captured_at=time.time())
    writer = NewsWriter(config, "conductor.test.1")
    with Served(config, tmp_path / "page.log") as page:
        browser = page.await_ready().logged_in("the admin")

        def remembered() -> bool:
            return bool(browser.get("/live/recent", params={"track": 7, "person": ada.id}).json())

        def shown() -> bool:
            writer.publish(Sample.of(seen), "cam0")
            return remembered()

        # Past the first look at the people, from which on it is known that they have changed.
        wait_until(shown, 20, "a result arrives")
        wait_until(lambda: not remembered(), 10, "what came before that look is left out")
        wait_until(shown, 20, "a result arrives")
        with Store(config.storage.place) as store:
            forgetting.forget(store, config, "Ada")
        wait_until(lambda: not remembered(), 5, "the page forgets her, too")
    writer.close()
