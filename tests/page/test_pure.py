"""What the page thinks, without sockets: who gets which picture, the last minutes, the ribbon, and its words."""

from __future__ import annotations

import asyncio
import json
import re
import string
import time
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from common.alert_store import Episode
from common.expressions import EXPRESSIONS
from common.history_rows import REASONS
from common.history_store import Ribbon
from common.page import feed as feeds
from common.page import ribbon as ribbons
from common.page import server, told
from common.page.feed import IN_FLIGHT, Feed, packed
from common.page.forms import local
from common.page.recent import Recent
from common.page.words import TEXTS, Words, chosen
from common.watching import Seen
from tests.conftest import ROOT
from tests.showing import face, five, preview, result

EN, ZH = Words("en"), Words("zh")


# --- the feed ---


def test_a_preview_reaches_the_browser_with_its_jpeg_untouched_and_its_own_result() -> None:
    jpeg = bytes(range(256)) * 40
    data = packed(Seen(preview(five()), memoryview(jpeg)))
    length = int.from_bytes(data[:4], "little")
    head = json.loads(data[4 : 4 + length])
    assert data[4 + length :] == jpeg
    assert (head["camera"], head["width"], head["height"], head["analysed"]) == ("cam0", 1000, 667, True)
    names = [one["name"] for one in head["faces"]]
    assert names == ["Renée Müller", None, "张伟", None, None]
    assert head["faces"][0]["label"] == "happy" and len(head["faces"][0]["shares"]) == 7
    assert head["faces"][3]["reason"] == "turned" and head["faces"][3]["shares"] is None


def test_each_browser_gets_the_newest_picture_and_at_most_two_that_it_has_not_drawn() -> None:
    async def play() -> list[bytes | str]:
        feed = Feed(["cam0"])
        watcher = feed.join()
        feed.watch(watcher, ["cam0", "nonsense"])
        got: list[bytes | str] = []
        for number in range(10):
            feed.publish("cam0", bytes([number]))
            while True:
                try:
                    got.append(await asyncio.wait_for(watcher.next(), 0.01))
                except TimeoutError:
                    break
        assert got == [b"\0", b"\1"] and watcher.replaced == 7
        watcher.answered("cam0")
        got.append(await watcher.next())
        return got

    assert asyncio.run(play()) == [b"\0", b"\1", b"\x09"]
    assert IN_FLIGHT == 2


def test_a_stalled_browser_is_not_encoded_for_until_it_answers_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play() -> None:
        feed = Feed(["cam0", "cam1"])
        stalled, lively = feed.join(), feed.join()
        feed.watch(stalled, ["cam0"])
        feed.watch(lively, ["cam1"])
        assert feed.wanted == {"cam0", "cam1"}
        for _ in range(2):
            feed.publish("cam0", b"picture")
            await stalled.next()
        feed.count()
        assert feed.wanted == {"cam0", "cam1"}  # not yet
        monkeypatch.setattr(feeds, "STALLED_S", 0.0)
        feed.count()
        assert feed.wanted == {"cam1"}
        stalled.answered("cam0")
        feed.count()
        assert feed.wanted == {"cam0", "cam1"}
        feed.leave(stalled)
        feed.leave(lively)
        assert feed.wanted == frozenset()

    asyncio.run(play())


def test_a_browser_that_watches_nothing_gets_no_pictures_but_all_news() -> None:
    async def play() -> None:
        feed = Feed(["cam0"])
        watcher = feed.join()
        feed.publish("cam0", b"picture")
        feed.tell({"alerts": 1})
        feed.tell({"alerts": 2})
        assert json.loads(str(await watcher.next())) == {"alerts": 2}
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(watcher.next(), 0.01)

    asyncio.run(play())


# --- the last minutes ---


def test_the_last_ten_minutes_are_kept_a_moment_a_second() -> None:
    recent = Recent()
    for tick in range(0, 7000, 2):  # 700 seconds, five results a second
        at = 1000.0 + tick / 10
        label = "sad" if at < 1400 else "happy"
        recent.note(result(640, 360, (face(7, (1, 2, 30, 40), label, name="Ada"),), captured_at=at), at)
    moments = recent.moments(track=7)
    assert 590 <= len(moments) <= 610 and moments[-1][0] - moments[0][0] <= 600
    assert (moments[0][1], moments[-1][1], moments[-1][2]) == ("sad", "happy", 0.7)
    assert [trail.face.track for trail in recent.here(1700.0)] == [7]
    assert list(recent.here(1710.0)) == []


def test_who_is_here_does_not_hang_on_the_cameras_clock() -> None:
    recent = Recent()
    somebody = (face(1, (1, 2, 30, 40), "sad", name="Ada"),)
    recent.note(result(640, 360, somebody, captured_at=5000.0), 100.0)
    recent.note(result(640, 360, somebody, captured_at=1400.0), 101.0)  # set back by an hour
    recent.note(result(640, 360, somebody, captured_at=1401.0), 102.0)
    assert [moment[0] for moment in recent.moments(track=1)] == [1400.0, 1401.0]
    assert [trail.face.track for trail in recent.here(103.0)] == [1]
    assert list(recent.here(110.0)) == []


def test_a_camera_whose_clock_goes_ahead_takes_nothing_from_the_others() -> None:
    recent = Recent()
    here = result(640, 360, (face(1, (1, 2, 30, 40), "sad", name="Ada"),), captured_at=1000.0)
    ahead = result(640, 360, (face(2, (1, 2, 30, 40), "happy", name="Ben"),), captured_at=5000.0)
    recent.note(here, 100.0)
    recent.note(ahead.model_copy(update={"camera": "cam1"}), 100.1)
    assert [moment[0] for moment in recent.moments(track=1)] == [1000.0]
    recent.note(ahead.model_copy(update={"camera": "cam1", "captured_at": 5700.0}), 800.0)
    assert recent.moments(track=1) == []  # ten minutes, all the same


def test_the_minutes_of_a_person_go_on_under_another_track_and_others_stay_apart() -> None:
    recent = Recent()
    recent.note(result(640, 360, (face(1, (1, 2, 30, 40), "sad", name="Ada"),), captured_at=10.0), 10.0)
    recent.note(result(640, 360, (face(2, (1, 2, 30, 40), "happy", name="Ada"),), captured_at=20.0), 20.0)
    recent.note(result(640, 360, (face(3, (1, 2, 30, 40), reason="dark"),), captured_at=30.0), 30.0)
    assert [moment[1] for moment in recent.moments(track=2, person=1)] == ["sad", "happy"]
    assert recent.moments(track=3) == [[30.0, None, 0.0]]
    recent.forget()
    assert recent.moments(track=2, person=1) == []


# --- the ribbon ---


def ribbon(kinds: str, *, step_s: int = 60, begin: float = 0.0) -> Ribbon:
    """Return a ribbon of one step a letter: s(ad), h(appy), ? not assessed, . absent, o(ffline)."""
    count = len(kinds)
    label = {"s": EXPRESSIONS.index("sad"), "h": EXPRESSIONS.index("happy")}
    assessed = np.array([step_s if kind in label else 0.0 for kind in kinds])
    return Ribbon(
        begin=begin,
        step_s=step_s,
        watched_s=np.array([0.0 if kind == "o" else step_s for kind in kinds]),
        present_s=np.array([0.0 if kind in ".o" else step_s for kind in kinds]),
        assessed_s=assessed,
        dominant=np.array([label.get(kind, -1) for kind in kinds], np.int8),
        probabilities=np.full((count, 7), np.nan),
        reasons_s=np.zeros((count, len(REASONS))),
    )


def test_alike_steps_are_one_run_and_what_was_not_assessed_is_never_an_expression() -> None:
    found = [(run.begin, run.end, run.kind) for run in ribbons.runs(ribbon("oo..ssh?"))]
    assert found == [
        (0, 120, "offline"), (120, 240, "absent"), (240, 360, "sad"), (360, 420, "happy"), (420, 480, "unassessed"),
    ]  # fmt: skip


def test_the_future_of_a_day_is_not_drawn() -> None:
    assert [run.end for run in ribbons.runs(ribbon("sshh"), until=150.0)] == [120, 150]


def test_a_drawing_says_its_times_and_words_and_marks_and_lets_no_markup_through() -> None:
    marks = [ribbons.Mark(60, 120, "<b>Ada</b> & more", "episode")]
    svg = ribbons.drawing(EN, ribbon("ss?h"), 240.0, marks)
    assert "#0072B2" in svg and "sad" in svg and "cannot assess" in svg
    assert "&lt;b&gt;Ada&lt;/b&gt; &amp; more" in svg and "<b>" not in svg
    assert ribbons.spoken(EN, {"happy": 0.33, "sad": 0.67, "angry": 0.0}) == "sad 67%, happy 33%"
    assert "<title>" not in ribbons.drawing(EN, ribbon("ss?h"), 240.0, static=True)


def test_steps_grow_with_the_period_so_that_a_day_is_drawn_at_once() -> None:
    assert [ribbons.step_for(0, length) for length in (600, 86400, 7 * 86400)] == [1, 60, 600]
    day = ribbon("sh?." * 360)
    began = time.perf_counter()
    svg = ribbons.drawing(EN, day, 86400.0)
    assert time.perf_counter() - began < 0.3 and len(svg) < 400_000


def test_the_axis_has_round_times_inside_the_period() -> None:
    begin, end = told.day_bounds(date(2027, 3, 1))
    words = [word for _, word in ribbons.axis(begin, end)]
    assert words[0] == "00:00" and "12:00" in words and 5 <= len(words) <= 10
    assert all(0 <= at <= 1 for at, _ in ribbons.axis(begin + 1000, begin + 3000))


# --- words ---


def test_every_text_has_both_languages_with_the_same_fields() -> None:
    def fields(text: str) -> set[str]:
        return {name for _, name, _, _ in string.Formatter().parse(text) if name}

    for key, (english, chinese) in TEXTS.items():
        assert english and chinese, key
        assert fields(english) == fields(chinese), key


def test_every_text_that_is_asked_for_is_there_and_none_is_left_over() -> None:
    page = ROOT / "common" / "page"
    files = [path for path in (*page.glob("*.py"), *page.glob("static/*.js")) if path.name != "words.py"]
    code = "".join(path.read_text(encoding="utf-8") for path in files)
    asked = set(re.findall(r"""\bt\(\s*["'](\w+)["']""", code))
    assert asked <= set(TEXTS), asked - set(TEXTS)
    named = set(re.findall(r"""["'](\w+)["']""", code)) | set(REASONS)
    assert set(TEXTS) <= named | {
        "turn_front",
        "turn_left",
        "turn_right",
        "turn_none",
        "disgusted",
        "fearful",
        "surprised",
        "neutral",
    }, sorted(set(TEXTS) - named)


def test_the_language_is_what_was_chosen_else_what_the_browser_prefers_else_english() -> None:
    assert chosen({"mien_language": "zh"}, "de").language == "zh"
    assert chosen({}, "zh-CN,zh;q=0.9").language == "zh"
    assert chosen({"mien_language": "en"}, "zh-CN").language == "en"
    assert chosen({"mien_language": "xx"}, "de-DE").language == "en"


def episode(**fields: object) -> Episode:
    known = dict.fromkeys(Episode.__dataclass_fields__)
    known |= {
        "id": 1,
        "rule": "distress",
        "about": "expression",
        "camera": "cam0",
        "began_at": 100.0,
        "opened_at": 130.0,
    }
    known |= {"assessed_s": 1.0, "unassessed_s": 0.0, "text": ""}
    return Episode(**(known | fields))  # type: ignore[arg-type]


def test_an_episode_asks_to_check_and_claims_nothing() -> None:
    closed = episode(name="Ada", label="sad", closed_at=145.0)
    assert told.episode(EN, closed) == "Ada looked sad for 0:45"
    running = episode(unknown=12, label="angry")
    assert told.episode(EN, running, time_mark="0:30") == "unknown 12 has looked angry for 0:30 – please check"
    assert told.episode(ZH, running, time_mark="0:30") == "未知 12 已持续愤怒 0:30 – 请查看"
    turned = episode(name="Ada", label="sad", unassessed_s=70.0)
    assert told.episode(EN, turned, time_mark="2:00") == (
        "Ada has looked sad for 2:00, 1:10 of it not assessed – please check"
    )
    away = episode(about="offline", camera="door")
    assert told.episode(EN, away, time_mark="2:00") == "Camera door offline for 2:00 – please check"
    assert "face not seen for 3:00" in told.episode(EN, episode(about="unseen", name="Ada"), time_mark="3:00")
    # The rule has counted ten minutes; before them, or since, the camera was paused.
    unseen = episode(about="unseen", name="Ada", unassessed_s=600.0)
    assert "face not seen for 10:00" in told.episode(EN, unseen, time_mark="1:30:00")
    assert "face not seen for 10:00" in told.episode(EN, replace(unseen, closed_at=9000.0))


def test_moments_and_durations_as_people_say_them() -> None:
    today = date(2027, 3, 2)
    begin, end = told.day_bounds(today)
    assert end - begin == 86400
    assert told.moment(EN, begin + 3600, today=today) == "today 01:00"
    assert told.moment(EN, begin - 3600, today=today) == "yesterday 23:00"
    assert told.moment(EN, begin - 90000, today=today).startswith("2027-02-28 ")
    assert [told.span(s) for s in (12, 720, 7500)] == ["12 s", "12 min", "2 h 05 min"]


def test_after_the_log_in_only_pages_of_mien_are_gone_to() -> None:
    assert local("/people?x=1") == "/people?x=1"
    for target in ("//evil", "/\\evil", "http://evil", "", "/login", "/\nx"):
        assert local(target) == "/"


def test_what_the_page_is_drawn_with_comes_with_the_package() -> None:
    static = Path(ROOT / "common" / "page" / "static")
    for file in static.iterdir():
        text = file.read_text(encoding="utf-8")
        assert not re.search(r"https?://(?!www\.w3\.org)", text), file  # nothing from elsewhere


def test_work_in_the_background_that_fails_is_said_and_begins_anew(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(server, "_AGAIN_AFTER_S", 0.0)
    begun: list[int] = []

    async def follow_something() -> None:
        begun.append(len(begun))
        if len(begun) < 3:
            raise OSError("the disk is gone")

    asyncio.run(asyncio.wait_for(server.lasting(follow_something), 10))
    assert len(begun) == 3
    assert caplog.text.count("follow_something failed; it begins anew") == 2
    assert "the disk is gone" in caplog.text
