from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import cv2
import pytest

from common import config as configuration
from common import control, snapshots
from common.drawing import annotate
from common.messages import CameraState, Control, Reply
from common.news import NewsReader, NewsWriter
from common.settings import Config
from common.snapshots import SnapshotError
from tests.conftest import ROOT, end, stage_environment, start_stage, wait_until
from tests.showing import Pictures, await_stages, five

SIZE = (640, 360)


@pytest.fixture
def two(config: Config) -> Config:
    """The configuration with two cameras, saved for the stages."""
    made = configuration.load(
        config.run_dir / "config.json", overrides={"cameras": {"cam0": {}, "cam1": {}}}, environment={}
    )
    configuration.save(made, config.run_dir / "config.json")
    return made


@pytest.fixture
def pictures(two: Config) -> Iterator[Pictures]:
    made = Pictures(two)
    yield made
    made.close()


@pytest.fixture
def stages(two: Config, bus: object, pictures: Pictures) -> Iterator[subprocess.Popen[bytes]]:
    processes = [start_stage(name, two) for name in ("preview", "snapshot")]
    await_stages(two, "preview", "snapshot")
    yield processes[1]
    assert [end(process, 20) for process in processes] == [0, 0]


def test_a_snapshot_of_one_camera_is_kept_whole(two: Config, stages: object, pictures: Pictures) -> None:
    pictures.cameras = {"cam0", "cam1"}
    files = snapshots.take(two, "cam0", 10)
    picture, annotated, told = files
    assert {path.parent for path in files} == {snapshots.folder(two)}
    plain, drawn = cv2.imread(str(picture)), cv2.imread(str(annotated))
    assert plain.shape == (360, 640, 3)
    expected = annotate(plain, five(*SIZE)).astype(int)
    assert abs(drawn - expected).mean() < 3 < abs(plain - expected).mean()
    assert json.loads(told.read_text())["faces"][0]["identity"]["name"] == "Renée Müller"
    assert len(list(snapshots.folder(two).iterdir())) == 3


def test_without_a_camera_all_are_kept(two: Config, stages: object, pictures: Pictures) -> None:
    pictures.cameras = {"cam0", "cam1"}
    files = snapshots.take(two, None, 10)
    assert len(files) == 6 and all(path.is_file() for path in files)


def test_while_the_analysis_stalls_a_picture_with_its_analysis_is_waited_for(
    two: Config, stages: object, pictures: Pictures
) -> None:
    pictures.cameras, pictures.fields, pictures.fields_after = {"cam0"}, {"analysed": False}, (15, {})
    [_, _, told] = snapshots.take(two, "cam0", 10)
    assert json.loads(told.read_text())["analysed"]


def test_where_it_stalls_for_good_a_picture_without_it_is_better_than_none(
    two: Config, stages: object, pictures: Pictures
) -> None:
    pictures.cameras, pictures.fields = {"cam0"}, {"analysed": False}
    [_, _, told] = snapshots.take(two, "cam0", 10)
    assert not json.loads(told.read_text())["analysed"]


def test_a_picture_that_nobody_need_look_at_is_not_made_to_wait(
    two: Config, stages: object, pictures: Pictures
) -> None:
    pictures.cameras, pictures.fields = {"cam0"}, {"analysed": False, "quiet": True}
    pictures.fields_after = (20, {})
    [_, _, told] = snapshots.take(two, "cam0", 10)
    assert json.loads(told.read_text())["quiet"]


def test_pictures_are_asked_for_only_while_a_snapshot_is_taken(two: Config, stages: object, pictures: Pictures) -> None:
    pictures.cameras = {"cam0"}
    assert pictures.asked == set()
    snapshots.take(two, "cam0", 10)
    wait_until(lambda: pictures.asked == set(), what="nothing is asked for any more")


def test_a_camera_without_pictures_is_told_with_its_reason(two: Config, stages: object, pictures: Pictures) -> None:
    with pytest.raises(SnapshotError, match=r"no picture from cam0 for 2 s: is the preview stage running\?"):
        snapshots.take(two, "cam0", 10)
    writer = NewsWriter(two, "capture.test.1")
    state = CameraState(sender="capture.test.1", camera="cam0", state="offline", since=1.0, reason="it was unplugged")

    def told() -> bool:
        writer.publish(state, "cam0")
        with pytest.raises(SnapshotError) as raised:
            snapshots.take(two, "cam0", 10)
        return "the camera is offline (it was unplugged)" in str(raised.value)

    wait_until(told, 20, "the reason")
    writer.close()
    assert not snapshots.folder(two).exists()


def test_of_two_cameras_the_one_with_pictures_is_kept_and_the_other_told(
    two: Config, stages: object, pictures: Pictures
) -> None:
    pictures.cameras = {"cam1"}
    with pytest.raises(SnapshotError, match=r"no picture from cam0.*saved: .*cam1-.*\.jpg"):
        snapshots.take(two, None, 10)
    assert len(list(snapshots.folder(two).iterdir())) == 3


def test_a_request_that_is_repeated_is_done_once(two: Config, stages: object, pictures: Pictures) -> None:
    pictures.cameras = {"cam0"}
    snapshots.take(two, "cam0", 10)
    request = Control(sender="test.1", request=uuid.uuid4().hex, do="snapshot", args={"camera": "cam0"})
    writer, reader = NewsWriter(two, "test.1"), NewsReader(two, (f"reply.{request.request}",))
    replies: list[Reply] = []

    def answered(times: int) -> bool:
        writer.publish(request, "snapshot")
        replies.extend(message for _, message in reader.read(timeout_ms=30) if isinstance(message, Reply))
        return len(replies) >= times

    wait_until(lambda: answered(4), what="every repetition is answered")
    reader.close()
    writer.close()
    assert len({str(reply.result) for reply in replies}) == 1
    assert len(list(snapshots.folder(two).iterdir())) == 6


def test_what_is_taken_for_an_alert_says_so_and_goes_with_the_age_of_episodes(
    two: Config, bus: object, pictures: Pictures
) -> None:
    pictures.cameras = {"cam0"}
    request = Control(sender="alerts.ward.1", request=uuid.uuid4().hex, do="snapshot", args={"camera": "cam0"})
    old = five(*SIZE).model_copy(update={"captured_at": time.time() - 400 * 86400})
    gone, stays = (snapshots.write(snapshots.folder(two), old, b"", b"", alert=alert) for alert in (True, False))
    processes = [start_stage(name, two) for name in ("preview", "snapshot")]
    try:
        await_stages(two, "preview", "snapshot")
        writer, reader = NewsWriter(two, "alerts.ward.1"), NewsReader(two, (f"reply.{request.request}",))
        replies: list[Reply] = []

        def answered() -> bool:
            writer.publish(request, "snapshot")
            replies.extend(message for _, message in reader.read(timeout_ms=30) if isinstance(message, Reply))
            return bool(replies)

        wait_until(answered, 20, "the snapshot")
        reader.close()
        writer.close()
        kept = Path(str(replies[0].result["cam0"]))
        assert kept.name.endswith("-alert") and all(path.is_file() for path in snapshots.paths(kept))
        wait_until(lambda: not snapshots.paths(gone)[2].exists(), 20, "the old one goes")
        assert all(path.exists() for path in snapshots.paths(stays))
        asked = snapshots.take(two, "cam0", 10)
        assert not any("alert" in path.name for path in asked)
    finally:
        assert [end(process, 20) for process in processes] == [0, 0]


def test_wrong_requests_are_answered_with_what_is_wrong(two: Config, stages: object) -> None:
    reply = control.ask(two, "snapshot", "snapshot", camera="cam7", timeout_s=10)
    assert not reply.ok and reply.error == "there is no camera 'cam7'; configured: cam0, cam1"
    reply = control.ask(two, "snapshot", "snapshot", camera=3, timeout_s=10)
    assert not reply.ok and "there is no camera '3'" in (reply.error or "")
    assert not control.ask(two, "snapshot", "dance", timeout_s=10).ok


def test_a_folder_that_cannot_be_written_to_is_told_and_the_stage_goes_on(
    two: Config, stages: subprocess.Popen[bytes], pictures: Pictures
) -> None:
    pictures.cameras = {"cam0"}
    folder = snapshots.folder(two)
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("in the way")
    with pytest.raises(SnapshotError, match="a file of that name where the folder should be"):
        snapshots.take(two, "cam0", 10)
    folder.unlink()
    assert len(snapshots.take(two, "cam0", 10)) == 3 and stages.poll() is None


def test_the_command_prints_the_files_or_what_is_wrong(two: Config, stages: object, pictures: Pictures) -> None:
    pictures.cameras = {"cam0"}
    done = _command(two, "cam0")
    assert done.returncode == 0, done.stderr
    files = [Path(line) for line in done.stdout.split("\n") if line]
    assert len(files) == 3 and all(path.is_file() for path in files)
    pictures.cameras = set()
    done = _command(two, "cam0")
    assert done.returncode == 1 and "no picture from cam0" in done.stderr and done.stdout == ""
    with contextlib.suppress(FileNotFoundError):
        assert not list(snapshots.folder(two).glob("*.part"))


def _command(config: Config, camera: str) -> subprocess.CompletedProcess[str]:
    code = (
        "import sys; from pathlib import Path; from common import snapshots; from common.config import load;"
        "sys.exit(snapshots.command(load(Path(sys.argv[1])), sys.argv[2]))"
    )
    command = [sys.executable, "-c", code, str(config.run_dir / "config.json"), camera]
    return subprocess.run(command, cwd=ROOT, env=stage_environment(), capture_output=True, text=True)
