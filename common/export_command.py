"""What ``python launch.py export`` does: history as CSV, JSON lines or Parquet."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import datetime, timedelta

from common import exports, history_store, options, people
from common.config import load
from common.exports import ExportError
from common.history_store import HistoryError, Subject
from common.ledger import Ledger, LedgerError
from common.people import PeopleError
from common.rundir import attached
from common.settings import Config
from common.store import Store, StoreError
from common.tables import TableError


def main(arguments: argparse.Namespace) -> int:
    """Do what the command line says; return the exit code (2: it could not be done)."""
    try:
        config = settled(arguments)
        begin, end = moment(arguments.begin), moment(arguments.end, end=True)
        if end <= begin or arguments.step < 1:
            raise ExportError("--to must be after --from, and --step at least 1")
        with (
            Store(config.storage.place, who="export") as store,
            Ledger(config.storage.place) as ledger,
        ):
            wanted = [Subject(person=people.find(store, who).id) for who in arguments.person]
            wanted += [Subject(unknown=number) for number in arguments.unknown]
            chosen = wanted or history_store.subjects(ledger, begin, end, consent_at=time.time())
            count = exports.write(
                ledger, arguments.out, chosen, begin, end, step_s=arguments.step, force=arguments.force
            )
            with store.write() as connection:
                numbers = ", ".join(f"#{one.person}" if one.person else f"unknown {one.unknown}" for one in chosen)
                store.audit(connection, "exported history", f"{count} rows of {numbers or 'nobody'}")
    except (ExportError, HistoryError, LedgerError, PeopleError, StoreError, TableError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{count} rows of {len(chosen)} people written to {arguments.out}")
    return 0


def settled(arguments: argparse.Namespace) -> Config:
    """Return the configuration of the run that goes on, or that of the command line."""
    config = load(arguments.config, overrides=options.overrides_of(arguments))
    running = attached(config)
    return running if running.storage.data_dir == config.storage.data_dir else config


def moment(text: str, *, end: bool = False) -> float:
    """Return unix seconds of a day, a time or ``8h`` ago; a day ends at its end. Raises ExportError: none of these."""
    now = time.time()
    if text == "now":
        return now
    units = {"m": 60, "h": 3600, "d": 86400}
    if text[-1:] in units and text[:-1].replace(".", "", 1).isdigit():
        return now - float(text[:-1]) * units[text[-1]]
    for form in ("%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M", "%Y-%m-%dT%H:%M:%S"):
        try:
            found = datetime.strptime(text, form)
        except ValueError:
            continue
        if end and form == "%Y-%m-%d":
            found += timedelta(days=1)  # of the calendar: a day may have 23 or 25 hours
        return found.timestamp()
    raise ExportError(f"{text!r} is no time: write 2027-03-31, 2027-03-31T08:00, 90m, 8h or 7d (ago), or now")
