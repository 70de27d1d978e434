#!/usr/bin/env python3
"""Mien's command line. ``python launch.py`` starts everything; ``python launch.py --help`` lists the rest."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent


def main(argv: Sequence[str] | None = None) -> int:
    """Understand the command line and do what it says; return the exit code (2: something to put right first)."""
    foreign = foreign_package()
    if foreign is not None:
        print(foreign, file=sys.stderr)
        return 2
    arguments = parser().parse_args(argv)
    # Only now: these imports are what the check above is for.
    from common import transport
    from common.config import ConfigError
    from common.control import NoAnswer
    from common.run import RunError
    from common.rundir import RunDirError
    from common.stage import StageError, set_up_logging

    set_up_logging(arguments.verbose)
    logging.getLogger("filelock").setLevel(logging.WARNING)
    command: Callable[[argparse.Namespace], int] = arguments.function
    try:
        return command(arguments)
    except (ConfigError, RunDirError, RunError, StageError, NoAnswer, transport.TransportError) as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        transport.terminate()


def foreign_package() -> str | None:
    """Return a message when ``common``, ``models`` or ``stages`` would be somebody else's package, else None."""
    for name in ("common", "models", "stages"):
        spec = importlib.util.find_spec(name)
        found = spec.origin or next(iter(spec.submodule_search_locations or ()), "?") if spec else None
        if found is None:
            return f"Mien's package {name!r} is missing beside {ROOT / 'launch.py'}: is this copy of Mien complete?"
        if Path(found).resolve() != ROOT / name / "__init__.py":
            return (
                f"the package {name!r} that Python finds is not Mien's: {found} is in the way. Start Mien as "
                f"'python {ROOT / 'launch.py'}', take that directory out of PYTHONPATH, or use a virtual environment."
            )
    return None


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    from common import alerts_arguments, keys_arguments, pause_command, people_arguments, store_arguments

    everywhere = _everywhere()
    top = argparse.ArgumentParser(
        prog="launch.py",
        description="Mien watches faces live: who is here, and how they look. Without a command, everything starts.",
        # Of its own: its defaults must not be those of the commands, where they would undo what stands before them.
        parents=[_everywhere()],
    )
    top.set_defaults(function=_run, config=None, data_dir=None, run_dir=None, verbose=False)
    top.add_argument(
        "--source",
        metavar="SOURCE",
        help="demo, demo:crowd, webcam[:N], screen[:X,Y,W,H], a file, a folder, or an rtsp:// or http:// address",
    )
    top.add_argument("--camera", metavar="NAME", help="the camera that --source is for, or the only one to watch")
    top.add_argument("--every-frame", action="store_true", help="analyse every frame, however long it takes")
    top.add_argument("--workers", metavar="POOL=N,…", help="processes a pool: detection=2,identity=1,expression=3")
    top.add_argument("--only", type=_names, default=(), metavar="STAGE,…", help="start these stages and no others")
    top.add_argument("--without", type=_names, default=(), metavar="STAGE,…", help="do not start these stages")
    top.add_argument("--headless", action="store_true", help="no window")
    top.add_argument("--cluster", metavar="HOST:PORT", help="spread the stages over the Ray cluster there")
    top.add_argument("--duration", type=_seconds, metavar="SECONDS", help="end after this time")
    top.add_argument(
        "--record", nargs="?", const="", metavar="FILE",
        help="write down what the conductor is told and decides; without FILE: among the recordings that Mien keeps",
    )  # fmt: skip
    top.add_argument(
        "--record-biometrics", action="store_true", help="… with crops and embeddings, encrypted with the store's key"
    )
    top.add_argument("--replay", type=Path, metavar="FILE", help="decide again what was recorded, compare, and end")
    top.add_argument("--check-config", action="store_true", help="check the settings, say what would start, and end")

    commands = top.add_subparsers(title="commands", metavar="COMMAND")
    analyse = commands.add_parser("analyse", parents=[everywhere], help="every frame of a video or folder, to a file")
    analyse.add_argument("input", metavar="VIDEO|FOLDER")
    analyse.add_argument("--out", type=Path, required=True, metavar="FILE", help="results: .csv, .jsonl or .parquet")
    analyse.add_argument("--annotated", type=Path, metavar="FILE", help="a copy with boxes and words, .mp4")
    # Without a default of their own, which would undo what stands before the command.
    analyse.add_argument("--workers", default=argparse.SUPPRESS, metavar="POOL=N,…", help="as above")
    analyse.add_argument("--force", action="store_true", help="replace files that are there already")
    analyse.set_defaults(function=_analyse)
    snapshot = commands.add_parser("snapshot", parents=[everywhere], help="keep what a camera of a running Mien shows")
    snapshot.add_argument("--camera", default=argparse.SUPPRESS, metavar="NAME", help="this camera only")
    snapshot.set_defaults(function=_snapshot)
    pause_command.add_parser(commands, everywhere)
    status = commands.add_parser("status", parents=[everywhere], help="what a running Mien is doing")
    status.add_argument("--once", action="store_true", help="print one table and end")
    status.set_defaults(function=_status)
    doctor = commands.add_parser("doctor", parents=[everywhere], help="what works here, what does not, what to do")
    doctor.set_defaults(function=_doctor)
    people_arguments.add_parser(commands, everywhere)
    alerts_arguments.add_parser(commands, everywhere)
    store_arguments.add_parser(commands, everywhere)
    alerts_arguments.add_export(commands, everywhere)
    keys_arguments.add_parser(commands, everywhere)
    return top


def _everywhere() -> argparse.ArgumentParser:
    """Return what is understood before a command and after it."""
    everywhere = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    everywhere.add_argument("--config", type=Path, metavar="FILE", help="settings, a TOML file")
    everywhere.add_argument("--data-dir", type=Path, metavar="DIR", help="where Mien keeps what lasts")
    everywhere.add_argument("--run-dir", type=Path, metavar="DIR", help="sockets of this run; one a running Mien")
    everywhere.add_argument("--verbose", action="store_true", help="say more, and plain lines instead of the table")
    return everywhere


def _run(arguments: argparse.Namespace) -> int:
    if arguments.cluster is not None:
        from common.cluster import run as on_cluster

        return on_cluster.run(arguments)
    if arguments.replay is not None:
        from common import replay

        return replay.main(arguments)
    from common.run import run

    return run(arguments)


def _analyse(arguments: argparse.Namespace) -> int:
    from common import analyse

    return analyse.main(arguments)


def _snapshot(arguments: argparse.Namespace) -> int:
    from common import options, snapshots
    from common.config import load
    from common.rundir import attached

    config = attached(load(arguments.config, overrides=options.overrides_of(arguments)))
    return snapshots.command(config, arguments.camera)


def _status(arguments: argparse.Namespace) -> int:
    from common import options, status
    from common.config import load
    from common.rundir import attached

    return status.show(attached(load(arguments.config, overrides=options.overrides_of(arguments))), once=arguments.once)


def _doctor(arguments: argparse.Namespace) -> int:
    from common import doctor, options
    from common.config import load

    return doctor.examine(load(arguments.config, overrides=options.overrides_of(arguments)))


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
