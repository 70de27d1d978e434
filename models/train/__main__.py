"""Command line of training: ``python -m models.train fit|export|quantise|evaluate …``."""

import argparse
import datetime
import functools
import logging
import sys
from pathlib import Path

from rich.console import Console

from models.expression import WEIGHTS, eight_bits
from models.runtime import ModelError
from models.train.crew import SharedCrew, new_crew
from models.train.evaluate import evaluate
from models.train.export import export
from models.train.fit import Run, fit
from models.train.quantise import quantise


def _deadline(text: str) -> float:
    """Unix seconds of the next time that it is HH:MM (UTC)."""
    now = datetime.datetime.now(datetime.UTC)
    hour, minute = (int(part) for part in text.split(":"))
    then = now.replace(hour=hour, minute=minute, second=0, microsecond=0)
    return (then if then > now else then + datetime.timedelta(days=1)).timestamp()


def _crew(options: argparse.Namespace, run: Run) -> SharedCrew:
    return new_crew(options.processes, run, options.data, options.config, options.teacher)


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
    fitting.add_argument("--threads", type=int, default=2, help="threads of the first process")
    fitting.add_argument("--processes", type=int, default=1, help="fit with that many; best with one thread each")
    fitting.add_argument(
        "--compile", action="store_true", help="fuse operations: needs a C++ compiler, then takes half the time"
    )
    fitting.add_argument(
        "--teacher",
        type=Path,
        action="append",
        default=[],
        help="a finished run to learn from: its directory, or what export wrote; repeatable",
    )
    fitting.add_argument(
        "--start",
        type=Path,
        help="weights to start from instead of random ones, of a network with as many blocks or more: a run, as above",
    )
    exporting = commands.add_parser("export", help="write a run's averaged weights as ONNX, calibrated")
    exporting.add_argument("--run", type=Path, required=True, help="directory of the run, or what --start wrote")
    exporting.add_argument("--data", type=Path, required=True, help="directory with fer_val.npz, for the temperature")
    exporting.add_argument("--out", type=Path, default=WEIGHTS, help="file to write")
    exporting.add_argument("--start", type=Path, help="also write the weights for `fit --start` to this file")
    exporting.add_argument(
        "--favour-rare",
        type=float,
        default=0.0,
        metavar="SHARE",
        help="0 to 1: take away what the "
        "network knows of how rare an expression is; more recall of rare ones, less accuracy",
    )
    quantising = commands.add_parser("quantise", help="write a model file in eight bits beside it, if it stays as good")
    quantising.add_argument("--data", type=Path, required=True, help="directory with fer_train.npz and fer_val.npz")
    quantising.add_argument("--model", type=Path, default=WEIGHTS, help="ONNX file")
    evaluating = commands.add_parser("evaluate", help="print every figure about a model file")
    evaluating.add_argument("--data", type=Path, required=True, help="directory with fer_val.npz")
    evaluating.add_argument("--model", type=Path, default=WEIGHTS, help="ONNX file; its eight bits are judged, too")
    evaluating.add_argument("--baseline", type=Path, help="emotion_model_quantized.tflite of the package fer")
    evaluating.add_argument("--plots", type=Path, help="directory for the plots")
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S", stream=sys.stdout)
    try:
        _run(options)
    except (ValueError, FileNotFoundError, FloatingPointError, ModelError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace) -> None:
    if options.command == "fit":
        scores = fit(
            options.data,
            options.config,
            options.out,
            deadline=options.finish_at,
            threads=options.threads,
            start=options.start,
            compiled=options.compile,
            taught_by=options.teacher,
            crew=functools.partial(_crew, options) if options.processes > 1 else None,
        )
        print(scores)
    elif options.command == "export":
        temperature = export(options.run, options.data, options.out, options.start, options.favour_rare)
        print(f"{options.out}: {options.out.stat().st_size / 1e6:.2f} MB, temperature {temperature:.3f}")
        _quantise(options.out, options.data)
    elif options.command == "quantise":
        _quantise(options.model, options.data)
    else:
        width = None if sys.stdout.isatty() else 120
        evaluate(options.data, options.model, options.baseline, options.plots, Console(width=width))


def _quantise(onnx: Path, data: Path) -> None:
    found = quantise(onnx, data)
    verdict = "" if found.accepted else ": not written, that is too much"
    print(f"{eight_bits(onnx)}: from {found.before} to {found.after}{verdict}")


if __name__ == "__main__":
    sys.exit(main())
