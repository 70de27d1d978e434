"""History leaves as a table; alerts are listed and replayed: the command line, on a real store."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet
import pytest

from common import exports, history_upkeep, people
from common.alerts.replay import replay
from common.alerts.rules import Rule
from common.export_command import moment
from common.exports import COLUMNS, ExportError
from common.history_gather import Batch, TrackRows
from common.history_rows import Tally, seconds
from common.history_store import Subject
from common.ledger import Ledger
from common.store import Store
from tests.common.alerts.scripted import Script, face
from tests.conftest import ROOT, stage_environment
from tests.people import reference

SAD = [0.0, 0.0, 0.1, 0.0, 0.8, 0.0, 0.1]
GLAD = [0.0, 0.0, 0.0, 0.9, 0.0, 0.0, 0.1]


def packed(seven: list[float] | None, reason: str | None = None) -> bytes:
    tally = Tally()
    tally.add(seven, reason)
    return tally.packed()


@pytest.fixture
def begin(tmp_path: Path) -> int:
    """A store with two hours of Ada (sad for 20 s, then glad, every ten minutes) and a moment of a stranger."""
    begin = int(time.time() - 7200)
    looks = [
        packed(SAD) if i % 600 < 20 else packed(None, "turned") if i % 600 < 60 else packed(GLAD) for i in range(7000)
    ]
    with Store(tmp_path) as store:
        people.add(store, "Ada", [reference(1)])
    with Ledger(tmp_path) as ledger, ledger.write() as connection:
        rows = [
            TrackRows(
                track=1, camera="ward", owner=(1, None), seconds=[(begin + i, look) for i, look in enumerate(looks)]
            ),
            TrackRows(track=2, camera="ward", owner=(None, 12), seconds=[(begin + i, packed(GLAD)) for i in range(30)]),
        ]
        history_upkeep.write(connection, Batch(rows=rows))
        ours, other = "negative expression", "another rule"
        for number, rule, judgement in (
            (0, ours, "useful"), (1, ours, "useful"), (2, ours, "false alarm"), (3, other, "useful"),
        ):  # fmt: skip
            connection.execute(
                "INSERT INTO episode (rule, about, camera, person_id, began_at, opened_at, closed_at, judgement, "
                "assessed_s, unassessed_s, text) VALUES "
                "(?, 'expression', 'ward', 1, ?, ?, ?, ?, 0, 0, 'Ada has looked sad')",
                (rule, begin + number * 600, begin + number * 600 + 10, begin + number * 600 + 90, judgement),
            )
    return begin


def launch(folder: Path, *arguments: str) -> tuple[int, str, str]:
    command = [sys.executable, str(ROOT / "launch.py"), *arguments, "--data-dir", str(folder)]
    command += ["--run-dir", str(folder / "run")]
    done = subprocess.run(
        command,
        env=stage_environment(COLUMNS="200"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


def test_every_format_holds_the_same_rows(begin: int, tmp_path: Path) -> None:
    found = []
    for ending in (".csv", ".jsonl", ".parquet"):
        path = tmp_path / f"ada{ending}"
        code, said, wrong = launch(
            tmp_path, "export", "--from", "4h", "--person", "Ada", "--step", "60", "--out", str(path)
        )
        assert code == 0, wrong
        assert "of 1 people" in said
        if ending == ".csv":
            with path.open(encoding="utf-8", newline="") as file:
                rows = [{k: COLUMNS[k](v) if v else None for k, v in row.items()} for row in csv.DictReader(file)]
        elif ending == ".jsonl":
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        else:
            rows = pyarrow.parquet.read_table(path).to_pylist()
        found.append(rows)
    assert found[0] == found[1] == found[2]
    assert list(found[0][0]) == list(COLUMNS)
    assert {row["name"] for row in found[0]} == {"Ada"}
    assert sum(row["present_s"] for row in found[0]) == pytest.approx(7000)
    assert sum(row["assessed_s"] for row in found[0]) == pytest.approx(7000 - 12 * 40)
    assert {row["label"] for row in found[0]} >= {"happy"}
    assert any(row["reason"] == "turned" for row in found[0])


def test_what_cannot_be_exported_is_said_and_nothing_is_replaced(begin: int, tmp_path: Path) -> None:
    path = tmp_path / "there.csv"
    path.write_text("mine", encoding="utf-8")
    for arguments, why in (
        (["--out", str(path)], "--force"),
        (["--out", str(tmp_path / "x.doc")], ".csv, .jsonl, .parquet"),
        (["--out", str(tmp_path / "x.csv"), "--person", "Nobody"], "nobody called 'Nobody'"),
        (["--out", str(tmp_path / "x.csv"), "--from", "soon"], "'soon' is no time"),
        (["--out", str(tmp_path / "x.csv"), "--from", "1h", "--to", "2h"], "--to must be after --from"),
        (["--out", str(tmp_path / "no" / "x.csv")], "cannot be written"),
    ):
        code, _, wrong = launch(tmp_path, "export", *arguments)
        assert code == 2 and why in wrong, (arguments, wrong)
    assert path.read_text(encoding="utf-8") == "mine"
    assert not (tmp_path / "x.csv").exists()


def test_alerts_are_listed(begin: int, tmp_path: Path) -> None:
    code, said, wrong = launch(tmp_path, "alerts", "list")
    assert code == 0, wrong
    assert said.count("Ada has looked sad") == 4 and "false alarm" in said
    code, said, _ = launch(tmp_path, "alerts", "list", "--open")
    assert (code, said.strip()) == (0, "no alerts")


def test_replay_tells_what_other_thresholds_would_have_given(begin: int, tmp_path: Path) -> None:
    code, said, wrong = launch(tmp_path, "alerts", "replay", "--since", "4h")
    assert code == 0, wrong
    [ada] = [line for line in said.splitlines() if "Ada" in line]
    assert [cell.strip() for cell in ada.strip("│").split("│")][1:] == ["12", "1.8", "6.63", "2 of 2"]
    assert "there were 3 alerts of this rule" in said
    code, said, _ = launch(tmp_path, "alerts", "replay", "--since", "4h", "--min-duration", "25")
    [ada] = [line for line in said.splitlines() if "Ada" in line]
    assert [cell.strip() for cell in ada.strip("│").split("│")][1] == "0"
    assert "0 of 2" in ada
    code, said, _ = launch(
        tmp_path, "alerts", "replay", "--since", "4h", "--expressions", "happy", "--min-probability", "0.5"
    )
    assert "unknown 12" in said
    for arguments, why in (
        (["--rule", "nonsense"], "'negative expression'"),
        (["--min-probability", "2"], "less than or equal to 1"),
        (["--expressions", "bored"], "angry"),
    ):
        code, _, wrong = launch(tmp_path, "alerts", "replay", *arguments)
        assert code == 2 and why in wrong, (arguments, wrong)


def test_of_somebody_who_takes_consent_back_nothing_is_said(begin: int, tmp_path: Path) -> None:
    def said() -> list[str]:
        path = tmp_path / "all.csv"
        tables = [launch(tmp_path, "alerts", *verb)[1] for verb in (("list",), ("replay", "--since", "4h"))]
        assert launch(tmp_path, "export", "--from", "4h", "--out", str(path), "--force")[0] == 0
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert any(row["unknown"] == "12" for row in rows)
        return [*tables, " ".join(row["name"] for row in rows)]

    assert all("Ada" in one for one in said())
    with Store(tmp_path) as store:
        people.change(store, "Ada", consent="refused")
    withheld = said()
    assert not any("Ada" in one for one in withheld) and "there were 0 alerts" in withheld[1]
    asked = launch(tmp_path, "export", "--from", "4h", "--person", "Ada", "--out", str(tmp_path / "ada.csv"))
    assert asked[0] == 0 and "Ada" in (tmp_path / "ada.csv").read_text(encoding="utf-8")


def test_replay_counts_as_the_live_rule_does() -> None:
    rule = Rule(name="r", min_duration_s=10, leave_s=5, pause_s=60, cooldown_s=30)
    looks = [packed(SAD)] * 30 + [packed(None, "dark")] * 20 + [packed(SAD)] * 10 + [packed(GLAD)] * 60
    found = seconds(range(len(looks)), looks)
    [one] = replay(rule, found.at, found.assessed_s, found.probabilities)
    assert (one.began_at, one.opened_at) == (0, 10)
    assert one.closed_at == 64
    assert replay(rule, found.at[:9], found.assessed_s[:9], found.probabilities[:9]) == []
    # A gap that is too long closes it, and the next one waits for the cool-down.
    found = seconds([*range(20), *range(85, 125)], [packed(SAD)] * 60)
    assert [(r.opened_at, r.closed_at) for r in replay(rule, found.at, found.assessed_s, found.probabilities)] == [
        (10, 79), (109, None),
    ]  # fmt: skip


def test_replay_opens_as_many_as_the_live_rule_when_somebody_was_away_for_longer_than_the_cool_down() -> None:
    rule = Rule(name="r", min_duration_s=10, pause_s=120, cooldown_s=600, escalate_after_s=None)
    live, sad = Script(rule), face({"sad": 0.9})
    events = live.play(60, sad, rate=1) + live.wait(7200, rate=1) + live.play(300, sad, rate=1)
    assert events == ["opened", "closed", "opened"]
    found = seconds([*range(60), *range(7260, 7560)], [packed(SAD)] * 360)
    assert len(replay(rule, found.at, found.assessed_s, found.probabilities)) == events.count("opened")


def test_a_time_is_a_day_a_moment_or_so_long_ago() -> None:
    assert moment("2h") == pytest.approx(time.time() - 7200, abs=5)
    assert moment("2027-03-31", end=True) - moment("2027-03-31") == 86400
    assert moment("2027-03-31T08:00") - moment("2027-03-31") == 8 * 3600
    with pytest.raises(ExportError, match="is no time"):
        moment("yesterday")


@pytest.fixture
def berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process lives in Berlin, where clocks are set in March and October."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "Europe/Berlin")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("day", "after", "hours"), [("2026-03-29", "2026-03-30", 23), ("2026-10-25", "2026-10-26", 25)]
)
def test_a_day_on_which_clocks_are_set_ends_at_midnight(berlin: None, day: str, after: str, hours: int) -> None:
    assert moment(day, end=True) == moment(after)
    assert moment(day, end=True) - moment(day) == hours * 3600


@pytest.mark.parametrize("step_s", [7, 420, 5400, 100_000, 604_800])
@pytest.mark.parametrize("old", [False, True])
def test_every_step_is_one_row_whatever_its_length(step_s: int, old: bool, tmp_path: Path) -> None:
    begin = 1_790_000_000 // 604_800 * 604_800  # a step of a week begins here
    with Store(tmp_path) as store:
        ada = people.add(store, "Ada", [reference(1)])
    seen = [(begin + 20 * 3600 + i, packed(SAD)) for i in range(5 * 3600)]  # over the end of a day
    seen += [(begin + day * 86400 + i, packed(SAD)) for day in (2, 4) for i in range(600)]
    with Ledger(tmp_path) as ledger:
        for track, (second, _) in enumerate(seen[::600]):
            rows = TrackRows(
                track=track, camera="ward", owner=(ada.id, None), seconds=seen[track * 600 : track * 600 + 600]
            )
            assert rows.seconds[0][0] == second
            with ledger.write() as connection:
                history_upkeep.write(connection, Batch(rows=[rows]))
        if old:
            with ledger.write() as connection:
                history_upkeep.roll_up(connection, begin + 7 * 86400)
        found = list(exports.rows(ledger, Subject(person=ada.id), "Ada", begin, begin + 604_800, step_s))
    at = [row["at"] for row in found]
    assert at == sorted(set(at))
    assert sum(row["present_s"] for row in found) == pytest.approx(len(seen), abs=0.5)
