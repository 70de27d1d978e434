"""What ``python launch.py alerts …`` does: list episodes, and replay other thresholds over stored history."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime

from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from common import alert_store, history_store, words
from common.alert_store import Episode
from common.alerts import replay, wording
from common.alerts.rules import Party, Rule, applies
from common.alerts_arguments import THRESHOLDS
from common.config import ConfigError
from common.export_command import moment, settled
from common.exports import ExportError
from common.history_store import HistoryError, Subject
from common.ledger import Ledger, LedgerError
from common.settings import Config


def main(arguments: argparse.Namespace) -> int:
    """Do what the command line says; return the exit code (2: it could not be done)."""
    try:
        config = settled(arguments)
        with Ledger(config.storage.place) as ledger:
            return (_list if arguments.verb == "list" else _replay)(ledger, config, arguments)
    except (ConfigError, ExportError, HistoryError, LedgerError) as error:
        print(error, file=sys.stderr)
        return 2


def _list(ledger: Ledger, config: Config, arguments: argparse.Namespace) -> int:
    chosen = alert_store.episodes(
        ledger, begin=moment(arguments.since), is_open=True if arguments.open else None, consent_at=time.time(),
        limit=1000,
    )  # fmt: skip
    table = Table("number", "state", "since", "lasted", "what", "judged")
    for one in chosen:
        end = time.time() if one.closed_at is None else one.closed_at
        by = f", {one.acknowledged_by}" if one.acknowledged_by else ""
        lasted = words.clock(end - one.began_at)
        table.add_row(str(one.id), one.state + by, _at(one.began_at), lasted, _what(one), one.judgement or "")
    Console(markup=False, emoji=False).print(table if chosen else "no alerts")
    return 0


def _what(one: Episode) -> str:
    """Return what was seen of whom, by the name that they have now: the text that is kept has the one of then."""
    who = wording.who(Party(person=one.person, name=one.name, number=one.unknown, track=one.track), one.camera)
    if one.about == "offline":
        return f"{who} has shown nothing"
    if one.about == "unseen":
        return f"{who}: the face has not been seen"
    said = f"{who} has looked {one.label}" if one.label else one.text
    if one.unassessed_s >= wording.SAYS_UNASSESSED_S:
        said += f", {words.clock(one.unassessed_s)} of it not assessed"
    return said


def _replay(ledger: Ledger, config: Config, arguments: argparse.Namespace) -> int:
    begin, end = moment(arguments.since), moment(arguments.until, end=True)
    rule, now = _rule(config, arguments), time.time()
    there = alert_store.episodes(ledger, begin=begin, end=end, about="expression", consent_at=now, limit=100_000)
    useful = [one for one in there if one.judgement == "useful" and one.rule == rule.name]
    table = Table("who", "alerts", "hours assessed", "alerts an hour", "useful ones kept")
    total, hours, kept, judged, coarse = 0, 0.0, 0, 0, False
    people = _people(ledger)
    for subject in history_store.subjects(ledger, begin, end, consent_at=now):
        name, role = people.get(subject.person or 0, (f"unknown {subject.unknown}", None))
        party = Party(person=subject.person, name=name, role=role, number=subject.unknown)
        if not applies(rule, party, next(iter(rule.cameras), "")):
            continue
        coarse = coarse or history_store.is_old(ledger, subject, begin, end)
        found, assessed_s = _alerts(ledger, subject, rule, begin, end)
        own = [one for one in useful if (one.person, one.unknown) == (subject.person, subject.unknown)]
        still = [one for one in own if any(replay.overlaps(new, one.began_at, one.closed_at) for new in found)]
        rate = f"{len(found) / (assessed_s / 3600):.2f}" if assessed_s else "–"
        table.add_row(name, str(len(found)), f"{assessed_s / 3600:.1f}", rate, f"{len(still)} of {len(own)}")
        total, hours, kept, judged = total + len(found), hours + assessed_s / 3600, kept + len(still), judged + len(own)
    table.add_section()
    rate = f"{total / hours:.2f}" if hours else "–"
    table.add_row("all", str(total), f"{hours:.1f}", rate, f"{kept} of {judged}")
    console = Console(markup=False, emoji=False)
    console.print(
        f"{rule.name}: {'+'.join(rule.expressions)} ≥ {rule.min_probability:g} for {rule.min_duration_s:g} s, "
        f"leaves below {rule.leave:g} for {rule.leave_s:g} s, cool-down {rule.cooldown_s:g} s",
        highlight=False,
    )
    console.print(table)
    given = sum(one.rule == rule.name for one in there)
    console.print(f"there were {given} alerts of this rule in that time", highlight=False)
    if coarse:
        console.print("part of it is old and kept by the minute: a minute counts as its mean", highlight=False)
    return 0


def _alerts(
    ledger: Ledger, subject: Subject, rule: Rule, begin: float, end: float
) -> tuple[list[replay.Replayed], float]:
    """Return what the rule would have opened, and how many seconds could be assessed."""
    found = history_store.looks(ledger, subject, begin, end)
    return replay.replay(rule, found.at, found.assessed_s, found.probabilities), float(found.assessed_s.sum())


def _rule(config: Config, arguments: argparse.Namespace) -> Rule:
    rules = [rule for rule in config.alerts.rules if rule.about == "expression"]
    if arguments.rule is not None:
        rules = [rule for rule in rules if rule.name == arguments.rule]
    if arguments.rule is not None and not rules:
        names = ", ".join(repr(rule.name) for rule in config.alerts.rules if rule.about == "expression")
        raise HistoryError(f"there is no rule {arguments.rule!r} about expressions; there are: {names or 'none'}")
    changed = {name: getattr(arguments, name) for name in THRESHOLDS if getattr(arguments, name) is not None}
    if arguments.expressions is not None:
        changed["expressions"] = tuple(part.strip() for part in arguments.expressions.split(","))
    base = (rules[0] if rules else Rule(name="negative expression")).model_dump()
    if "min_probability" in changed and "leave_probability" not in changed:
        base["leave_probability"] = None  # it follows the one that was given
    try:
        return Rule.model_validate(base | changed)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"]) or "the rule"
        raise HistoryError(f"{where}: {first['msg'].removeprefix('Value error, ')}") from error


def _people(ledger: Ledger) -> dict[int, tuple[str, str | None]]:
    with ledger.read() as connection:
        rows = connection.execute("SELECT id, name, role FROM person").fetchall()
    return {row["id"]: (row["name"], row["role"]) for row in rows}


def _at(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC).astimezone():%Y-%m-%d %H:%M:%S}"
