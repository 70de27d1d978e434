"""The reader: pace, loss, return, freezing, hanging, changing the source. Real servers, killed and restarted."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from common import reading
from common.freeze import FreezeWatch
from common.media import sample
from common.pacer import Pacer
from common.reader import Reader, ReaderState
from common.sources import Picture, Source, SourceError
from tests.conftest import ROOT, wait_until
from tests.servers import Server, mjpeg_server, rtsp_server


class Camera:
    """A live source that does what a test says: gives pictures, hangs, fails."""

    live, still, may_stand_still = True, False, False
    description = "camera"
    frame_rate: float | None = None
    frame_count: int | None = None

    def __init__(self) -> None:
        self.hang = threading.Event()
        self.released = threading.Event()
        self.fail = False
        self.opened = self.given = 0
        self.same = False

    def open(self) -> None:
        self.opened += 1
        if self.fail:
            raise SourceError("camera unplugged")

    def read(self) -> Picture | None:
        if self.hang.is_set():
            self.released.wait()
        if self.fail:
            raise SourceError("camera unplugged")
        time.sleep(0.01)  # its own pace
        self.given += 0 if self.same else 1
        return Picture(np.full((8, 8, 3), self.given % 256, np.uint8), self.given / 100)

    def close(self) -> None:
        pass


def of(camera: Camera) -> Callable[..., Source]:
    return lambda spec, *, loop, notify: camera


def drained(reader: Reader, until: Callable[[], bool], timeout_s: float = 20) -> list[Picture]:
    """Take pictures until a condition holds."""
    pictures = []
    deadline = time.monotonic() + timeout_s
    while not until():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {reader.state()}"
        if taken := reader.take(0.1):
            pictures.append(taken[0])
    return pictures


def goes_offline_within(reader: Reader, limit_s: float) -> ReaderState:
    """Within so many seconds of the last picture: on a busy machine, some are still on the way when a server dies."""
    drained(reader, lambda: reader.state().state == "offline")
    state = reader.state()
    assert time.monotonic() - state.since <= limit_s
    return state


def test_every_frame_of_a_clip_comes_once_and_in_order() -> None:
    with Reader(str(sample("man.mp4")), every_frame=True) as reader:
        pictures = drained(reader, lambda: reader.state().state == "ended")
        state = reader.state()
    assert len(pictures) == state.pictures == 72
    assert state.skipped == 0
    assert state.reason is None
    times = [picture.media_time_s for picture in pictures]
    assert times == sorted(set(times))


def test_a_clip_plays_at_its_own_speed_without_drift() -> None:
    with Reader(str(sample("man.mp4"))) as reader:
        offsets = []
        while reader.state().state != "ended":
            if taken := reader.take(0.2):
                offsets.append(taken.captured_ns / 1e9 - taken.picture.media_time_s)
    assert len(offsets) >= 36  # most pictures, however busy this machine is
    assert abs(np.median(offsets[-8:]) - np.median(offsets[:8])) < 0.15


def test_a_slow_taker_gets_the_newest_and_the_rest_is_counted() -> None:
    with Reader("demo") as reader:
        assert reader.take(10)
        wait_until(lambda: reader.state().skipped >= 5, what="pictures are skipped")
        taken = reader.take(1)
        assert taken
        assert time.monotonic() - taken[1] / 1e9 < 0.5


def test_a_paused_clip_stands_still_and_goes_on_where_it_was() -> None:
    with Reader("demo") as reader:
        first = reader.take(10)
        reader.pause()
        assert first
        assert reader.take(0.4) is None
        reader.resume()
        second = reader.take(5)
        assert second
        assert second[0].media_time_s - first[0].media_time_s < 0.25


def test_a_missing_file_ends_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"")
    with Reader(str(path)) as reader:
        wait_until(lambda: reader.state().state == "ended")
        assert "empty" in str(reader.state().reason)


def test_a_file_that_hangs_is_stalled_and_goes_on() -> None:
    disk = Camera()
    disk.live = False
    disk.hang.set()
    with Reader("file", make=of(disk), lost_after_s=0.3) as reader:
        wait_until(lambda: reader.state().state == "stalled")
        disk.hang.clear()
        disk.released.set()
        drained(reader, lambda: reader.state().state == "online" and reader.state().pictures > 1)


def test_a_paused_camera_gives_a_fresh_picture_afterwards() -> None:
    with Reader("camera", make=of(Camera())) as reader:
        assert reader.take(5)
        reader.pause()
        assert reader.take(0.5) is None
        assert reader.state().state == "online"
        assert reader.state().paused
        resumed = time.monotonic_ns()
        reader.resume()
        taken = reader.take(5)
        assert taken
        assert taken[1] >= resumed - 200_000_000


def test_images_are_never_lost_however_slowly_they_are_taken(tmp_path: Path) -> None:
    for number in range(8):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.full((4, 4, 3), number, np.uint8))
    with Reader(str(tmp_path)) as reader:
        wait_until(lambda: reader.state().pictures == reading.QUEUE_SIZE)
        found = drained(reader, lambda: reader.state().state == "ended")
        assert [picture.name for picture in found] == [f"{number}.png" for number in range(8)]
        assert reader.state().skipped == 0


def test_a_wrong_source_is_refused_at_once() -> None:
    with pytest.raises(SourceError, match="did you mean webcam"):
        Reader("wbcam")


@pytest.mark.parametrize("kind", ["rtsp", "mjpeg"])
def test_a_killed_stream_is_offline_within_two_seconds_and_comes_back(kind: str) -> None:
    with rtsp_server() if kind == "rtsp" else mjpeg_server() as server, Reader(server.url) as reader:
        assert len(drained(reader, lambda: reader.state().pictures >= 10)) >= 1
        server.kill()
        state = goes_offline_within(reader, 2.5)
        assert state.reason
        assert server.url.split("://")[1].split("/")[0] in state.source
        server.start()
        before = reader.state().pictures
        drained(reader, lambda: reader.state().state == "online" and reader.state().pictures > before + 5, 25)
        assert reader.state().reconnects >= 1


@pytest.mark.parametrize("kind", ["rtsp", "mjpeg"])
def test_a_silent_stream_is_offline_within_two_seconds_though_its_connection_stands(kind: str) -> None:
    with rtsp_server() if kind == "rtsp" else mjpeg_server() as server, Reader(server.url) as reader:
        drained(reader, lambda: reader.state().pictures >= 10)
        server.freeze()
        goes_offline_within(reader, 2.5)
        server.thaw()
        drained(reader, lambda: reader.state().state == "online", 30)


def test_a_stream_is_fresh_when_nobody_looked_for_a_while() -> None:
    with mjpeg_server() as server, Reader(server.url) as reader:
        assert reader.take(10)
        wait_until(lambda: reader.state().skipped >= 30)
        taken = reader.take(1)
        assert taken
        assert time.monotonic() - taken[1] / 1e9 < 0.3


def test_a_frozen_stream_counts_as_lost_until_it_shows_something_else() -> None:
    with mjpeg_server(repeat_after=1) as server, Reader(server.url, frozen_after_s=1.0) as reader:
        assert reader.take(10)
        state = goes_offline_within(reader, 4)
        assert "frozen" in str(state.reason)
        drained(reader, lambda: reader.state().reconnects >= 1)
        assert drained(reader, lambda: reader.state().reconnects >= 2) == []  # the frozen picture is not news
        assert reader.state().state == "offline"
        server.command = server.command[: server.command.index("--repeat-after")]
        server.kill()
        server.start()
        drained(reader, lambda: reader.state().state == "online", 30)


def test_credentials_are_used_and_never_shown(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with mjpeg_server(login="nurse:geheim77") as server:
        with Reader(server.url) as reader:
            assert reader.take(10)
            server.kill()
            drained(reader, lambda: reader.state().reconnects >= 1)
            seen = repr(reader.state())
        with Reader(server.url.replace("geheim77", "geheim78")) as reader:
            wait_until(lambda: "cannot be opened" in str(reader.state().reason))
            seen += repr(reader.state())
    output = capfd.readouterr()
    for text in (seen, output.out, output.err, caplog.text):
        assert "geheim" not in text
        assert "nurse" not in text


def test_a_blocked_read_is_offline_and_a_new_thread_takes_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.reader.READ_LIMIT_S", 1.0)
    cameras: list[Camera] = []

    def make(spec: str, *, loop: bool | None, notify: Callable[[str], None]) -> Source:
        cameras.append(Camera())
        return cameras[-1]

    with Reader("camera", make=make, lost_after_s=0.3) as reader:
        first = reader.take(5)
        assert first
        cameras[0].hang.set()
        goes_offline_within(reader, 1.0)
        drained(reader, lambda: reader.state().state == "online", 5)
        assert len(cameras) == 2
        assert reader.state().stuck == 1
        later = drained(reader, lambda: cameras[1].given > 3)[-1]
        assert later.media_time_s > first[0].media_time_s + 1.0  # the same time goes on: it hung for that long
        cameras[0].released.set()
        wait_until(lambda: reader.state().stuck == 0, what="the abandoned thread ends")


def test_threads_that_hang_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.reader.READ_LIMIT_S", 0.1)
    cameras: list[Camera] = []

    def make(spec: str, *, loop: bool | None, notify: Callable[[str], None]) -> Source:
        cameras.append(Camera())
        cameras[-1].hang.set()
        return cameras[-1]

    reader = Reader("camera", make=make, lost_after_s=0.05)
    reader.start()
    wait_until(lambda: "hangs" in str(reader.state().reason))
    assert len(cameras) == 4
    assert reader.state().worn_out
    cameras[0].released.set()
    wait_until(lambda: not reader.state().worn_out and len(cameras) == 5, what="there is room for another attempt")
    wait_until(lambda: reader.state().worn_out, what="that one hangs, too")
    change = reader.switch("another")
    assert not reader.state().worn_out  # what was changed to may do better
    assert not change.done()
    began = time.monotonic()
    reader.close()
    assert time.monotonic() - began < 2.0
    for camera in cameras:
        camera.released.set()


def test_delays_grow_and_are_forgotten_after_good_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "FIRST_DELAY_S", 0.1)
    monkeypatch.setattr(reading, "GOOD_AFTER_S", 0.3)
    camera = Camera()
    camera.fail = True
    with Reader("camera", make=of(camera), lost_after_s=0.2) as reader:
        began = time.monotonic()
        wait_until(lambda: camera.opened >= 4)
        assert time.monotonic() - began >= 0.1 + 0.2 + 0.4
        assert reader.state().reason == "camera unplugged"
        camera.fail = False
        drained(reader, lambda: camera.given > 60)
        camera.fail = True
        opened = camera.opened
        began = time.monotonic()
        wait_until(lambda: camera.opened > opened)
        assert time.monotonic() - began < 0.5  # and not the 1.6 s that would be next


def test_the_source_is_changed_while_running_and_a_bad_one_leaves_the_old() -> None:
    with Reader("demo") as reader:
        assert reader.take(10)
        changed = reader.switch(str(sample("man.mp4")))
        assert "man.mp4" in changed.result(10)
        assert "man.mp4" in reader.state().source
        back = reader.switch("demo")
        assert back.result(10) == "demo"
        for wrong, reason in (
            ("wbcam", "did you mean"),
            ("webcam:77", "webcam 77 cannot be opened"),
            ("/no.mp4", "no file"),
        ):
            failed = reader.switch(wrong)
            assert reason in str(failed.exception(15))
        assert reader.state().source == "demo"
        assert reader.take(5)


def test_changing_to_the_source_in_use_tries_it_at_once_where_it_is_offline() -> None:
    cameras = [Camera(), Camera(), Camera()]
    cameras[0].fail = cameras[1].fail = True
    left = list(cameras)
    with Reader("camera", make=lambda spec, *, loop, notify: left.pop(0), lost_after_s=0.2) as reader:
        wait_until(lambda: reader.state().reason == "camera unplugged")
        with pytest.raises(SourceError, match="unplugged"):
            reader.switch("camera").result(5)
        assert reader.switch("camera").result(5) == "camera"
        assert reader.state().state == "online"
        assert reader.switch("camera").result(0) == "camera"  # nothing to do
        assert not left


def test_the_source_can_be_changed_while_it_is_paused() -> None:
    with Reader("demo") as reader:
        assert reader.take(10)
        reader.pause()
        assert "man.mp4" in reader.switch(str(sample("man.mp4"))).result(10)
        assert reader.take(0.2) is None
        reader.resume()
        assert reader.take(5)


def test_a_source_that_hangs_when_changed_to_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.reader.SWITCH_LIMIT_S", 0.3)
    good, bad = Camera(), Camera()
    bad.hang.set()
    with Reader("good", make=lambda spec, *, loop, notify: bad if spec == "bad" else good) as reader:
        assert reader.take(5)
        changed = reader.switch("bad")
        drained(reader, changed.done)
        assert "no picture" in str(changed.exception())
        assert reader.take(5)
        bad.released.set()


def test_the_process_ends_though_a_read_hangs() -> None:
    program = """
import threading
from common.reader import Reader
class Hanging:
    live, still, may_stand_still = True, False, False
    description, frame_rate, frame_count = "hanging", None, None
    def open(self): print("open", flush=True); threading.Event().wait()
    def read(self): return None
    def close(self): pass
reader = Reader("x", make=lambda spec, *, loop, notify: Hanging())
reader.start(); reader.take(0.3); reader.close(); print(reader.state().state)
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["open", "ended"], "")


def test_the_process_ends_though_a_stream_is_silent() -> None:
    with rtsp_server() as server:
        program = f"""
from common.reader import Reader
reader = Reader({server.url!r}); reader.start()
assert reader.take(15)
print("ready", flush=True); input(); reader.take(0.5); reader.close()
"""
        process = subprocess.Popen(
            [sys.executable, "-c", program], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        freeze_then_end(server, process)


def freeze_then_end(server: Server, process: subprocess.Popen[str]) -> None:
    server.freeze()
    began = time.monotonic()
    process.communicate("\n", timeout=20)
    assert process.returncode == 0
    assert time.monotonic() - began < 5


class TestPacer:
    """Pure timing, with made-up clocks."""

    def test_pictures_are_due_relative_to_the_first(self) -> None:
        pacer = Pacer(0.04)
        assert pacer.due(5.0, 100.0) == 100.0
        assert pacer.due(5.04, 100.01) == pytest.approx(100.04)
        assert pacer.due(7.0, 100.05) == pytest.approx(102.0)

    def test_a_late_picture_is_skipped_but_something_is_shown(self) -> None:
        pacer = Pacer(0.04)
        shown = [pacer.due(i * 0.04, 50 + i * 0.045) is not None for i in range(100)]
        assert shown[:5] == [True] * 5
        assert not all(shown)
        assert sum(shown) >= 100 * 0.045 / 0.2  # at least five a second

    def test_after_a_long_sleep_it_goes_on_without_rushing(self) -> None:
        pacer = Pacer(0.04)
        pacer.due(0.0, 10.0)
        assert pacer.due(0.04, 70.0) == 70.0
        assert pacer.due(0.08, 70.0) == pytest.approx(70.04)

    def test_a_hole_in_a_recording_is_not_waited_for(self) -> None:
        pacer = Pacer(0.04)
        pacer.due(0.0, 10.0)
        assert pacer.due(120.0, 10.01) == pytest.approx(10.04)
        assert pacer.due(120.04, 10.05) == pytest.approx(10.08)
        assert pacer.gaps == 1

    def test_a_film_of_few_pictures_is_not_full_of_holes(self) -> None:
        pacer = Pacer(10.0)
        pacer.due(0.0, 10.0)
        assert pacer.due(10.0, 10.01) == pytest.approx(20.0)


class TestFreezeWatch:
    """Which pictures are news."""

    @staticmethod
    def picture(value: int) -> np.ndarray:
        return np.full((64, 64, 3), value, np.uint8)

    def test_the_same_picture_for_too_long_is_lost_until_another_comes(self) -> None:
        watch = FreezeWatch(5.0)
        looks = [watch.look(self.picture(1), t) for t in (0.0, 2.0, 5.0, 5.1)]
        assert looks == ["alive", "alive", "alive", "lost"]
        watch.restart(6.0)
        assert watch.look(self.picture(1), 6.1) == "frozen"
        assert watch.look(self.picture(2), 6.2) == "alive"

    def test_a_change_of_one_pixel_is_life(self) -> None:
        watch = FreezeWatch(5.0)
        for second in range(20):
            picture = self.picture(1)
            picture[33, 35, 1] = second  # between the sampled ones
            assert watch.look(picture, float(second)) == "alive"

    def test_never_when_told_so(self) -> None:
        watch = FreezeWatch(None)
        assert {watch.look(self.picture(1), float(t)) for t in range(100)} == {"alive"}
