"""The words of ``launch.py alerts …`` and ``launch.py export``; what they do is imported when it is asked for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from common.expressions import EXPRESSIONS

THRESHOLDS = ("min_probability", "leave_probability", "min_duration_s", "leave_s", "pause_s", "cooldown_s")
_WHEN = "2027-03-31, 2027-03-31T08:00, 8h, 7d"


def add_parser(commands: Any, everywhere: argparse.ArgumentParser) -> None:
    """Put ``alerts`` and what it can do into the command line."""
    top = commands.add_parser("alerts", parents=[everywhere], help="list alerts, try other thresholds on what was seen")
    verbs = top.add_subparsers(title="what to do", metavar="WHAT", dest="verb", required=True)
    shown = verbs.add_parser("list", parents=[everywhere], help="alerts, open ones first")
    shown.add_argument(
        "--since", default="1d", metavar="WHEN", help="2027-03-31, 2027-03-31T08:00, 8h, 7d; default: 1d"
    )
    shown.add_argument("--open", action="store_true", help="only those that are open")
    shown.set_defaults(function=_alerts)
    again = verbs.add_parser("replay", parents=[everywhere], help="how many alerts other thresholds would have given")
    again.add_argument("--since", default="7d", metavar="WHEN", help="as above; default: 7d")
    again.add_argument("--until", default="now", metavar="WHEN", help="as above; default: now")
    again.add_argument("--rule", metavar="NAME", help="the rule to begin with; default: the first about expressions")
    again.add_argument("--expressions", metavar="NAME,…", help=f"some of {', '.join(EXPRESSIONS)}")
    for name in THRESHOLDS:
        option = f"--{name.removesuffix('_s').replace('_', '-')}"
        unit = "SECONDS" if name.endswith("_s") else "P"
        again.add_argument(option, dest=name, type=float, metavar=unit, help=f"{name} of the rule, instead of its own")
    again.set_defaults(function=_alerts)


def add_export(commands: Any, everywhere: argparse.ArgumentParser) -> None:
    """Put ``export`` into the command line."""
    export = commands.add_parser("export", parents=[everywhere], help="history, as a table: .csv, .jsonl or .parquet")
    export.add_argument("--out", type=Path, required=True, metavar="FILE", help="its ending says the format")
    export.add_argument(
        "--from", dest="begin", default="1d", metavar="WHEN", help="2027-03-31, 2027-03-31T08:00, 8h, 7d"
    )
    export.add_argument("--to", dest="end", default="now", metavar="WHEN", help="the same; default: now")
    export.add_argument("--person", action="append", default=[], metavar="WHO", help="name or #number; may be repeated")
    export.add_argument("--unknown", action="append", type=int, default=[], metavar="NUMBER", help="an unknown person")
    export.add_argument("--step", type=int, default=1, metavar="SECONDS", help="length of a row's time; default: 1")
    export.add_argument("--force", action="store_true", help="replace a file that is there already")
    export.set_defaults(function=_export)


def _alerts(arguments: argparse.Namespace) -> int:
    from common import alerts_command

    return alerts_command.main(arguments)


def _export(arguments: argparse.Namespace) -> int:
    from common import export_command

    return export_command.main(arguments)
