"""What an empty room costs, still and with a curtain that sways, how soon somebody who comes is noticed, and what a
paused system costs.

    python bench/quiet.py [--empty 25] [--seconds 8] [--returns 6] [--window]

The camera shows a room at 640×360 and 30 frames/s, a little noisy: empty and still, then with a curtain at its side
that sways, then still again; and now and then the woman of the sample clip walks in from the side, stays a moment and
goes out again. ``launch.py --headless`` itself is started (with ``--window`` without that, which needs a screen), and
everything that it starts is counted: itself, the page, alerts and history among it.

Noticed: from the first picture in which a look finds the face (the same detector looks at every picture of the way in,
beforehand) to the first result with a face. From then on every frame should be looked at.
"""

from __future__ import annotations

import argparse
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import imageio_ffmpeg
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.feeding import Picture, configured, pictures_of
from bench.launched import Launched
from bench.pipeline import FIRST_RESULT_LIMIT_S, RATE
from bench.report import Report, by_pool, median, usage
from common import config as configuration
from common import media
from common.control import Asker
from common.messages import Result
from common.news import NewsReader, NewsWriter
from common.transport import terminate
from models.detector import FaceDetector

WIDTH, HEIGHT = 640, 360
ROOM = (0x74, 0x6F, 0x6A)
SETTLES_S = 4.0  # after the first result: nobody has been in view for long enough by then
CURTAIN_SETTLES_S = 2.0
CURTAIN = (slice(30, 330), slice(520, 630))  # rows and columns of the picture
AWAY_S = 7.0  # at least, between two visits: she is not followed any more, and the rare looks have begun again
WALK_S, STAY_S = 1.5, 1.0  # a visit: in, there, and out again
TAIL_S = 10.0  # after the last visit: the clip must not be over before the pause


@dataclass(frozen=True, slots=True)
class Visit:
    """When somebody came and went, seconds of the clip; ``found_s``: the first picture in which a look finds them."""

    begins_s: float
    found_s: float
    ends_s: float


@dataclass(frozen=True, slots=True)
class Scene:
    """The clip, and what happens when: seconds of it."""

    path: Path
    curtain_s: float
    still_s: float
    visits: tuple[Visit, ...]


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0].replace("\n", " "))
    parser.add_argument("--empty", type=float, default=25.0, help="seconds for which the room is empty and still")
    parser.add_argument("--seconds", type=float, default=8.0, help="of measuring: empty, with the curtain, and paused")
    parser.add_argument("--returns", type=int, default=6, help="how often somebody comes")
    parser.add_argument("--window", action="store_true", help="with the window, too")
    given = parser.parse_args(arguments)
    if given.empty < given.seconds + SETTLES_S + 4:
        parser.error(f"--empty must be at least {given.seconds + SETTLES_S + 4:g}: all of the measuring falls into it")
    folder = Path(tempfile.mkdtemp(prefix="mien-"))
    try:
        report = measured(given, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        terminate()
    report.show()
    report.keep()
    return 0


def measured(given: argparse.Namespace, folder: Path) -> Report:
    """Run it and return the tables."""
    scene = drawn(folder / "room.mp4", given)
    config = configured(folder / "mien", source=str(scene.path), loop=False)
    report = Report("quiet", "an empty room, a curtain in it, somebody who comes, and a pause")
    report.settings = {
        "frames_s": RATE, "empty_s": given.empty, "measured_s": given.seconds, "returns": given.returns,
        "window": "shown" if given.window else "none",
    }  # fmt: skip
    results: list[Result] = []
    with Launched(config, folder, window=given.window) as launched:
        reader = NewsReader(config, ("results.",))
        writer = NewsWriter(config, "bench.quiet.1")
        asker = Asker(config, writer)
        try:

            def listen(until: Callable[[], bool], limit_s: float) -> None:
                ends = time.monotonic() + limit_s
                while not until():
                    results.extend(m for _, m in reader.read(timeout_ms=20) if isinstance(m, Result) and m.analysed)
                    asker.answers()
                    if time.monotonic() > ends:
                        launched.check()
                        raise SystemExit(f"nothing more came within {limit_s:g} s; the machine may be too busy")

            def shown(at_s: float) -> None:
                listen(lambda: results[-1].media_time_s >= at_s, max(0.0, at_s - results[-1].media_time_s) + 30)

            def wait(seconds: float) -> None:
                ends = time.monotonic() + seconds
                listen(lambda: time.monotonic() >= ends, seconds + 5)

            def cost(what: str) -> None:
                before, seen = usage(launched.pids(), memory=False), len(results)
                wait(given.seconds)
                after = usage(launched.pids(), memory=False)
                length = after.at - before.at
                spent = by_pool(after.cpu_since(before))
                rows = {name: 100 * used / length for name, used in sorted(spent.items())}
                for name, used in [*rows.items(), ("total", sum(rows.values()))]:
                    report.add("processor time, % of one core", state=what, process=name, percent=used)
                report.notes.append(f"{what}: {(len(results) - seen) / length:.1f} results/s")

            listen(lambda: bool(results), FIRST_RESULT_LIMIT_S)
            wait(SETTLES_S)
            cost("empty")
            if results[-1].media_time_s >= scene.curtain_s:
                raise SystemExit("the curtain swayed before the empty room was measured: give it longer with --empty")
            shown(scene.curtain_s + CURTAIN_SETTLES_S)
            cost("empty, a curtain sways")
            if results[-1].media_time_s >= scene.still_s:
                raise SystemExit("the curtain hung still before it was measured; the machine may be too busy")
            shown(scene.visits[-1].ends_s + 0.5)
            asker.ask("capture", "pause", camera="cam0")
            wait(1.5)
            cost("paused")
        finally:
            asker.close()
            writer.close()
            reader.close()
    came(report, results, scene.visits)
    return report


def came(report: Report, results: list[Result], visits: tuple[Visit, ...]) -> None:
    """Add how soon each visit was noticed, and how soon every frame was looked at again."""
    rows: list[dict[str, float]] = []
    for visit in visits:
        inside = [result for result in results if visit.begins_s <= result.media_time_s <= visit.ends_s]
        first = next((result for result in inside if result.faces), None)
        if first is None:
            report.notes.append(f"nobody was noticed from {visit.begins_s:.1f} to {visit.ends_s:.1f} s of the clip")
            continue
        later = [result for result in inside if result.seq > first.seq]
        gaps = [b.seq - a.seq for a, b in zip([first, *later], later, strict=False)][: int(RATE)]
        before = [result for result in results if visit.begins_s - 1.0 <= result.media_time_s < visit.begins_s]
        rows.append(
            {
                "looks_in_the_second_before": len(before),
                "noticed_after_ms": 1e3 * (first.media_time_s - visit.found_s) + first.latency_ms,
                "of_which_latency_ms": first.latency_ms,
                "frames_left_out_in_the_second_after": sum(gap - 1 for gap in gaps),
            }
        )
        report.add("somebody comes", time=str(len(rows)), **rows[-1])
    for name, of in (("median", median), ("most", max)):
        if rows:
            report.add("somebody comes", time=name, **{key: float(of(row[key] for row in rows)) for key in rows[0]})


# --- the clip ---


def drawn(path: Path, given: argparse.Namespace) -> Scene:
    """Draw the clip and return what happens in it."""
    curtain_s = given.empty
    still_s = curtain_s + CURTAIN_SETTLES_S + given.seconds + 4.0
    visits, at_s = [], still_s
    woman = _woman()
    for number in range(given.returns):
        at_s += AWAY_S + 0.13 * number  # so that they come at every moment between two looks
        visits.append((at_s, at_s + 2 * WALK_S + STAY_S))
        at_s = visits[-1][1]
    detector, settings = None, configuration.load(environment={}).detection
    found: dict[int, float] = {}
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "bgr24",
        "-s", f"{WIDTH}x{HEIGHT}", "-r", f"{RATE:g}", "-i", "-", "-an", "-pix_fmt", "yuv420p", "-c:v", "libx264",
        "-preset", "ultrafast", "-crf", "18", str(path),
    ]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.PIPE) as encoder:
        assert encoder.stdin is not None
        for frame, picture in enumerate(_empty(round((at_s + TAIL_S) * RATE))):
            now_s = frame / RATE
            if curtain_s <= now_s < still_s:
                _sway(picture, now_s - curtain_s)
            for number, (begins_s, ends_s) in enumerate(visits):
                if begins_s <= now_s < ends_s:
                    _walk(picture, woman, now_s - begins_s)
                    if number not in found:
                        detector = detector or FaceDetector(
                            input_long_side=settings.input_long_side, score_threshold=settings.score_threshold
                        )
                        if len(detector.detect(picture).boxes):
                            found[number] = now_s
            encoder.stdin.write(picture.tobytes())
    if encoder.returncode != 0 or len(found) < len(visits):
        raise SystemExit("the clip of the room cannot be made" if encoder.returncode else "no look finds the woman")
    return Scene(
        path, curtain_s, still_s, tuple(Visit(begins, found[n], ends) for n, (begins, ends) in enumerate(visits))
    )


def _empty(count: int) -> Iterator[Picture]:
    """So many pictures of the empty room, with a camera's noise."""
    dice = np.random.default_rng(0)
    rooms = [
        np.clip(np.array(ROOM) + dice.normal(0, 3, (HEIGHT, WIDTH, 3)), 0, 255).astype(np.uint8) for _ in range(16)
    ]
    for _ in range(count):
        yield rooms[int(dice.integers(len(rooms)))].copy()


def _sway(picture: Picture, at_s: float) -> None:
    """A curtain whose folds go to and fro."""
    rows, columns = CURTAIN
    across = np.arange(columns.stop - columns.start)
    folds = 30 * np.sin(across / 9 + 2.5 * math.sin(2 * math.pi * at_s / 3))
    patch = picture[rows, columns]
    patch[:] = np.clip(patch.astype(np.float32) + folds[None, :, None], 0, 255)


def _woman() -> list[tuple[Picture, Picture]]:
    """The woman's head and shoulders at half the size, and how much of each pixel is hers, 0 to 255."""
    size = (190, 180)
    mask = np.zeros((size[1], size[0]), np.uint8)
    cv2.ellipse(mask, (95, 90), (74, 76), 0, 0, 360, 255, -1)
    mask = np.asarray(cv2.GaussianBlur(mask, (0, 0), 5), np.uint8)
    count = round((2 * WALK_S + STAY_S) * RATE) + 1
    return [
        (np.asarray(cv2.resize(picture[:, 240:620], size, interpolation=cv2.INTER_AREA), np.uint8), mask)
        for picture in pictures_of(media.sample("woman.mp4"), count, size=(WIDTH, HEIGHT))
    ]


def _walk(picture: Picture, woman: list[tuple[Picture, Picture]], at_s: float) -> None:
    """Put her where she is at this time of her visit: in from the left, there, and out again."""
    her, mask = woman[min(round(at_s * RATE), len(woman) - 1)]
    way = min(1.0, at_s / WALK_S, max(0.0, (2 * WALK_S + STAY_S - at_s) / WALK_S))
    left, top = round(-her.shape[1] + way * (her.shape[1] + 200)), 90
    begin = max(0, -left)
    share = mask[:, begin:, None].astype(np.float32) / 255
    place = picture[top : top + her.shape[0], left + begin : left + her.shape[1]]
    place[:] = her[:, begin:] * share + place * (1 - share)


if __name__ == "__main__":
    sys.exit(main())
