"""The offline command: what it writes, what survives an interruption, and what it says when it cannot begin."""

from __future__ import annotations

import argparse
import csv
import importlib.util
import os
import shutil
import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest

from common import analyse
from common.analyse import Analysis, Input
from common.encoder import EncoderError, VideoEncoder
from common.media import sample
from common.messages import EndOfSource, Picture, pack
from common.outputs import OutputError, Outputs
from common.progress import Progress
from common.settings import Config
from common.sources import open_source
from common.tables import COLUMNS, create_table, rows_of, unfinished
from tests.analysing import Analysing, Rows, analysed, clip, gone, read_rows
from tests.conftest import wait_until
from tests.showing import face, result

BOX = (10.0, 12.0, 20.0, 24.0)

interruptible = pytest.mark.skipif(os.name != "posix", reason="no SIGINT for one process, no kill -9")


def in_process(source: Path | str, out: Path, **options: object) -> int:
    """Call the command in this process, for what ends before any stage is started."""
    given: dict[str, object] = {
        "annotated": None, "force": False, "config": None, "run_dir": None, "data_dir": None, "verbose": False,
        "workers": None,
    }  # fmt: skip
    return analyse.main(argparse.Namespace(input=str(source), out=out, **{**given, **options}))


@pytest.fixture(autouse=True)
def signals_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(analyse, "end_on_signals", lambda stop: None)


# --- rows ------------------------------------------------------------------------------------------------------------


def test_a_frame_without_faces_has_one_row_without_a_face() -> None:
    (row,) = rows_of(result(64, 48, seq=7))
    assert list(row) == list(COLUMNS)
    assert (row["seq"], row["faces"], row["analysed"]) == (7, 0, True)
    assert {name for name, cell in row.items() if cell is not None} == {"seq", "media_time_s", "analysed", "faces"}


def test_a_frame_with_faces_has_a_row_for_each() -> None:
    rows = rows_of(result(64, 48, (face(3, BOX, "sad"), face(4, BOX, reason="small")), seq=1))
    assert [row["track"] for row in rows] == [3, 4]
    assert [row["label"] for row in rows] == ["sad", None]
    assert [row["reason"] for row in rows] == [None, "small"]
    assert all(list(row) == list(COLUMNS) and row["faces"] == 2 for row in rows)


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_all_formats_hold_the_same(tmp_path: Path, ending: str) -> None:
    wanted = rows_of(result(64, 48, (face(3, BOX, "sad", name='Åsa, "M."'),), seq=0)) + rows_of(result(64, 48, seq=1))
    path = tmp_path / f"table{ending}"
    table = create_table(path)
    for row in wanted:
        table.write([row])
    table.close()
    table.close()
    assert _read(path) == wanted


def test_text_formats_are_on_disk_at_once(tmp_path: Path) -> None:
    for ending in (".csv", ".jsonl"):
        table = create_table(tmp_path / f"table{ending}")
        table.write(rows_of(result(64, 48, (face(1, BOX, "happy"),), seq=0)))
        assert len(_read(tmp_path / f"table{ending}")) == 1
        table.close()


# --- the annotated video ---------------------------------------------------------------------------------------------


def test_a_video_of_odd_size_is_playable_and_keeps_the_time(tmp_path: Path) -> None:
    encoder = VideoEncoder(tmp_path / "odd.mp4", 25.0)
    for number in (0, 1, 2, 10, 11):  # seven pictures were never taken
        encoder.write(np.full((33, 61, 3), number * 20, np.uint8), number / 25)
    encoder.write(np.full((90, 40, 3), 255, np.uint8), 12 / 25)  # another size: fitted into the first one's
    encoder.close()
    encoder.close()
    assert _film(tmp_path / "odd.mp4") == (13, (62, 34), 25.0)
    content = (tmp_path / "odd.mp4").read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # a browser can begin before it has all


def test_after_a_long_gap_a_video_keeps_time_again(tmp_path: Path) -> None:
    encoder = VideoEncoder(tmp_path / "gap.mp4", 10.0)
    times = [0.0, 0.5, 1.0, 21.0, 21.5, 22.0]
    for number, at_s in enumerate(times):
        encoder.write(np.full((48, 64, 3), number * 20, np.uint8), at_s)
    encoder.close()
    assert _film(tmp_path / "gap.mp4")[0] == 22  # a second, the gap left out, and another second


def test_a_tiny_first_picture_does_not_make_a_film_of_pictures_tiny(tmp_path: Path) -> None:
    encoder = VideoEncoder(tmp_path / "dots.mp4", 1.0, least_side=640)
    encoder.write(np.zeros((1, 1, 3), np.uint8), 0.0)
    encoder.close()
    assert _film(tmp_path / "dots.mp4")[:2] == (1, (640, 640))


def test_a_video_of_one_pixel_is_written(tmp_path: Path) -> None:
    encoder = VideoEncoder(tmp_path / "dot.mp4", 1.0)
    encoder.write(np.zeros((1, 1, 3), np.uint8), 0.0)
    encoder.close()
    assert _film(tmp_path / "dot.mp4")[:2] == (1, (2, 2))


def test_a_video_that_cannot_be_written_says_why(tmp_path: Path) -> None:
    encoder = VideoEncoder(tmp_path / "missing" / "a.mp4", 25.0)
    with pytest.raises(EncoderError, match="No such file or directory"):
        for number in range(100):
            encoder.write(np.zeros((720, 1280, 3), np.uint8), number / 25)


def paused(tmp_path: Path) -> tuple[VideoEncoder, psutil.Process]:
    """An encoder that has been given a film, and its ffmpeg, which does nothing for the time being."""
    encoder = VideoEncoder(tmp_path / "slow.mp4", 25.0)
    for number in range(50):
        encoder.write(np.full((480, 640, 3), number, np.uint8), number / 25)
    [ffmpeg] = [child for child in psutil.Process().children() if str(encoder.path) in child.cmdline()]
    wait_until(encoder.path.exists, 30, "ffmpeg has begun the file")
    ffmpeg.suspend()
    return encoder, ffmpeg


def test_a_film_that_is_still_being_written_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.encoder._SILENT_S", 3.0)
    encoder, ffmpeg = paused(tmp_path)
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        ending = pool.submit(encoder.close)

        def long() -> bool:
            encoder.path.touch()  # as a slow disk has it: a little now and then
            return ending.done() or time.monotonic() - began > 5

        wait_until(long, 30, "more time than it may be silent")
        ffmpeg.resume()
        ending.result(60)
    assert _film(tmp_path / "slow.mp4")[0] == 50


def test_an_ffmpeg_that_does_nothing_any_more_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("common.encoder._SILENT_S", 0.5)
    encoder, ffmpeg = paused(tmp_path)
    with pytest.raises(EncoderError, match=r"ffmpeg has written nothing for 0.5 s"):
        encoder.close()
    assert not ffmpeg.is_running()


# --- whole analyses --------------------------------------------------------------------------------------------------


def test_a_video_without_faces_gives_a_row_a_frame_and_a_film(tmp_path: Path) -> None:
    short = clip(
        sample("no_face.mp4"), tmp_path / "short.mp4", "-frames:v", "10", "-vf", "scale=161:121", "-c:v", "mpeg4"
    )
    out, film = tmp_path / "out.parquet", tmp_path / "film.mp4"
    with Analysing(short, out, "--annotated", str(film)) as run:
        assert run.wait() == 0, run.said()
        assert "10 frames, 0 faces, 0 tracks" in run.said()
    rows = _read(out)
    assert [(row["seq"], row["faces"], row["track"]) for row in rows] == [(seq, 0, None) for seq in range(10)]
    assert _film(film)[:2] == (10, (162, 122))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.mp4", "out.log", "out.parquet", "short.mp4"]


@interruptible
def test_ctrl_c_keeps_what_was_done(tmp_path: Path) -> None:
    out, film = tmp_path / "out.csv", tmp_path / "film.mp4"
    with Analysing(sample("woman.mp4"), out, "--annotated", str(film), "--verbose") as run:
        run.await_rows(12)
        children = psutil.Process(run.process.pid).children(recursive=True)
        run.process.send_signal(signal.SIGINT)
        assert run.wait() == analyse.INTERRUPTED, run.said()
        assert f"is in {unfinished(out)} and {unfinished(film)}" in run.said()
        assert not (tmp_path / "out.csv").exists()
    rows = _read(unfinished(out))
    assert [row["seq"] for row in rows if row["track"] in (None, 1)][:10] == list(range(10))
    assert _film(unfinished(film))[0] == len({row["seq"] for row in rows})
    assert gone([child.pid for child in children])


@interruptible
def test_ctrl_c_leaves_a_readable_parquet_file(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    with Analysing(sample("woman.mp4"), out, "--verbose") as run:
        wait_until(lambda: run.said().count("has come") >= 4, 60, "all workers are there")
        wait_until(lambda: " frames, " in run.said() or run.process.poll() is not None, 30, "it counts")
        run.process.send_signal(signal.SIGINT)
        assert run.wait() == analyse.INTERRUPTED, run.said()
    rows = _read(unfinished(out))
    assert [row["seq"] for row in rows] == list(range(len(rows)))


@interruptible
def test_a_killed_analysis_keeps_its_rows_and_leaves_no_process(tmp_path: Path, run_dir: Path) -> None:
    out, film = tmp_path / "out.jsonl", tmp_path / "film.mp4"
    with Analysing(sample("woman.mp4"), out, "--annotated", str(film), "--run-dir", str(run_dir)) as run:
        run.await_rows(12)
        children = psutil.Process(run.process.pid).children(recursive=True)
        run.process.kill()
        run.wait()
    wait_until(lambda: gone([child.pid for child in children]), 10, "all processes have ended")
    rows = read_rows(unfinished(out))
    assert [row["seq"] for row in rows] == list(range(len(rows)))
    assert _film(unfinished(film))[0] > 0  # ffmpeg ended the file by itself
    assert in_process(sample("woman.mp4"), out) == 2  # what was saved is not overwritten unasked


def test_a_damaged_picture_is_named_and_the_others_are_analysed(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    (folder / "a.jpg").write_bytes(sample("portrait_happy.jpg").read_bytes()[:300])
    shutil.copy(sample("portrait_happy.jpg"), folder / "b.jpg")
    with Analysing(folder, tmp_path / "out.jsonl") as run:
        assert run.wait() == 1, run.said()
        assert "a.jpg is damaged" in run.said()
    assert [(row["seq"], row["file"]) for row in read_rows(tmp_path / "out.jsonl")] == [(0, "b.jpg")]


def test_a_video_cut_off_is_analysed_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = clip(sample("no_face.mp4"), tmp_path / "whole.mp4", "-movflags", "+faststart", "-vf", "scale=320:-2")
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    rows = analysed(cut, tmp_path / "out.jsonl", code=1)
    assert 0 < len(rows) < _film(whole)[0]
    assert "damaged or cut off" in (tmp_path / "out.log").read_text()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a disk that is always full is a Linux device")
def test_a_full_disk_is_reported(tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    unfinished(out).symlink_to("/dev/full")
    with Analysing(sample("man.mp4"), out, "--force") as run:
        assert run.wait() == 2, run.said()
        assert f"{out} cannot be written: No space left on device" in run.said()
    assert not out.exists() and not unfinished(out).exists()


def test_a_table_that_is_not_whole_does_not_get_its_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.parquet"
    out.write_bytes(b"an older one, whole")
    outputs = Outputs(out, None, force=True)
    outputs.create(25.0)

    class Full:
        def close(self) -> None:
            raise OSError(28, "No space left on device")

    outputs.table = Full()  # type: ignore[assignment]
    outputs.close()
    found = Input(source="x", description="x", frames=1, rate=25.0, still=False)
    with Progress(1) as progress:
        analysis = Analysis(Config(), found, outputs, progress, verbose=False)
    analysis.complete = True
    assert analysis.conclude(interrupted=False) == 1
    assert out.read_bytes() == b"an older one, whole"
    said = capsys.readouterr().err
    assert f"{out} cannot be written: [Errno 28] No space left on device" in said
    assert str(unfinished(out)) in said


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ({"run": 1, "frames": 1}, 0, "1 frames"),
        ({"run": 2, "frames": 1}, 1, "the input broke off: it was opened again and could be read no more"),
        ({"run": 1, "frames": 4}, 1, "the last 3 frames were lost on the way"),
    ],
    ids=["whole", "broken off", "cut off"],
)
def test_what_is_not_there_to_its_end_does_not_get_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], end: dict[str, int], code: int, said: str
) -> None:
    outputs = Outputs(tmp_path / "out.jsonl", None, force=False)
    outputs.create(25.0)
    found = Input(source="x", description="x", frames=None, rate=25.0, still=False)
    with Progress(1) as progress:
        analysis = Analysis(Config(), found, outputs, progress, verbose=False)
    picture = Picture(sender="conductor.test.1", encoding="raw", result=result(64, 48, seq=0))
    analysis._take([memoryview(part) for part in (b"picture", pack(picture), bytes(64 * 48 * 3))])
    source_end = EndOfSource.model_validate({"from": "conductor.test.1", "camera": "input", **end})
    analysis._take([memoryview(part) for part in (b"end", pack(source_end))])
    outputs.close()
    assert analysis.conclude(interrupted=False) == code
    assert said in capsys.readouterr().err
    assert (tmp_path / "out.jsonl").exists() == (code == 0)


def test_an_input_is_not_overwritten_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "here").symlink_to(tmp_path / "there")
    film = tmp_path / "there" / "film.mp4"
    film.write_bytes(b"the only one")
    outputs = Outputs(tmp_path / "out.csv", film, force=True)
    for name in (film, tmp_path / "here" / "film.mp4", tmp_path / "there" / ".." / "there" / "film.mp4"):
        with pytest.raises(OutputError, match="is the input itself"):
            outputs.spare(str(name))
    outputs.spare("demo")


# --- bad input -------------------------------------------------------------------------------------------------------


def _empty_folder(place: Path) -> str:
    (place / "input").mkdir()
    (place / "input" / "notes.txt").write_text("nothing")
    return str(place / "input")


def _damaged_folder(place: Path) -> str:
    (place / "input").mkdir()
    (place / "input" / "a.jpg").write_bytes(b"\xff\xd8\xff")
    return str(place / "input")


def _file(place: Path, name: str, content: bytes) -> str:
    (place / name).write_bytes(content)
    return str(place / name)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda place: _file(place, "input.mp4", b""), "is empty (0 bytes)"),
        (lambda place: _file(place, "input.mp4", b"not a video " * 99), "damaged, cut off, or not a video"),
        (lambda place: str(place / "missing.mp4"), "there is no file or folder"),
        (_empty_folder, "holds no image"),
        (_damaged_folder, "none of 1 image files can be read"),
        (lambda place: "webcam", "has no end: give a video"),
        (lambda place: "rtsp://host/stream", "has no end: give a video"),
    ],
)
def test_an_input_that_cannot_be_analysed_is_refused_and_leaves_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, make: object, words: str
) -> None:
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    source = make(tmp_path)  # type: ignore[operator]
    before = sorted(tmp_path.rglob("*"))
    assert in_process(source, tmp_path / "out.csv") == 2
    assert words in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("out", "options", "words"),
    [
        ("out.xlsx", {}, "results are written as .csv, .jsonl, .parquet"),
        ("missing/out.csv", {}, "there is no folder"),
        ("old.csv", {}, "replace it with --force"),
        ("half.csv", {}, "was left by an analysis that did not end"),
        ("out.csv", {"annotated": Path("film.avi")}, "the video is written as .mp4"),
        ("out.csv", {"annotated": "itself", "force": True}, "is the input itself"),
    ],
)
def test_an_output_that_cannot_be_written_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str, options: dict[str, object], words: str
) -> None:
    (tmp_path / "old.csv").write_text("old")
    (tmp_path / "half.part.csv").write_text("half")
    source = shutil.copy(sample("man.mp4"), tmp_path / "man.mp4")
    if options.get("annotated") == "itself":
        options = {**options, "annotated": Path(source)}
    before = {path: path.stat().st_size for path in tmp_path.iterdir()}
    assert in_process(source, tmp_path / out, **options) == 2
    assert words in capsys.readouterr().err
    assert {path: path.stat().st_size for path in tmp_path.iterdir()} == before


def test_parquet_without_its_package_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "pyarrow" else find(name))
    assert in_process(sample("man.mp4"), tmp_path / "out.parquet") == 2
    assert "pip install 'mien[parquet]'" in capsys.readouterr().err


# --- help ------------------------------------------------------------------------------------------------------------


def _read(path: Path) -> Rows:
    if path.suffix == ".jsonl":
        return read_rows(path)
    if path.suffix == ".parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_table(path).to_pylist()  # type: ignore[no-any-return]
    kinds = {int: int, float: float, str: str, bool: lambda text: text == "true"}
    with path.open(encoding="utf-8", newline="") as file:
        return [
            {name: kinds[COLUMNS[name]](cell) if cell else None for name, cell in row.items()}
            for row in csv.DictReader(file)
        ]


def _film(path: Path) -> tuple[int, tuple[int, int], float]:
    """Return how many pictures a video really has, their width and height, and its rate."""
    source = open_source(str(path))
    source.open()
    try:
        count, size = 0, (0, 0)
        while (picture := source.read()) is not None:
            count += 1
            size = (picture.pixels.shape[1], picture.pixels.shape[0])
        return count, size, round(source.frame_rate or 0.0, 3)
    finally:
        source.close()
