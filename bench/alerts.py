"""Alerts: does the demo's sadness open exactly one episode, in time; does flicker open none; what do they cost.

    python bench/alerts.py [clip|flicker|cost …] [--passes 2] [--seconds 20]

``clip`` runs everything as ``launch.py --headless`` does, on the demo clip (a woman goes from sad through crying and
surprise to happy), with a rule of 1.5 s, and listens as anybody can. ``flicker`` is an hour of made-up results.
``cost`` is what the two stages take of a core and of memory while 30 results a second with one face come in.
"""

from __future__ import annotations

import argparse
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.pipeline import Running
from bench.report import Report, Value, usage
from common import media
from common.alerts.desk import Desk
from common.alerts.rules import Rule
from common.analyse import private_endpoints
from common.config import load
from common.expressions import EXPRESSIONS
from common.messages import Alert, Expression, Face, Identity, Probabilities, Result, Sample
from common.news import NewsReader, NewsWriter
from common.settings import Config
from common.transport import terminate

RULE = Rule(name="negative", min_duration_s=1.5, leave_s=2, cooldown_s=0, escalate_after_s=None)
CLIP_S = 20.0
STARTS_WITHIN_S = 180.0
WARM_UP_S = 5.0


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("parts", nargs="*", choices=["clip", "flicker", "cost", []], help="default: all")
    parser.add_argument("--passes", type=int, default=2, help="of the clip")
    parser.add_argument("--seconds", type=float, default=20.0, help="of measuring the cost")
    given = parser.parse_args(arguments)
    report = Report("alerts", "episodes on the demo clip and on flicker, and the cost of alerts and history")
    parts = given.parts or ["clip", "flicker", "cost"]
    try:
        if "clip" in parts:
            clip(report, given.passes)
        if "flicker" in parts:
            flicker(report)
        if "cost" in parts:
            cost(report, given.seconds)
    finally:
        terminate()
    report.show()
    print(f"kept in {report.save()}")
    return 0


def clip(report: Report, passes: int) -> None:
    """Watch the demo clip; each pass should open one episode, within 2 s of the rule's duration being met."""
    with _place() as config, Running(config):
        results, alerts = _watched(config, passes * CLIP_S)
    opened = [alert for alert in alerts if alert[1].event == "opened"]
    met = met_at(results)
    for number, (at, alert) in enumerate(opened, 1):
        near = min(met, key=lambda moment: abs(moment - at), default=None)
        shown = next((face for _, result in reversed(results) if _ <= at for face in result.faces), None)
        report.add(
            "clip",
            episode=number,
            text=alert.text,
            late_s=None if near is None else at - near,
            shows=shown.expression.label if shown else None,
        )
    smiling = [one for one in report.tables.get("clip", []) if one["shows"] in ("happy", "neutral")]
    spells = len(met)
    report.notes.append(
        f"clip: {passes} passes, {spells} spells of {RULE.min_duration_s:g} s, {len(opened)} episodes opened, "
        f"{len(smiling)} of them while she smiles"
    )


def met_at(results: list[tuple[float, Result]]) -> list[float]:
    """Return when the rule's duration was met without a break, by the results alone: once a spell.

    A spell ends after 2 s below the leaving threshold. A dip that breaks it here only counts back in the stage, which
    may therefore be a little earlier.
    """
    met: list[float] = []
    since: float | None = None
    calm: float | None = None
    counted = False
    for at, result in results:
        smoothed = next((face.expression.smoothed for face in result.faces), None)
        if smoothed is None:
            continue
        value = sum(getattr(smoothed, name) for name in RULE.expressions)
        if value >= RULE.min_probability:
            since, calm = since if since is not None else at, None
            if not counted and at - since >= RULE.min_duration_s:
                met.append(at)
                counted = True
        else:
            since = None
            if value < RULE.leave:
                calm = calm if calm is not None else at
                counted = counted and at - calm < RULE.leave_s
    return met


def flicker(report: Report) -> None:
    """An hour of probabilities that jump about the threshold, several ways; none may open anything."""
    ways: dict[str, Callable[[random.Random, float], float]] = {
        "half the time at 0.95, in spells of a tenth of a second": lambda dice, _: (
            0.95 if dice.random() < 0.5 else 0.05
        ),
        "0.7 for 1 s, 0.2 for 1 s": lambda _, at: 0.7 if at % 2 < 1 else 0.2,
        "around 0.5, spread 0.08": lambda dice, _: dice.gauss(0.5, 0.08),
        "0.9 for 5 s every 20 s": lambda _, at: 0.9 if at % 20 < 5 else 0.1,
    }
    rule = Rule(name="negative")  # as it is built in
    for name, value in ways.items():
        desk, dice, now, opened = Desk((rule,), ("ward",), 0.0), random.Random(1), 1e9, 0
        began = time.process_time()
        for frame in range(3600 * 10):
            at = now + frame / 10
            desk.result(_result(min(1.0, max(0.0, value(dice, at))), at), at)
            desk.tick(at)
            opened += sum(happening.event == "opened" for happening in desk.happenings())
        spent = time.process_time() - began
        report.add("an hour of flicker", way=name, episodes=opened, cpu_us_a_result=spent / 36000 * 1e6)


def cost(report: Report, seconds: float) -> None:
    """Feed both stages 30 results a second with one face; what they use of a core and of memory."""
    with (
        _place(stages=("bus", "alerts", "history")) as config,
        Running(config, only=("bus", "alerts", "history")) as run,
    ):
        writer, reader = NewsWriter(config, "conductor.bench.1"), NewsReader(config, ("stats.",))
        try:
            _feed(writer, WARM_UP_S, reader)
            before = usage(run.pids())
            _feed(writer, seconds, reader)
            after = usage(run.pids())
        finally:
            writer.close()
            reader.close()
        for name, spent in after.cpu_since(before).items():
            share = 100 * spent / (after.at - before.at)
            figures: dict[str, Value] = {"process": name, "cpu_percent": share, "memory_mb": after.memory_mb[name]}
            report.add("cost at 30 results a second, one face", **figures)


# --- inside ---


@contextmanager
def _place(stages: tuple[str, ...] = ()) -> Iterator[Config]:
    folder = Path(tempfile.mkdtemp(prefix="mien-"))
    try:
        if not stages:
            media.fetch()
        data = folder / "data"
        data.mkdir()
        for name in ("samples", "compiled", "crowd"):
            if (media.data_dir() / name).is_dir():
                (data / name).symlink_to(media.data_dir() / name)
        rule = RULE.model_dump(mode="json")
        yield load(
            overrides={
                "run_dir": str(folder / "run"),
                "endpoints": private_endpoints(folder / "run") | {"archive": None},
                "storage": {"data_dir": str(data)},
                "cameras": {"cam0": {"source": "demo"}},
                "alerts": {"rules": [rule]},
                "dashboard": {"enabled": False},
            }
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _watched(config: Config, seconds: float) -> tuple[list[tuple[float, Result]], list[tuple[float, Alert]]]:
    results: list[tuple[float, Result]] = []
    alerts: list[tuple[float, Alert]] = []
    reader = NewsReader(config, ("results.", "alerts."))
    give_up = time.monotonic() + STARTS_WITHIN_S
    until: float | None = None
    try:
        while time.monotonic() < (until or give_up):
            for _, message in reader.read(timeout_ms=50):
                if isinstance(message, Result) and message.analysed:
                    results.append((time.time(), message))
                    judged = any(face.expression.status == "ok" for face in message.faces)
                    until = until or (time.monotonic() + seconds if judged else None)
                elif isinstance(message, Alert):
                    alerts.append((time.time(), message))
    finally:
        reader.close()
    return results, alerts


def _feed(writer: NewsWriter, seconds: float, reader: NewsReader) -> None:
    begin, sent = time.monotonic(), 0
    while (passed := time.monotonic() - begin) < seconds:
        while sent < passed * 10:
            writer.publish(Sample.of(_result(0.5 + 0.4 * (sent // 30 % 2), time.time())), "cam0")
            sent += 1
        reader.read(timeout_ms=10)


def _result(negative: float, at: float) -> Result:
    spread = dict.fromkeys(EXPRESSIONS, 0.0) | {"sad": negative, "neutral": 1.0 - negative}
    probabilities = Probabilities(**spread)
    expression = Expression(
        status="ok", label="sad" if negative > 0.5 else "neutral", confidence=max(negative, 1 - negative),
        probabilities=probabilities, smoothed=probabilities,
    )  # fmt: skip
    face = Face(
        track=1, box=(10.0, 10.0, 90.0, 110.0), score=0.9,
        landmarks=((1.0, 1.0), (2.0, 1.0), (1.5, 2.0), (1.0, 3.0), (2.0, 3.0)),
        identity=Identity(status="unknown", number=1), expression=expression,
    )  # fmt: skip
    return Result(
        sender="conductor.bench.1", camera="cam0", run=1, seq=0, captured_at=at, width=640, height=360, analysed=True,
        latency_ms=0.0, timings_ms={}, media_time_s=0.0, faces=(face,),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
