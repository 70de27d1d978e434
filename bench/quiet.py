"""What an empty room costs, how soon somebody who comes is noticed, and what a paused system costs.

    python bench/quiet.py [--empty 20] [--seconds 8]

The camera shows an empty, slightly noisy room at 640×360 and 30 frames/s, then the woman of the sample clip. Everything
that ``launch.py --headless`` starts is counted, the page, alerts and history among it.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import imageio_ffmpeg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.pipeline import FIRST_RESULT_LIMIT_S, RATE, Running
from bench.report import Report, by_pool, usage
from common import media
from common.analyse import private_endpoints
from common.config import load
from common.control import Asker
from common.messages import Result
from common.news import NewsReader, NewsWriter
from common.settings import Config
from common.transport import terminate

SETTLES_S = 4.0  # after the first result: nobody has been in view for long enough by then
COMES_AND_STAYS_S = 6.0


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--empty", type=float, default=25.0, help="seconds for which the room is empty")
    parser.add_argument("--seconds", type=float, default=8.0, help="of measuring, empty and paused")
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
    clip = room(folder / "room.mp4", given.empty)
    base = load().model_dump()
    config = Config.model_validate(
        base
        | {"run_dir": folder, "cameras": {"cam0": {"source": str(clip)}}, "loop": False}
        | {"endpoints": private_endpoints(folder) | {"archive": None}}
    )
    report = Report("quiet", "an empty room, somebody who comes, and a pause")
    report.settings = {"frames_s": RATE, "empty_s": given.empty, "measured_s": given.seconds}
    results: list[Result] = []
    with Running(config) as running:
        reader = NewsReader(config, ("results.",))
        writer = NewsWriter(config, "bench.quiet.1")
        asker = Asker(config, writer)
        try:

            def listen(until: Callable[[], bool], limit_s: float) -> None:
                ends = time.monotonic() + limit_s
                while not until():
                    results.extend(m for _, m in reader.read(timeout_ms=20) if isinstance(m, Result))
                    asker.answers()
                    if time.monotonic() > ends:
                        raise SystemExit(f"nothing more came within {limit_s:g} s; the machine may be too busy")

            def cost(what: str, seconds: float) -> None:
                ends = time.monotonic() + seconds
                before, seen = usage(running.pids(), memory=False), len(results)
                listen(lambda: time.monotonic() >= ends, seconds + 5)
                after = usage(running.pids(), memory=False)
                length = after.at - before.at
                spent = by_pool(after.cpu_since(before))
                rows = {name: 100 * used / length for name, used in sorted(spent.items())}
                for name, used in [*rows.items(), ("total", sum(rows.values()))]:
                    report.add("processor time, % of one core", state=what, process=name, percent=used)
                report.notes.append(f"{what}: {(len(results) - seen) / length:.1f} results/s")

            listen(lambda: bool(results), FIRST_RESULT_LIMIT_S)
            settled = time.monotonic() + SETTLES_S
            listen(lambda: time.monotonic() >= settled, SETTLES_S + 5)
            cost("empty", given.seconds)
            listen(lambda: results[-1].media_time_s > given.empty + 2.0, given.empty + 30)
            came(report, results, given.empty)
            asker.ask("capture", "pause", camera="cam0")
            settled = time.monotonic() + 1.5
            listen(lambda: time.monotonic() >= settled, 5)
            cost("paused", given.seconds)
        finally:
            asker.close()
            writer.close()
            reader.close()
    return report


def came(report: Report, results: list[Result], empty_s: float) -> None:
    """Add how soon the woman was noticed, and how soon every frame was looked at again."""
    first = next(result for result in results if result.faces and result.media_time_s >= empty_s - 0.5 / RATE)
    later = [result for result in results if result.run == first.run and result.seq > first.seq]
    gaps = [b.seq - a.seq for a, b in zip([first, *later], later, strict=False)][: int(RATE)]
    report.add(
        "somebody comes",
        noticed_after_ms=1e3 * (first.media_time_s - empty_s) + first.latency_ms,
        of_which_latency_ms=first.latency_ms,
        frames_left_out_in_the_second_after=sum(gap - 1 for gap in gaps),
    )


def room(path: Path, empty_s: float) -> Path:
    """Return a clip of an empty room for so long, and of the woman after."""
    noise = f"color=0x6a6f74:size=640x360:rate={RATE:g}:duration={empty_s:g},noise=alls=6:allf=t,format=yuv420p[empty]"
    woman = f"[0:v]scale=640:360,fps={RATE:g},trim=duration={COMES_AND_STAYS_S + 4:g},format=yuv420p[woman]"
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error", "-i", str(media.sample("woman.mp4")),
        "-filter_complex", f"{noise};{woman};[empty][woman]concat=n=2:v=1[out]", "-map", "[out]", "-an",
        "-c:v", "libx264", "-preset", "ultrafast", "-crf", "18", str(path),
    ]  # fmt: skip
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    return path


if __name__ == "__main__":
    sys.exit(main())
