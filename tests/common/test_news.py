"""What a reader of the bus takes, and what it leaves out unread."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from common import news
from common.control import Asker, NoAnswer
from common.messages import CameraState, Control, Reply, Stats, pack
from common.news import NewsReader, NewsWriter
from common.settings import Config
from common.transport import opened
from tests.conftest import wait_until


def test_of_sampled_topics_only_some_are_read_and_of_others_all(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/news"
    config = Config().model_copy(update={"endpoints": Config().endpoints.model_copy(update={"news_out": endpoint})})
    bus = opened("news_out", endpoint, "xpub", bind=True)
    reader = NewsReader(config, ("camera.", "stats."), sampled={"camera.": 30.0})
    wanted: set[bytes] = set()

    def subscribed() -> bool:
        while (parts := bus.receive(timeout_ms=10)) is not None:
            wanted.add(bytes(parts[0]))
        return len(wanted) == 2

    wait_until(subscribed, what="both subscriptions arrive")
    state = CameraState(sender="capture.test.1", camera="cam0", state="online", since=1.0)
    figures = Stats(
        sender="capture.test.1", stage="capture", in_s=1, out_s=1, dropped=0, p50_ms=1, p95_ms=1, rss_mb=1, cpu=0,
        state="running",
    )  # fmt: skip
    for _ in range(20):
        assert bus.send([b"camera.cam0", pack(state)])
        assert bus.send([b"camera.cam1", pack(state)])
        assert bus.send([b"stats.capture", pack(figures)])
    read: list[str] = []

    def all_stats() -> bool:
        read.extend(topic for topic, _ in reader.read(timeout_ms=50))
        return read.count("stats.capture") == 20

    began = time.monotonic()
    wait_until(all_stats, what="everything has been read")
    assert time.monotonic() - began < 30
    assert read.count("camera.cam0") == read.count("camera.cam1") == 1
    assert reader.bad == 0
    reader.close()
    bus.close()


def test_what_nobody_reads_is_not_even_packed_and_what_somebody_comes_to_read_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = f"ipc://{tmp_path}/news"
    config = Config().model_copy(update={"endpoints": Config().endpoints.model_copy(update={"news_in": endpoint})})
    packed: list[str] = []
    monkeypatch.setattr(news, "pack", lambda message: packed.append(message.kind) or pack(message))
    bus = opened("news_in", endpoint, "xsub", bind=True)
    writer = NewsWriter(config, "capture.test.1")
    state = CameraState(sender="capture.test.1", camera="cam0", state="online", since=1.0)
    try:
        writer.publish(state, "cam0")
        assert packed == []
        bus.send([b"\1camera.cam1"])
        bus.send([b"\1camera.cam0"])
        wait_until(lambda: writer.publish(state, "cam0") or bus.receive(timeout_ms=10), what="it is heard")
        assert packed
        bus.send([b"\0camera.cam0"])

        def silent() -> bool:
            before = len(packed)
            writer.publish(state, "cam0")
            return len(packed) == before

        wait_until(silent, what="the reader has gone")
        writer.publish(state, "cam1")
        assert wait_until(lambda: bus.receive(timeout_ms=10), what="the other topic is still heard")
    finally:
        writer.close()
        bus.close()


def test_an_answer_that_comes_while_something_else_is_asked_is_not_lost(config: Config, bus: object) -> None:
    asking, answering = NewsWriter(config, "dashboard.test.1"), NewsWriter(config, "alerts.test.1")
    asker, asked = Asker(config, asking), NewsReader(config, ("control.alerts",))
    try:
        first = asker.ask("alerts", "acknowledge", timeout_s=600, episode=1)

        def comes() -> bool:
            # Also repeats what was sent before the bus knew that somebody listens.
            assert asker.answers() == []
            return any(isinstance(message, Control) for _, message in asked.read(timeout_ms=10))

        wait_until(comes, 30, "the first request comes")
        reply = Reply(sender="alerts.test.1", request=first, ok=True)
        wait_until(lambda: answering.publish(reply, first) or asker.reader.socket.waits(), 30, "its answer is there")
        late = asker.ask("nobody", "anything", timeout_s=0)
        asker.ask("alerts", "acknowledge", timeout_s=600, episode=2)
        answers = dict(asker.answers())
        assert answers.keys() == {first, late}
        assert isinstance(answers[first], Reply)
        assert isinstance(answers[late], NoAnswer)
    finally:
        for part in (asker, asked, asking, answering):
            part.close()
