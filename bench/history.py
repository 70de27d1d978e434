"""History: how quickly a day opens after a year of 20 people, and how much room a year takes.

    python bench/history.py [--people 20] [--days 365] [--hours 24] [--second-days 3]

The year is generated: each person is in view for so many hours a day (24: as somebody in bed in front of a camera), in
tracks of half an hour, with changing expressions and a fifth of the time not assessable. The last days are by the
second, the rest by the minute, as the history stage leaves them.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from bench.report import Report, median, percentile
from common import history_rows, history_store, history_upkeep
from common.expressions import EXPRESSIONS
from common.history_gather import Batch, TrackRows
from common.history_rows import REASONS, Tally
from common.history_store import Subject
from common.ledger import Ledger

DAY = 86400
END = 1_790_000_000 // DAY * DAY
TRACK_S = 1800
LOOKS = 15  # times that each view is opened
REPORTS = 7  # … and each shift report made


def main(arguments: list[str] | None = None) -> int:
    """Generate, measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--people", type=int, default=20)
    parser.add_argument("--days", type=int, default=365)
    parser.add_argument("--hours", type=float, default=24.0, help="in view, a day and person")
    parser.add_argument("--second-days", type=int, default=3, help="kept by the second (history.second_days)")
    given = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="mien-"))
    report = Report(
        "history", "a generated year: how quickly a day opens, how much room it takes", settings=vars(given)
    )
    try:
        with Ledger(folder) as ledger:
            generated_s = generate(ledger, given)
            ledger.scrub()
            memory(report)
            views(ledger, report, given)
            writing(ledger, report, given)
        size_mb = (folder / "mien.db").stat().st_size / 2**20
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    a_year = size_mb / given.people * 365 / given.days
    report.add("room", store_mb=size_mb, mb_a_person_and_year=a_year, generated_in_s=generated_s)
    report.show()
    print(f"kept in {report.save()}")
    return 0


def generate(ledger: Ledger, given: argparse.Namespace) -> float:
    """Fill the store; return how long that took, seconds."""
    dice, began, track = np.random.default_rng(1), time.monotonic(), 0
    with ledger.write() as connection:
        for person in range(1, given.people + 1):
            connection.execute(
                "INSERT INTO person (id, name, name_key, role, notes, consent, created_at, changed_at) "
                "VALUES (?, ?, ?, 'patient', '', 'given', 0, 0)",
                (person, f"person {person}", f"person {person}"),
            )
        connection.execute(
            "INSERT INTO history_watch (camera, begin_at, end_at) VALUES ('ward', ?, ?)", (END - given.days * DAY, END)
        )
    for person in range(1, given.people + 1):
        with ledger.write() as connection:
            for day in range(given.second_days, given.days):
                minutes = _minutes(dice, END - (day + 1) * DAY, given.hours)
                history_upkeep.add_minutes(connection, person, "ward", minutes)
        for day in range(min(given.second_days, given.days)):
            seconds = _seconds(dice, END - (day + 1) * DAY, given.hours)
            rows = []
            for begin in range(0, len(seconds), TRACK_S):
                track += 1
                rows.append(
                    TrackRows(
                        track=track, camera="ward", owner=(person, None), seconds=seconds[begin : begin + TRACK_S]
                    )
                )
            with ledger.write() as connection:
                history_upkeep.write(connection, Batch(rows=rows))
    return time.monotonic() - began


def memory(report: Report) -> None:
    """What each way to the store takes of a process's memory: the history stage, with what else it would load."""
    ways = {"sqlite3 (as it is)": "pass", "psycopg (as it is on a server)": "import common.postgres",
            "SQLAlchemy": "import common.store"}  # fmt: skip
    for way, load in ways.items():
        code = f"import stages.history, psutil\n{load}\nprint(psutil.Process().memory_info().rss)"
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).resolve().parents[1], capture_output=True, check=True
        )
        report.add("the history stage's memory, by its way to the store", way=way, mb=round(int(done.stdout) / 1e6, 1))


def views(ledger: Ledger, report: Report, given: argparse.Namespace) -> None:
    """Open days, weeks and summaries."""
    dice = np.random.default_rng(2)
    old = max(given.second_days, 1)
    spans = {
        "a day by the minute, old": (old, DAY, 60),
        "a day by the minute, of yesterday (seconds)": (0, DAY, 60),
        "an hour by the second, of yesterday": (0, 3600, 1),
        "four weeks by the hour": (old, 28 * DAY, 3600),
    }
    for name, (youngest, length, step_s) in spans.items():
        if (youngest + 1) * DAY + length > given.days * DAY:
            continue
        times = []
        for _ in range(LOOKS):
            subject = Subject(person=int(dice.integers(1, given.people + 1)))
            last = (given.days * DAY - length) // DAY if youngest else 1
            begin = END - DAY * int(dice.integers(youngest, max(youngest + 1, last))) - length
            at = time.perf_counter()
            strip = history_store.ribbon(ledger, subject, begin, begin + length, step_s=step_s)
            times.append((time.perf_counter() - at) * 1e3)
            assert strip.assessed_s.sum() > 0, name
        report.add("views", view=name, median_ms=median(times), p95_ms=percentile(times, 0.95))
    # Of today all is there by the second, of an old day by the minute: a report of the one is another thing.
    shifts = {"of today (seconds)": (0, 1), "of an old day (minutes)": (given.second_days, given.days)}
    for which, (youngest, end) in shifts.items():
        if youngest >= end:
            continue
        times = []
        for _ in range(REPORTS):
            begin = END - DAY * int(dice.integers(youngest, end)) - DAY
            at = time.perf_counter()
            for person in range(1, given.people + 1):
                history_store.summary(ledger, Subject(person=person), begin, begin + DAY / 3)
            times.append((time.perf_counter() - at) * 1e3)
        name = f"shift report {which}: {given.people} people, 8 h"
        report.add("views", view=name, median_ms=median(times), p95_ms=percentile(times, 0.95))


def writing(ledger: Ledger, report: Report, given: argparse.Namespace) -> None:
    """Write a second of everybody, and roll a day up."""
    dice, times = np.random.default_rng(3), []
    for second in range(30):
        rows = [
            TrackRows(
                track=10**6 + person, camera="ward", owner=(person, None), seconds=[(END + second, _second(dice))]
            )
            for person in range(1, given.people + 1)
        ]
        at = time.perf_counter()
        with ledger.write() as connection:
            history_upkeep.write(connection, Batch(rows=rows))
        times.append((time.perf_counter() - at) * 1e3)
    report.add("upkeep", what=f"a second of {given.people} people", median_ms=median(times), rows=given.people)
    at = time.perf_counter()
    with ledger.write() as connection:
        done = history_upkeep.roll_up(connection, END - (given.second_days - 1) * DAY, most=100_000)
    took = (time.perf_counter() - at) * 1e3
    report.add("upkeep", what="seconds made minutes, in one transaction", median_ms=took, rows=done.seconds)


# --- inside ---


def _minutes(dice: np.random.Generator, begin: int, hours: float) -> history_rows.Steps:
    count = int(hours * 60)
    assessed = dice.uniform(30, 60, count)
    probabilities = dice.dirichlet(np.ones(len(EXPRESSIONS)), count)
    dominant = probabilities * assessed[:, None]
    reasons = np.zeros((count, len(REASONS)))
    reasons[np.arange(count), dice.integers(1, 7, count)] = 60 - assessed
    return history_rows.Steps(
        at=begin + 60 * np.arange(count, dtype=np.int64),
        present_s=np.full(count, 60.0),
        assessed_s=assessed,
        probabilities=probabilities,
        dominant_s=dominant,
        reasons_s=reasons,
    )


def _second(dice: np.random.Generator) -> bytes:
    tally = Tally()
    tally.add(dice.dirichlet(np.ones(len(EXPRESSIONS))).tolist())
    return tally.packed()


def _seconds(dice: np.random.Generator, begin: int, hours: float) -> list[tuple[int, bytes]]:
    count = int(hours * 3600)
    looks = [_second(dice) for _ in range(200)]
    tally = Tally()
    tally.add(None, "turned")
    unassessed = tally.packed()
    picks, missing = dice.integers(0, len(looks), count).tolist(), (dice.random(count) < 0.2).tolist()
    return [(begin + i, unassessed if missing[i] else looks[picks[i]]) for i in range(count)]


if __name__ == "__main__":
    sys.exit(main())
