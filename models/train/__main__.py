"""Command line of training: ``python -m models.train fit …``."""

import argparse
import datetime
import logging
import sys
from pathlib import Path

from models.train.fit import fit


def _deadline(text: str) -> float:
    """Unix seconds of the next time that it is HH:MM (UTC)."""
    now = datetime.datetime.now(datetime.UTC)
    hour, minute = (int(part) for part in text.split(":"))
    then = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return (then if then > now else then + datetime.timedelta(days=1)).timestamp()


def main(arguments: list[str] | None = None) -> int:
    """Run one command; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m models.train", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    fitting = commands.add_parser("fit", help="train a network, or go on with an interrupted run")
    fitting.add_argument("--data", type=Path, required=True, help="directory with fer_train.npz and fer_val.npz")
    fitting.add_argument("--config", type=Path, required=True, help="settings of the run, a TOML file")
    fitting.add_argument("--out", type=Path, required=True, help="directory of the run: checkpoint and log")
    fitting.add_argument(
        "--finish-at", type=_deadline, metavar="HH:MM", help="end by this time (UTC) instead of `passes`"
    )
    fitting.add_argument("--threads", type=int, default=2)
    fitting.add_argument("--start", type=Path, help="weights to start from instead of random ones")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    try:
        scores = fit(
            options.data,
            options.config,
            options.out,
            deadline=options.finish_at,
            threads=options.threads,
            start=options.start,
        )
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        print(error, file=sys.stderr)
        return 1
    print(scores)
    return 0


if __name__ == "__main__":
    sys.exit(main())
