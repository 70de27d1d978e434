"""Sources: what people write, files good and bad, folders, the screen."""

from __future__ import annotations

import functools
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np
import pytest

from common.media import sample
from common.sources import Picture, SourceError, open_source, parse_source
from common.sources.folder import Folder, read_image
from common.sources.screen import Screen
from common.sources.spec import without_password
from common.sources.video import Video
from tests.conftest import ROOT
from tests.servers import need, x_screen


def pictures(spec: str, **options: object) -> list[Picture]:
    source = open_source(spec, **options)  # type: ignore[arg-type]
    source.open()
    found = []
    while picture := source.read():
        assert picture.pixels.dtype == np.uint8
        assert picture.pixels.ndim == 3
        assert picture.pixels.shape[2] == 3
        assert picture.pixels.flags.c_contiguous
        found.append(picture)
    source.close()
    return found


def encode(target: Path, *options: str, source: str = "testsrc=size=320x240:rate=25:duration=2") -> Path:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y", "-f", "lavfi", "-i", source, *options]
    subprocess.run([*command, str(target)], check=True, stdin=subprocess.DEVNULL)
    return target


class TestWhatPeopleWrite:
    """Parsing, without opening anything."""

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("rtsp://nurse:sec@ret@ward/live", "rtsp://ward/live"),
            ("rtsp://nurse:secret@", "rtsp://"),  # not understood
            ("/gone/film.mp4", "/gone/film.mp4"),
            ("webcam", "webcam"),
        ],
    )
    def test_it_is_shown_without_a_password_and_never_refused(self, text: str, shown: str) -> None:
        assert without_password(text) == shown

    @pytest.mark.parametrize(
        ("text", "kind", "description"),
        [
            ("demo", "demo", "demo"),
            ("demo:crowd", "crowd", "demo:crowd"),
            ("webcam", "webcam", "webcam 0"),
            ("webcam:2", "webcam", "webcam 2"),
            ("screen", "screen", "screen 1000×600 at 0,40"),
            ("screen:10,20,300,200@2", "screen", "screen 300×200 at 10,20 of monitor 2"),
            ("screen@3", "screen", "screen 1000×600 at 0,40 of monitor 3"),
            ("rtsp://u:p@cam:554/live?token=abc", "stream", "rtsp://cam:554/live?…"),
            ("http://[::1]:8080/video", "stream", "http://[::1]:8080/video"),
        ],
    )
    def test_good(self, text: str, kind: str, description: str) -> None:
        spec = parse_source(text)
        assert (spec.kind, spec.description) == (kind, description)

    @pytest.mark.parametrize(
        ("text", "advice"),
        [
            ("", "the source is empty"),
            ("wbcam", "did you mean webcam"),
            ("screeen", "did you mean screen"),
            ("crowd", "did you mean demo:crowd"),
            ("demo:people", "use demo or demo:crowd"),
            ("webcam:first", "for example webcam:0"),
            ("screen:1,2,3", "for example screen:0,40,1000,600"),
            ("screen:0,0,0,10", "at least 1 pixel"),
            ("screen@0", "counted from 1"),
            ("ftp://cam/live", "use rtsp, rtsps, http, https"),
            ("rtsp://", "rtsp://user:password@camera:554/path"),
            ("/nowhere/clip.mp4", "no file or folder"),
            ("something", "use demo, demo:crowd, webcam"),
        ],
    )
    def test_wrong_says_what_would_be_right(self, text: str, advice: str) -> None:
        with pytest.raises(SourceError, match=advice.replace("[", r"\[")):
            parse_source(text)

    def test_neither_repr_nor_errors_of_a_url_show_its_secrets(self) -> None:
        with pytest.raises(SourceError) as caught:
            open_source("http://nurse:geheim@127.0.0.1:9/x?key=geheim").open()
        assert "geheim" not in str(caught.value)
        assert "nurse" not in str(caught.value)
        assert "geheim" not in repr(parse_source("rtsp://nurse:geheim@cam/x"))

    def test_parsing_needs_no_opencv(self) -> None:
        program = (
            "import sys; from common.sources import parse_source; parse_source('demo'); print('cv2' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout == "False\n"


class TestVideo:
    """Files that OpenCV's FFmpeg reads, and some that it does not."""

    def test_a_clip_has_its_own_times(self) -> None:
        found = pictures(str(sample("man.mp4")))
        assert len(found) == 72
        assert found[0].media_time_s == 0
        assert np.allclose(np.diff([picture.media_time_s for picture in found]), 1 / 30, atol=0.002)

    def test_the_demo_loops_and_its_time_keeps_growing(self) -> None:
        source = open_source("demo")
        source.open()
        times = [picture.media_time_s for _ in range(1000) if (picture := source.read())]
        assert np.allclose(np.diff(times), 1001 / 24000, atol=0.002)
        assert source.frame_count is None
        source.close()

    def test_the_demo_ends_when_told_so(self) -> None:
        assert len(pictures("demo", loop=False)) == 472

    @pytest.mark.parametrize(
        ("name", "options"),
        [
            ("grey.mkv", ["-pix_fmt", "gray", "-c:v", "ffv1"]),
            ("alpha.mov", ["-pix_fmt", "argb", "-c:v", "qtrle"]),
            ("deep.mkv", ["-pix_fmt", "yuv420p10le", "-c:v", "ffv1"]),
            ("motion.avi", ["-c:v", "mjpeg"]),
            ("web.webm", ["-c:v", "libvpx", "-deadline", "realtime"]),
            ("stream.ts", ["-c:v", "mpeg2video"]),
            ("old.mpg", ["-c:v", "mpeg1video"]),
        ],
    )
    def test_containers_and_pixel_formats_come_as_bgr(self, tmp_path: Path, name: str, options: list[str]) -> None:
        found = pictures(str(encode(tmp_path / name, *options)))
        assert 48 <= len(found) <= 50
        assert found[0].pixels.shape == (240, 320, 3)
        assert found[0].pixels.std() > 20
        times = [picture.media_time_s for picture in found]
        assert times == sorted(set(times))

    def test_a_turned_recording_is_shown_upright(self, tmp_path: Path) -> None:
        flat = encode(tmp_path / "flat.mp4")
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-display_rotation", "90", "-i", str(flat)]
        subprocess.run([*command, "-c", "copy", str(tmp_path / "turned.mp4")], check=True, stdin=subprocess.DEVNULL)
        assert pictures(str(tmp_path / "turned.mp4"))[0].pixels.shape == (320, 240, 3)

    def test_a_name_with_other_letters_opens(self, tmp_path: Path) -> None:
        assert len(pictures(str(encode(tmp_path / "Größe 木 100%.avi", "-c:v", "mjpeg")))) == 50

    def test_one_pixel_and_8k_pass(self, tmp_path: Path) -> None:
        for width, height in ((1, 1), (7680, 4320)):
            clip = encode(
                tmp_path / "size.mkv", "-c:v", "mjpeg", source=f"color=c=red:size={width}x{height}:rate=1:d=1"
            )
            assert pictures(str(clip))[0].pixels.shape == (height, width, 3)

    def test_empty_damaged_and_other_files_are_named_with_the_reason(self, tmp_path: Path) -> None:
        whole = sample("man.mp4").read_bytes()
        cases = {"empty.mp4": b"", "half.mp4": whole[: len(whole) // 2], "text.mp4": b"not a video" * 100}
        for name, content in cases.items():
            (tmp_path / name).write_bytes(content)
            with pytest.raises(SourceError, match=name) as caught:
                pictures(str(tmp_path / name))
            assert ("is empty (0 bytes)" if name == "empty.mp4" else "is damaged, cut off") in str(caught.value)

    def test_a_video_that_is_cut_short_gives_what_it_has_and_says_so(self, tmp_path: Path) -> None:
        whole = encode(tmp_path / "whole.mp4", "-movflags", "+faststart", "-pix_fmt", "yuv420p").read_bytes()
        (tmp_path / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
        notices: list[str] = []
        found = pictures(str(tmp_path / "cut.mp4"), notify=notices.append)
        assert 5 < len(found) < 48
        assert len(notices) == 1
        assert f"ended after {len(found)} of 50 pictures" in notices[0]

    def test_a_whole_video_says_nothing(self) -> None:
        notices: list[str] = []
        pictures(str(sample("woman.mp4")), notify=notices.append)
        assert notices == []

    def test_a_file_that_vanished_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="cannot be read"):
            Video(tmp_path / "gone.mp4").open()

    def test_it_opens_again_after_closing(self) -> None:
        video = Video(sample("man.mp4"))
        for _ in range(2):
            video.open()
            first = video.read()
            assert first
            assert first.media_time_s == 0
            video.close()


class TestImages:
    """Folders and single images."""

    def test_a_folder_in_the_order_of_its_names(self, tmp_path: Path) -> None:
        for name, value in (("b.png", 20), ("a.jpg", 10), ("c.webp", 30)):
            cv2.imwrite(str(tmp_path / name), np.full((4, 5, 3), value, np.uint8))
        (tmp_path / "notes.txt").write_text("no image")
        (tmp_path / ".hidden.png").write_bytes(b"")
        found = pictures(str(tmp_path))
        assert [picture.name for picture in found] == ["a.jpg", "b.png", "c.webp"]
        assert [picture.media_time_s for picture in found] == [0, 1, 2]
        assert open_source(str(tmp_path)).still

    def test_a_damaged_image_is_reported_and_skipped(self, tmp_path: Path) -> None:
        photo = sample("obama.jpg").read_bytes()
        (tmp_path / "1 good.jpg").write_bytes(photo)
        (tmp_path / "2 cut.jpg").write_bytes(photo[: len(photo) // 2])
        (tmp_path / "3 empty.png").write_bytes(b"")
        (tmp_path / "4 text.png").write_text("no image")
        (tmp_path / "5 good.jpg").write_bytes(photo)
        notices: list[str] = []
        found = pictures(str(tmp_path), notify=notices.append)
        assert [picture.name for picture in found] == ["1 good.jpg", "5 good.jpg"]
        assert [name in notice for name, notice in zip(("2 cut", "3 empty", "4 text"), notices, strict=True)] == [
            True
        ] * 3

    def test_pictures_that_cannot_be_read_here_are_said(self, tmp_path: Path) -> None:
        cv2.imwrite(str(tmp_path / "a.jpg"), np.full((4, 5, 3), 10, np.uint8))
        for name in ("b.heic", "c.gif"):
            (tmp_path / name).write_bytes(b"x")
        notices: list[str] = []
        assert len(pictures(str(tmp_path), notify=notices.append)) == 1
        assert len(notices) == 1 and "b.heic and 1 more" in notices[0] and "JPEG" in notices[0]
        with pytest.raises(SourceError, match="JPEG or PNG"):
            pictures(str(tmp_path / "b.heic"))

    def test_a_folder_without_images_or_with_broken_ones_only_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="holds no image"):
            pictures(str(tmp_path))
        (tmp_path / "a.png").write_bytes(b"x")
        with pytest.raises(SourceError, match="none of 1 image files"):
            pictures(str(tmp_path))

    def test_one_image_is_one_picture(self) -> None:
        (picture,) = pictures(str(sample("obama.jpg")))
        assert picture.name == "obama.jpg"
        assert picture.pixels.shape == (1137, 910, 3)

    def test_grey_alpha_and_16_bit_come_as_8_bit_bgr(self, tmp_path: Path) -> None:
        images = {
            "grey.png": np.full((3, 4), 77, np.uint8),
            "alpha.png": np.full((3, 4, 4), (77, 77, 77, 9), np.uint8),
            "deep.png": np.full((3, 4), 77 * 257, np.uint16),
            "deep colour.tif": np.full((3, 4, 3), 77 * 257, np.uint16),
        }
        for name, image in images.items():
            assert cv2.imwrite(str(tmp_path / name), image)
            pixels = read_image(tmp_path / name)
            assert pixels.shape == (3, 4, 3)
            assert pixels.dtype == np.uint8
            assert np.abs(pixels.astype(int) - 77).max() <= 1

    def test_a_photo_is_turned_upright(self, tmp_path: Path) -> None:
        image = np.zeros((20, 40, 3), np.uint8)
        image[:, :20] = 255  # white on the left
        jpeg = cv2.imencode(".jpg", image)[1].tobytes()
        exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"  # orientation 6: turn right
        (tmp_path / "photo.jpg").write_bytes(
            jpeg[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + jpeg[2:]
        )
        pixels = read_image(tmp_path / "photo.jpg")
        assert pixels.shape == (40, 20, 3)
        assert pixels[:15].mean() > 200
        assert pixels[25:].mean() < 50

    def test_one_pixel_and_8k_pass(self, tmp_path: Path) -> None:
        for shape in ((1, 1, 3), (4320, 7680, 3)):
            cv2.imwrite(str(tmp_path / "size.bmp"), np.full(shape, 5, np.uint8))
            assert read_image(tmp_path / "size.bmp").shape == shape

    def test_a_folder_that_vanished_is_an_error(self, tmp_path: Path) -> None:
        with pytest.raises(SourceError, match="cannot be read"):
            Folder(tmp_path / "gone").open()


PATTERN = (np.add.outer(np.arange(64) // 8, np.arange(64) // 16) % 2).astype(np.uint8)


@pytest.fixture(scope="module")
def display(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A screen of 1280×720 with ``PATTERN`` all over."""
    bitmap = tmp_path_factory.mktemp("screen") / "pattern.xbm"
    bits = np.packbits(PATTERN, axis=1, bitorder="little").ravel()
    values = ",\n".join(f"0x{value:02x}" for value in bits)
    bitmap.write_text(f"#define p_width 64\n#define p_height 64\nstatic unsigned char p_bits[] = {{\n{values}}};\n")
    with x_screen(1280, 720) as name:
        command = [need("xsetroot"), "-display", name, "-bitmap", str(bitmap), "-fg", "#ff8000", "-bg", "#0040c0"]
        subprocess.run(command, check=True)
        yield name


class TestScreen:
    """A real X screen with a known pattern."""

    @pytest.fixture(autouse=True)
    def use(self, display: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DISPLAY", display)

    def expected(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        tiled = np.tile(PATTERN, (720 // 64 + 1, 1280 // 64))[y : y + height, x : x + width]
        return np.where(tiled[:, :, None] == 1, (0x00, 0x80, 0xFF), (0xC0, 0x40, 0x00)).astype(np.uint8)

    def shot(self, spec: str) -> np.ndarray:
        source = open_source(spec)
        source.open()
        picture = source.read()
        source.close()
        assert picture
        return picture.pixels

    def test_the_default_region_is_at_the_left_edge_below_the_top(self) -> None:
        assert np.array_equal(self.shot("screen"), self.expected(0, 40, 1000, 600))

    def test_any_region(self) -> None:
        assert np.array_equal(self.shot("screen:333,77,50,41"), self.expected(333, 77, 50, 41))

    def test_a_region_is_clipped_to_the_monitor(self) -> None:
        assert np.array_equal(self.shot("screen:1200,700,500,500"), self.expected(1200, 700, 80, 20))

    def test_a_region_or_monitor_that_is_not_there_is_an_error(self) -> None:
        with pytest.raises(SourceError, match="1280×720: choose a region inside"):
            Screen((1280, 0, 10, 10)).open()
        with pytest.raises(SourceError, match=r"no monitor 2; there are 1: 1280×720"):
            Screen(monitor=2).open()

    def test_it_keeps_its_pace(self) -> None:
        source = open_source("screen:0,0,64,64")
        source.open()
        times = [picture.media_time_s for _ in range(31) if (picture := source.read())]
        source.close()
        assert times[-1] - times[0] >= 0.99  # never faster than 30 a second

    def test_no_screen_is_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("DISPLAY")
        with pytest.raises(SourceError, match="DISPLAY is not set"):
            Screen().open()
        monkeypatch.setenv("DISPLAY", ":987")
        with pytest.raises(SourceError, match="the screen cannot be read"):
            Screen().open()


def test_a_video_behind_a_web_address_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(sample("man.mp4").read_bytes())
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = open_source(f"http://127.0.0.1:{server.server_address[1]}/clip.mp4")
        with pytest.raises(SourceError, match="download it"):
            source.open()
        server.shutdown()


def test_no_webcam_is_said() -> None:
    with pytest.raises(SourceError, match="webcam 77 cannot be opened: is it plugged in"):
        open_source("webcam:77").open()


# --- names and sizes that nobody thinks of ----------------------------------------------------------------------------


def test_what_is_too_large_or_points_nowhere_is_left_out_by_name_and_the_rest_is_read(tmp_path: Path) -> None:
    small = np.full((20, 30, 3), 9, np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), small)
    cv2.imwrite(str(tmp_path / "b.png"), np.zeros((10, 20_000, 3), np.uint8))
    (tmp_path / "c.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(tmp_path / "d.png")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/e\xff.png")).write_bytes((tmp_path / "a.png").read_bytes())
    told: list[str] = []
    source = Folder(tmp_path, notify=told.append)
    source.open()
    names = []
    while picture := source.read():
        names.append(picture.name)
    assert names == ["a.png", "e\\xff.png"]
    assert ["b.png" in told[0], "c.png" in told[1], "d.png" in told[2]] == [True] * 3
    assert "20000 × 10 is too large" in told[0]


def test_a_name_that_is_not_utf8_and_a_user_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="not UTF-8"):
        parse_source(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.mp4"))
    with pytest.raises(SourceError, match="there is no file or folder"):
        parse_source("~nobodyatall/film.mp4")


def test_a_colon_in_a_name_is_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode(tmp_path / "rec-12:30.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(pictures("rec-12:30.mp4")) == 50


def test_a_film_without_a_steady_rate_is_not_called_damaged(tmp_path: Path) -> None:
    film = encode(tmp_path / "vfr.mkv", "-vf", "select='lt(n,10)+gt(n,45)'", "-fps_mode", "passthrough")
    told: list[str] = []
    source = Video(film, notify=told.append)
    source.open()
    count = 0
    while source.read():
        count += 1
    assert count == 14
    assert source.frame_count is None or source.frame_count > 20  # by the file's own account
    assert not told
