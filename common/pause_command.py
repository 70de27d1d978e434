"""What ``python launch.py pause`` and ``resume`` do: stop watching with a camera of a running Mien, and go on."""

from __future__ import annotations

import argparse
import logging
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from common.settings import Config

WAIT_S = 5.0  # for each camera

log = logging.getLogger("mien.pause")


def add_parser(commands: Any, everywhere: argparse.ArgumentParser) -> None:
    """Put ``pause`` and ``resume`` into the command line."""
    for name, text in (
        ("pause", "nothing of a camera is shown, analysed or alerted, until it goes on"),
        ("resume", "let a camera that was paused go on"),
    ):
        parser = commands.add_parser(name, parents=[everywhere], help=text)
        parser.add_argument("--camera", default=argparse.SUPPRESS, metavar="NAME", help="this camera only")
        parser.set_defaults(function=command, do=name)


def command(arguments: argparse.Namespace) -> int:
    """Pause or resume the camera that the command line names, or all; return the exit code (1: not everywhere done)."""
    from common import control, options
    from common.config import ConfigError, load
    from common.rundir import attached

    config = attached(load(arguments.config, overrides=options.overrides_of(arguments)))
    do, wanted = arguments.do, arguments.camera
    if wanted is not None and wanted not in config.cameras:
        raise ConfigError(f"--camera {wanted}: there is no such camera; there are {', '.join(config.cameras)}")
    done: list[str] = []
    problems = 0
    for camera in config.cameras if wanted is None else (wanted,):
        try:
            reply = control.ask(config, "capture", do, timeout_s=WAIT_S, camera=camera)
            problem = None if reply.ok else reply.error or "it gave no reason"
        except control.NoAnswer as error:
            problem = str(error)
        if problem is None:
            done.append(camera)
            print(f"{camera}: {'paused' if do == 'pause' else 'goes on'}")
        else:
            problems += 1
            print(f"{camera}: {problem}", file=sys.stderr)
    if done:
        _note(config, do, done)
    return 1 if problems else 0


def _note(config: Config, do: str, cameras: list[str]) -> None:
    """Write into the audit log who has stopped watching, and when; a store that cannot be written stops nobody."""
    from common.store import Store, StoreError

    try:
        with Store(config.storage.place, who=do, make=False) as store, store.write() as connection:
            store.audit(connection, do, ", ".join(cameras))
    except StoreError as error:
        log.warning("this is not in the audit log: %s", error)
