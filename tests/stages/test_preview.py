from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import msgpack
import numpy as np
import pytest

from common import jpeg
from common.messages import Stats, pack
from common.news import NewsReader
from common.settings import Config
from common.transport import Socket, opened
from common.watching import Seen, Viewer, read
from stages.preview import PreviewStage, covered
from tests.conftest import end, start_stage, wait_until
from tests.showing import PictureSender, await_stages, five, photo, result

SIZE = (640, 360)


@pytest.fixture
def sender(config: Config) -> Iterator[PictureSender]:
    made = PictureSender(config)
    yield made
    made.close()


@pytest.fixture
def preview(config: Config, bus: object, sender: PictureSender) -> Iterator[subprocess.Popen[bytes]]:
    process = start_stage("preview", config)
    await_stages(config, "preview")
    yield process
    assert end(process, 20) == 0


@pytest.fixture
def viewer(config: Config) -> Iterator[Viewer]:
    made = Viewer(config)
    yield made
    made.close()


def seen(viewer: Viewer, send: Callable[[], object]) -> Seen:
    """Send until something is seen."""

    def came() -> Seen | None:
        send()
        if not viewer.socket.wait(50):
            return None
        parts = viewer.receive()
        return read(parts) if parts is not None else None

    return wait_until(came, what="a preview")  # type: ignore[return-value]


def test_a_viewer_gets_the_picture_as_jpeg_with_its_own_result(
    preview: object, sender: PictureSender, viewer: Viewer
) -> None:
    viewer.watch("cam0")
    wait_until(lambda: sender.listen() == {b"cam0"}, what="the preview stage asks for cam0")
    shown = five(*SIZE)
    got = seen(viewer, lambda: sender.send(shown, photo(*SIZE)))
    assert got.preview.result == shown and got.preview.analysed
    pixels = jpeg.decode(got.jpeg, *SIZE)
    assert np.abs(pixels.astype(int) - photo(*SIZE)).mean() < 6


def test_a_jpeg_goes_through_as_it_came(preview: object, sender: PictureSender, viewer: Viewer) -> None:
    viewer.watch("cam0")
    data = jpeg.encode(photo(*SIZE), 73)
    got = seen(viewer, lambda: sender.send(five(*SIZE, analysed=False), data, "jpeg"))
    assert bytes(got.jpeg) == data and not got.preview.analysed


def test_nothing_is_asked_for_and_nothing_encoded_while_nobody_watches(
    config: Config, preview: object, sender: PictureSender, viewer: Viewer
) -> None:
    figures = _figures(config)
    assert sender.listen() == set()
    for _ in range(5):
        sender.send(five(*SIZE), photo(*SIZE))
    assert next(figures).in_s == 0
    viewer.watch("cam0")
    seen(viewer, lambda: sender.send(five(*SIZE), photo(*SIZE)))
    viewer.watch()
    wait_until(lambda: sender.listen() == set(), what="the preview stage asks for nothing again")
    next(figures)
    sender.send(five(*SIZE), photo(*SIZE))
    assert next(figures).out_s == 0


def test_a_viewer_that_vanishes_is_noticed(config: Config, preview: object, sender: PictureSender) -> None:
    viewer = Viewer(config)
    viewer.watch("cam0")
    wait_until(lambda: sender.listen() == {b"cam0"}, what="the preview stage asks for cam0")
    viewer.close()
    wait_until(lambda: sender.listen() == set(), what="the preview stage asks for nothing again")


def test_one_viewer_of_two_leaving_changes_nothing_for_the_other(
    config: Config, preview: object, sender: PictureSender, viewer: Viewer
) -> None:
    other = Viewer(config)
    for one in (viewer, other):
        one.watch("cam0")
        seen(one, lambda: sender.send(five(*SIZE), photo(*SIZE)))
    other.close()
    for _ in range(3):
        seen(viewer, lambda: sender.send(five(*SIZE), photo(*SIZE)))
    assert sender.listen() == {b"cam0"}


def test_it_finds_the_viewers_again_after_a_restart(
    config: Config, bus: object, sender: PictureSender, viewer: Viewer
) -> None:
    viewer.watch("cam0")
    for _ in range(2):
        process = start_stage("preview", config)
        seen(viewer, lambda: sender.send(five(*SIZE), photo(*SIZE)))
        process.kill()
        process.wait()


def test_of_what_came_while_it_was_busy_the_newest_of_each_camera_is_shown_in_turn(
    config: Config, sender: PictureSender, viewer: Viewer
) -> None:
    cameras = ("cam0", "cam1")
    stage = PreviewStage(config.model_copy(update={"cameras": dict.fromkeys(cameras, config.cameras["cam0"])}))
    stage.open()
    shown: list[tuple[str, int]] = []

    def send(seq: int) -> None:
        for camera in cameras:
            sender.send(result(8, 8, camera=camera, seq=seq), np.zeros((8, 8, 3), np.uint8))

    def turn() -> None:
        ready = stage.poller.wait(min(20, stage.wait_ms()))
        if not ready and stage.wait_ms():
            send(60)  # in case it was dropped on its way
        stage.handle(ready)
        while (parts := viewer.receive()) is not None:
            seen_now = read(parts).preview.result
            shown.append((seen_now.camera, seen_now.seq))

    try:
        viewer.watch(*cameras)
        wait_until(lambda: stage.handle(stage.poller.wait(20)) or sender.listen() == {b"cam0", b"cam1"})
        for seq in range(61):
            send(seq)
            viewer.socket.wait(2)  # ZeroMQ takes what it brings to the system's buffer, and drops the rest
        wait_until(lambda: turn() or {("cam0", 60), ("cam1", 60)} <= set(shown), what=f"the newest: {shown}")
        assert {camera for camera, _ in shown[:2]} == set(cameras)
        assert stage.meter.dropped > 3 * stage.meter.given
    finally:
        stage.close()
        stage._inbox.close()
        stage.news.close()


def test_bad_messages_are_counted_and_the_next_good_one_goes_through(
    config: Config, preview: subprocess.Popen[bytes], sender: PictureSender, viewer: Viewer
) -> None:
    viewer.watch("cam0")
    wait_until(lambda: sender.listen() == {b"cam0"}, what="the preview stage asks for cam0")
    good = five(*SIZE)
    figures = _figures(config)
    bad_before = next(figures).bad_messages
    for way, messages in _bad().items():
        for parts in messages:
            sender.send_parts(parts)
            wait_until(lambda: seen(viewer, lambda: sender.send(good, photo(*SIZE))).preview.result == good, what=way)
    bad = [parts for messages in _bad().values() for parts in messages]

    def counted() -> bool:
        if next(figures).bad_messages >= bad_before + len(bad):
            return True
        for parts in bad:  # a full queue drops what comes, bad or good
            sender.send_parts(parts)
        return False

    wait_until(counted, timeout_s=30, what=f"{len(bad)} bad messages are counted")
    assert preview.poll() is None


def test_a_one_pixel_picture_is_a_picture(preview: object, sender: PictureSender, viewer: Viewer) -> None:
    viewer.watch("cam0")
    got = seen(viewer, lambda: sender.send(result(1, 1), np.zeros((1, 1, 3), np.uint8)))
    assert jpeg.size(got.jpeg) == (1, 1)


def test_a_picture_of_640_by_360_takes_at_most_three_milliseconds(
    config: Config, preview: object, sender: PictureSender, viewer: Viewer
) -> None:
    viewer.watch("cam0")
    shown, pixels, times = five(*SIZE), photo(*SIZE), []
    reader = NewsReader(config, ("stats.preview",))

    def enough() -> bool:
        sender.send(shown, pixels)
        viewer.socket.wait(10)
        while viewer.receive() is not None:
            pass
        times.extend(stats.p50_ms for _, stats in reader.read() if isinstance(stats, Stats) and stats.out_s > 10)
        return len(times) >= 3

    wait_until(enough, what="figures of three seconds")
    reader.close()
    assert min(times) <= 3.0


@pytest.mark.parametrize(
    ("subscribed", "cameras"),
    [
        (set(), []),
        ({b"preview.cam0"}, ["cam0"]),
        ({b"preview.cam1"}, ["cam1", "cam10"]),
        ({b"preview."}, ["cam0", "cam1", "cam10"]),
        ({b""}, ["cam0", "cam1", "cam10"]),
        ({b"preview.cam10", b"results."}, ["cam10"]),
        ({b"previews"}, []),
    ],
)
def test_a_subscription_covers_the_cameras_whose_topic_it_begins(subscribed: set[bytes], cameras: list[str]) -> None:
    assert [name for name in ("cam0", "cam1", "cam10") if covered(name, subscribed)] == cameras


def _bad() -> dict[str, list[list[Any]]]:
    """Return what must not be believed, by what is wrong with it."""
    good = {"v": 1, "at": 1.0, "from": "x", "n": 0, "encoding": "raw"}
    shown = five(*SIZE)
    picture = msgpack.packb(good | {"result": shown.model_dump(by_alias=True)})
    as_jpeg = msgpack.packb(good | {"encoding": "jpeg", "result": shown.model_dump(by_alias=True)})
    nested: Any = {}
    for _ in range(900):
        nested = {"a": nested}
    random = np.random.default_rng(5)
    pixels = photo(*SIZE)
    return {
        "parts": [[b"cam0"], [b"cam0", picture], [b"cam0", picture, pixels, b"more"]],
        "map": [[b"cam0", b"\xc1", pixels], [b"cam0", msgpack.packb([1]), pixels], [b"cam0", pack(shown), pixels]],
        "nested": [[b"cam0", b"\x81\xa1a" * 1000 + b"\x80", pixels], [b"cam0", msgpack.packb(good | nested), pixels]],
        "length": [[b"cam0", picture, b"short"], [b"cam0", picture, b"x" * (640 * 360 * 3 + 1)]],
        "camera": [[b"cam0x", picture, pixels]],
        "jpeg": [[b"cam0", as_jpeg, b"no jpeg"]],
        "jpeg size": [[b"cam0", as_jpeg, jpeg.encode(photo(320, 180), 80)]],
        "random": [[b"cam0", random.bytes(int(random.integers(0, 200))), random.bytes(50)] for _ in range(20)],
        "huge": [[b"cam0", b"\xdf\xff\xff\xff\xff", pixels], [b"cam0", b"\xc6\xff\xff\xff\xff", pixels]],
    }


def _figures(config: Config) -> Iterator[Stats]:
    """Yield what the preview stage says of itself, once a second."""
    reader = NewsReader(config, ("stats.preview",))
    try:
        while True:
            found = wait_until(lambda: reader.read(timeout_ms=100), what="stats of the preview stage")
            for _, message in found:
                assert isinstance(message, Stats)
                yield message
    finally:
        reader.close()


def test_the_socket_that_viewers_use_is_the_public_one(config: Config, preview: object, sender: PictureSender) -> None:
    plain: Socket = opened("previews", config.endpoint("previews"), "sub")
    plain.subscribe(b"preview.")
    try:
        wait_until(lambda: sender.listen() == {b"cam0"}, what="the preview stage asks for every camera")
        parts = wait_until(
            lambda: sender.send(five(*SIZE), photo(*SIZE)) or plain.receive(timeout_ms=50), what="a preview"
        )
        assert bytes(parts[0]) == b"preview.cam0" and len(parts) == 3
    finally:
        plain.close()
