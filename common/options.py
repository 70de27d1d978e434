"""From the words of the command line to the configuration of a run."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from common import probe
from common.config import ConfigError, load
from common.settings import POOLS, CameraConfig, Config
from common.sources import SourceError, parse_source, webcam_present

_PROBE_S = 10.0
_NAME = "[A-Za-z0-9_-]{1,64}"


def overrides_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that the command line gives, nested as in the configuration file.

    Raises:
        ConfigError: ``--workers`` is malformed.
    """
    settings: dict[str, Any] = {}
    if getattr(arguments, "every_frame", False):
        settings["every_frame"] = True
    if getattr(arguments, "run_dir", None) is not None:
        settings["run_dir"] = str(arguments.run_dir.absolute())
    if getattr(arguments, "data_dir", None) is not None:
        settings["storage"] = {"data_dir": str(arguments.data_dir.absolute())}
    if getattr(arguments, "workers", None):
        settings["workers"] = _workers(arguments.workers)
    return settings


def settled(arguments: argparse.Namespace, *, tell: Callable[[str], None] = lambda line: None) -> Config:
    """Return the checked configuration of a run: file, environment, command line, and the cameras that it watches.

    Without any camera named anywhere, that is the webcam if there is one, else the demo clip; ``tell`` hears which.

    Raises:
        ConfigError: a setting, a camera's name or a source is wrong.
    """
    source, camera = getattr(arguments, "source", None), getattr(arguments, "camera", None)
    overrides = overrides_of(arguments)
    if source is not None and camera is not None and re.fullmatch(_NAME, camera):
        overrides["cameras"] = {camera: {"source": source}}  # a rule of the file may be for it
    config = load(getattr(arguments, "config", None), overrides=overrides)
    cameras = dict(config.cameras)
    for rule in config.alerts.rules:
        for name in sorted(set(rule.cameras) - set(cameras)):
            raise ConfigError(f"alerts: rule {rule.name!r} is for the camera {name!r}; there are: {', '.join(cameras)}")
    if source is None and camera is not None and camera not in cameras:
        raise ConfigError(
            f"--camera {camera}: no such camera is configured; there are {', '.join(cameras)} "
            "(--source makes a new one)"
        )
    if source is None and "cameras" not in config.model_fields_set:
        index = find_webcam()
        source = "demo" if index is None else f"webcam:{index}"
        tell("no webcam found: showing the demo clip" if index is None else f"watching webcam {index}")
    if source is not None:
        if camera is None and len(cameras) > 1:
            raise ConfigError(f"--source: which camera is meant? Add --camera NAME: {', '.join(cameras)}")
        camera = camera or next(iter(cameras))
        cameras = {camera: cameras.get(camera, CameraConfig()).model_copy(update={"source": source})}
    elif camera is not None:
        cameras = {camera: cameras[camera]}
    for name, settings in cameras.items():
        try:
            parse_source(settings.source)
        except SourceError as error:
            raise ConfigError(f"camera {name}: {error}") from error
    everything = config.model_dump() | {"cameras": {name: chosen.model_dump() for name, chosen in cameras.items()}}
    if config.cell.cameras is not None and camera is not None:
        everything["cell"]["cameras"] = [camera]
    # Rules for cameras that are not watched this time have nothing to look at.
    watched = [(rule, tuple(name for name in rule.cameras if name in cameras)) for rule in config.alerts.rules]
    everything["alerts"]["rules"] = [
        rule.model_dump() | {"cameras": left} for rule, left in watched if left or not rule.cameras
    ]
    try:
        return Config.model_validate(everything)
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        if problem["loc"][:1] == ("cameras",):
            raise ConfigError(f"--camera {camera!r}: a name is made of letters, digits, - and _, at most 64") from error
        raise ConfigError(f"--camera {camera}: {problem['msg'].removeprefix('Value error, ')}") from error


def find_webcam() -> int | None:
    """Return the number of the first webcam, None if there is none."""
    present = webcam_present()
    if present is False:
        return None
    if present:
        numbers = [path.name.removeprefix("video") for path in Path("/dev").glob("video[0-9]*")]
        return min(int(number) for number in numbers if number.isdigit())
    # Only opening one tells. This process stays free of OpenCV, and a driver may hang: a short-lived child asks.
    return 0 if probe.ask(Config(), "webcam", "0", timeout_s=_PROBE_S).ok else None


def _names(text: str) -> tuple[str, ...]:
    """Return the parts of a list separated by commas."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _workers(text: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for part in _names(text):
        pool, mark, count = part.partition("=")
        if not mark or pool.strip() not in POOLS or not re.fullmatch(r"[0-9]{1,4}", count.strip()):
            raise ConfigError(f"--workers {text}: write it like detection=2,expression=3; pools are {', '.join(POOLS)}")
        counts[pool.strip()] = int(count)
    return counts
