"""What more workers bring, and what that means for 1 to 10,000 cameras.

    python bench/scaling.py [--seconds 6] [--rounds 3] [--only targets|cameras] [--machine-cores 32]

Workers pull their work over real sockets, as the conductor gives it: real detection workers on this machine's cores,
and many that wait instead of computing. The table of cameras is reckoned from what was measured just before.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import cameras, dispatch
from bench.report import Report, median
from common.transport import terminate

MANY = 16
WAIT_MS = 100.0
UNEVEN_MS = (10.0, 100.0)
SIZES = (1, 10, 100, 1_000, 10_000)
_CONNECTIONS = 6  # at the store: a hub's conductor, alerts with one target, history, page (two), one to spare
_CELL_CONNECTIONS = 1  # of any other cell's conductor
_SERVER_CONNECTIONS = 97  # of PostgreSQL as it is installed, less those kept for its administrator
_RESULT_BYTES = 900  # a result with one face, packed
_NEWS_S = 20_000  # messages a second that one bus forwards on one core (bench/transport.py)


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What a camera takes, in milliseconds of a core for each analysed frame."""

    detection_ms: float
    conductor_ms: float

    @property
    def worker_ms(self) -> float:
        """With what expression and identity add for one face."""
        return self.detection_ms * 1.25


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return the exit code (1: a target is missed)."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="medians of so many, in turn")
    parser.add_argument("--only", choices=("targets", "cameras"), help="one of the two parts")
    parser.add_argument("--machine-cores", type=int, default=32, help="of the machines in the table of cameras")
    given = parser.parse_args(arguments)
    report = Report("scaling", "what more workers bring")
    report.settings = {"seconds": given.seconds, "rounds": given.rounds}
    kept = []
    if given.only != "cameras":
        for part in (waiting, uneven, real):
            kept.append(part(report, given.seconds, given.rounds))
    if given.only != "targets":
        reckon(report, costs(given.seconds), given.machine_cores)
    report.show()
    print(f"kept in {report.save()}")
    terminate()
    return 0 if all(kept) else 1


def waiting(report: Report, seconds: float, rounds: int) -> bool:
    """Sixteen workers that wait against one: at least 0.9 × 16 times as many frames."""
    one, many = [], []
    for _ in range(rounds):
        one.append(dispatch.measure("pulled", (WAIT_MS,), seconds, rate=400).per_s)
        many.append(dispatch.measure("pulled", (WAIT_MS,) * MANY, seconds, rate=400).per_s)
    ratio = median(many) / median(one)
    return _row(report, f"{MANY} workers that wait {WAIT_MS:g} ms, times one", ratio, 0.9 * MANY, least=True)


def uneven(report: Report, seconds: float, rounds: int) -> bool:
    """One worker ten times slower: p99 of the age of analysed frames at most twice the slow one's time."""
    ages = [dispatch.measure("pulled", UNEVEN_MS, seconds).p99_ms for _ in range(rounds)]
    what = "p99 of a frame's age, workers of 10 and 100 ms, in times of the slow one"
    return _row(report, what, median(ages) / max(UNEVEN_MS), 2.0, least=False)


def real(report: Report, seconds: float, rounds: int) -> bool:
    """Two real detection workers against one: at least 1.5 times as many frames."""
    picture = _picture()
    one, two = [], []
    for _ in range(rounds):
        one.append(dispatch.measure_real(1, seconds, picture).per_s)
        two.append(dispatch.measure_real(2, seconds, picture).per_s)
    cores = os.cpu_count() or 1
    what = f"2 real detection workers, times one ({cores} cores, load {os.getloadavg()[0]:.1f})"
    return _row(report, what, median(two) / median(one), 1.5, least=True)


def costs(seconds: float) -> Costs:
    """Measure processor times, which other work on the machine changes little: a real worker's, a real conductor's."""
    served = cameras.measure(8, rate=15, seconds=seconds, wait_ms=20, workers=8)
    return Costs(
        detection_ms=dispatch.measure_real(1, seconds, _picture()).cpu_ms,
        conductor_ms=1e3 * served.cpu / max(served.per_s, 1e-9),
    )


def reckon(report: Report, taken: Costs, cores: int) -> None:
    """Print what 1 to 10,000 cameras take, at ten analysed frames a second each."""
    rate = 10.0
    per_core = 1e3 / (taken.worker_ms * rate)
    per_conductor = 0.7 * 1e3 / (taken.conductor_ms * rate)  # the rest is for moments when all have faces
    report.add("measured", what="detection, ms a frame and core", value=round(taken.detection_ms, 1))
    report.add("measured", what="conductor, ms a frame", value=round(taken.conductor_ms, 2))
    report.add("measured", what=f"cameras a core of workers, at {rate:g}/s", value=round(per_core, 1))
    report.add("measured", what=f"cameras a conductor, at {rate:g}/s", value=round(per_conductor, 1))
    for count in SIZES:
        cells = math.ceil(count / per_conductor)
        needed = count / per_core + cells + 0.05 * count
        connections = _CONNECTIONS + _CELL_CONNECTIONS * (cells - 1)
        news_s = count * (rate + 1)
        full = {"workers' cores": needed / cores, "one conductor": count / per_conductor,
                "connections of the store": connections / _SERVER_CONNECTIONS,
                "the hub's bus": news_s / _NEWS_S}  # fmt: skip
        over = [name for name, part in full.items() if part > 1]
        report.add(
            "cameras", cameras=count, cores=math.ceil(needed), machines=math.ceil(needed / cores), cells=cells,
            connections=connections, news_s=round(news_s), news_mb_s=round(news_s * _RESULT_BYTES / 1e6, 1),
            one_is_not_enough=", ".join(over) or "–",
        )  # fmt: skip


def _picture() -> NDArray[np.uint8]:
    """The first picture of the demo's clip, (360, 640, 3) uint8."""
    import cv2  # only where it is needed, as the sample clips

    from common import media

    clip = cv2.VideoCapture(str(media.sample("woman.mp4")))
    got, picture = clip.read()
    clip.release()
    if not got:
        raise RuntimeError("the demo's clip cannot be read")
    return np.asarray(cv2.resize(picture, (dispatch.WIDTH, dispatch.HEIGHT)), np.uint8)


def _row(report: Report, what: str, value: float, target: float, *, least: bool) -> bool:
    held = value >= target if least else value <= target
    report.add("targets", what=what, value=round(value, 2), target=round(target, 2), kept="yes" if held else "no")
    return held


if __name__ == "__main__":
    began = time.monotonic()
    code = main()
    print(f"took {time.monotonic() - began:.0f} s")
    sys.exit(code)
