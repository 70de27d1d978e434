"""``demo:crowd``: a hall with nine people, 1280×720 at 30 frames/s, 25 s, looped without a seam; and its truth.

The scene is rendered once into the data directory and then played like any video. Everything in it is fixed, so that
the same versions of the libraries give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
from filelock import FileLock
from numpy.typing import NDArray

from common.media import MediaError, data_dir

FRAME_RATE = 30
FRAMES = 750
SECONDS = FRAMES / FRAME_RATE
WIDTH, HEIGHT = 1280, 720
HIDDEN_BELOW = 0.5  # visible part of a face
TURNED_FROM_DEGREES = 50.0

Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class FaceTruth:
    """One face in one frame.

    Attributes:
        person: its number, the same in all frames.
        box: x, y, width, height in pixels as a face detector would give it, clipped to the picture.
        height: of the whole face in pixels, also of what lies outside of the picture.
        visible: part of the face that is neither covered nor outside, 0 to 1.
        hidden: less than half of it is visible.
        turned: it looks away by more than 50°.
    """

    person: int
    name: str
    box: Box
    height: float
    visible: float
    hidden: bool
    turned: bool


@dataclass(frozen=True, slots=True)
class FrameTruth:
    """All faces of one frame that are at least partly inside of the picture."""

    frame: int
    media_time_s: float
    faces: tuple[FaceTruth, ...]


def crowd_video(notify: Callable[[str], None] = print) -> Path:
    """The scene as an H.264 file, rendered on first use (about half a minute, which ``notify`` is told).

    Raises MediaError: the sample media or the disk are not to be had.
    """
    return _rendered(notify)[0]


def truth(notify: Callable[[str], None] = print) -> list[FrameTruth]:
    """Who is where, for each of the 750 frames. Raises MediaError like ``crowd_video``."""
    content = json.loads(_rendered(notify)[1].read_text(encoding="utf-8"))
    return [
        FrameTruth(
            frame["frame"],
            frame["media_time_s"],
            tuple(FaceTruth(**{**face, "box": tuple(face["box"])}) for face in frame["faces"]),
        )
        for frame in content
    ]


@cache
def _version() -> str:
    """Changes with anything that changes the pixels."""
    import imageio_ffmpeg

    from common.sources.opencv import cv2

    digest = hashlib.sha256()
    for name in ("crowd", "crowd_cast", "crowd_room", "crowd_stage", "crowd_turn"):
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    digest.update(f"{cv2.__version__} {np.__version__} {imageio_ffmpeg.__version__}".encode())
    return digest.hexdigest()[:12]


def _rendered(notify: Callable[[str], None]) -> tuple[Path, Path]:
    folder = data_dir() / "crowd"
    video, notes = folder / f"crowd-{_version()}.mp4", folder / f"crowd-{_version()}.json"
    if video.exists() and notes.exists():
        return video, notes
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            if not (video.exists() and notes.exists()):
                _render(video, notes, notify)
                for old in set(folder.glob("crowd-*.*")) - {video, notes}:
                    old.unlink(missing_ok=True)
    except OSError as error:
        advice = "set MIEN_DATA_DIR to a folder that can be written"
        raise MediaError(f"the crowd scene cannot be kept in {folder}: {error}; {advice}") from error
    return video, notes


def _render(video: Path, notes: Path, notify: Callable[[str], None]) -> None:
    """Write both files under other names first: who finds them, finds them whole."""
    part, frames = video.with_suffix(".part"), []
    notify("rendering the crowd scene, once")
    with part.open("wb"):
        pass  # a folder that cannot be written is found out before the work
    encoder = _encoder(part)
    try:
        assert encoder.stdin
        for picture, frame in _scene():
            encoder.stdin.write(picture.data)
            frames.append(frame)
            if len(frames) % (FRAMES // 4) == 0:
                notify(f"rendering the crowd scene: {100 * len(frames) // FRAMES} %")
        encoder.stdin.close()
        if encoder.wait() != 0:
            raise MediaError(f"the crowd scene could not be encoded: FFmpeg ended with {encoder.returncode}")
        text = json.dumps([asdict(frame) for frame in frames])
        notes.with_suffix(".part-json").write_text(text, encoding="utf-8")
        os.replace(notes.with_suffix(".part-json"), notes)
        os.replace(part, video)
    except BrokenPipeError as error:
        raise MediaError("the crowd scene could not be encoded: FFmpeg ended early (is the disk full?)") from error
    finally:
        encoder.kill()
        encoder.wait()
        part.unlink(missing_ok=True)


def _encoder(path: Path) -> subprocess.Popen[bytes]:
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-y"]
    command += ["-f", "rawvideo", "-pix_fmt", "bgr24", "-s", f"{WIDTH}x{HEIGHT}", "-r", str(FRAME_RATE), "-i", "-"]
    # Quick to decode, a key frame each second, and the same bytes each time (fixed threads, no version notes).
    command += ["-c:v", "libx264", "-preset", "veryfast", "-tune", "fastdecode", "-crf", "17", "-g", str(FRAME_RATE)]
    command += ["-pix_fmt", "yuv420p", "-threads", "2", "-fflags", "+bitexact", "-flags:v", "+bitexact"]
    command += ["-movflags", "+faststart", "-f", "mp4", str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _scene() -> Iterator[tuple[NDArray[np.uint8], FrameTruth]]:
    from common.crowd_stage import CrowdStage

    stage = CrowdStage()
    for number in range(FRAMES):
        picture, seen = stage.frame(number)
        faces = tuple(
            FaceTruth(
                one.person,
                one.name,
                _clipped(one.box),
                round(one.box[3], 1),
                round(one.visible, 3),
                one.visible < HIDDEN_BELOW,
                one.turned_degrees > TURNED_FROM_DEGREES,
            )
            for one in seen
            if min(_clipped(one.box)[2:]) > 0
        )
        yield picture, FrameTruth(number, round(number / FRAME_RATE, 6), faces)


def _clipped(box: Box) -> Box:
    x, y, width, height = box
    left, top = max(0.0, x), max(0.0, y)
    right, bottom = min(float(WIDTH), x + width), min(float(HEIGHT), y + height)
    return round(left, 1), round(top, 1), round(max(0.0, right - left), 1), round(max(0.0, bottom - top), 1)


def main(arguments: list[str] | None = None) -> int:
    """Export the scene's truth, and the scene."""
    parser = argparse.ArgumentParser(prog="python -m common.crowd", description=main.__doc__)
    parser.add_argument("--truth", type=Path, metavar="FILE", help="write who is where, as JSON")
    parser.add_argument("--video", type=Path, metavar="FILE", help="write the scene, as MP4")
    options = parser.parse_args(arguments)
    try:
        video, notes = _rendered(lambda notice: print(notice, file=sys.stderr))
        for source, target in ((notes, options.truth), (video, options.video)):
            if target:
                shutil.copyfile(source, target)
    except (MediaError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    frames = truth()
    counts = [sum(not face.hidden for face in frame.faces) for frame in frames]
    heights = [face.height for frame in frames for face in frame.faces]
    print(f"{video}: {len(frames)} frames, {SECONDS:g} s, {min(counts)} to {max(counts)} faces at a time, ", end="")
    print(f"{math.floor(min(heights))} to {math.ceil(max(heights))} px high")
    return 0


if __name__ == "__main__":
    sys.exit(main())
