"""Reading the configuration: one TOML file, checked as a whole before anything starts.

The order of authority: defaults, the file, environment variables (``MIEN_DETECTION__INPUT_LONG_SIDE=480``), the
command line. An error names the key, the value that came, and what would be right. The keys are in `common.settings`.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from common.alerts.rules import Rule
from common.settings import CameraConfig, Config


class ConfigError(ValueError):
    """The configuration cannot be used; the text lists every wrong key with its value and what would be right."""


def load(
    path: Path | None = None,
    *,
    overrides: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Config:
    """Return the checked configuration.

    Args:
        path: a TOML file (or the JSON that ``save`` wrote); None for defaults.
        overrides: nested settings that win over everything, as the command line gives them.
        environment: variables to read instead of the process's own.

    Raises:
        ConfigError: the file cannot be read, or a setting is wrong.
    """
    settings: dict[str, Any] = {}
    if path is not None:
        settings = _read(path)
    named = settings.get("cameras")
    names = tuple(named) if isinstance(named, dict) else ()
    _merge(settings, _from_environment(os.environ if environment is None else environment, names))
    _merge(settings, dict(overrides or {}))
    try:
        return Config.model_validate(settings)
    except ValidationError as error:
        where = f" in {path}" if path else ""
        lines = [f"the configuration{where} cannot be used:"]
        for problem in error.errors(include_url=False):
            key = ".".join(str(step) for step in problem["loc"]) or "(whole)"
            given = " is missing" if problem["type"] == "missing" else f" = {_shown(problem['input'])}"
            lines.append(f"  {key}{given}: {_advice(problem, Config)}")
        raise ConfigError("\n".join(lines)) from error


def save(config: Config, path: Path) -> None:
    """Write a configuration that ``load`` reads back unchanged (JSON, in one step), for nobody else to read."""
    temporary = path.with_name(path.name + ".part")
    temporary.unlink(missing_ok=True)  # passwords are in it: it has its mode from the beginning
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(config.model_dump_json(indent=1))
    os.replace(temporary, path)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"there is no configuration file {path}: create it, or leave --config out") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"the configuration file {path} cannot be read: {error}") from error
    try:
        settings: Any = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except ValueError as error:
        raise ConfigError(f"the configuration file {path} is not valid: {error}") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"the configuration file {path} holds no settings")
    return settings


def _from_environment(environment: Mapping[str, str], cameras: Sequence[str]) -> dict[str, Any]:
    """What variables say; ``cameras`` are the names in the file, which may have capitals."""
    settings: dict[str, Any] = {}
    for variable, text in environment.items():
        # MIEN_DATA_DIR is the short way to say storage.data_dir; it moves everything Mien keeps.
        if variable == "MIEN_DATA_DIR":
            storage = settings.setdefault("storage", {})
            if not isinstance(storage, dict):
                raise ConfigError("the environment variables MIEN_STORAGE and MIEN_DATA_DIR contradict each other")
            storage["data_dir"] = text
            continue
        if not variable.startswith("MIEN_"):
            continue
        given = variable.removeprefix("MIEN_").split("__")
        steps = [step.lower() for step in given]
        if steps[0] not in Config.model_fields:
            if len(steps) > 1:  # a single word may be anybody's
                known = ", ".join(f"MIEN_{name.upper()}" for name in sorted(Config.model_fields))
                raise ConfigError(f"the environment variable {variable} sets nothing; there are {known} …")
            continue
        if steps[0] == "cameras" and len(steps) > 1:
            steps[1] = next((name for name in cameras if name.lower() == steps[1]), steps[1])
        section = settings
        for step in steps[:-1]:
            section = section.setdefault(step, {})
            if not isinstance(section, dict):
                raise ConfigError(f"the environment variable {variable} and another one contradict each other")
        try:
            section[steps[-1]] = json.loads(text)
        except ValueError:
            section[steps[-1]] = text  # plain words need no quotes
    return settings


def _merge(base: dict[str, Any], extra: dict[str, Any]) -> None:
    for key, value in extra.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _merge(base[key], value)
        else:
            base[key] = value


def _shown(value: Any) -> str:
    # Without passwords, which may hold any character: to the last @, also where that hides more than it has to.
    text = re.sub(r"://.*@", "://…@", repr(value), flags=re.DOTALL)
    text = re.sub(r"(?i)(password['\"]?\s*[=:]\s*['\"]?)[^&'\"]*", r"\1…", text)
    return text if len(text) <= 80 else text[:77] + "…"


def _advice(problem: Any, model: type[BaseModel]) -> str:
    if problem["type"] == "missing":
        return f"it must be said in {_shown(problem['input'])}"
    if problem["type"] != "extra_forbidden":
        message: str = problem["msg"].removeprefix("Value error, ")
        return message.replace("a valid tuple", "a list")  # what a file calls it
    for step in problem["loc"][:-1]:
        field = model.model_fields.get(str(step))
        annotation = field.annotation if field else None
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            model = annotation
        elif step == "cameras" or model is CameraConfig:
            model = CameraConfig
        elif step == "rules":
            model = Rule
    return f"there is no such key; known here: {', '.join(sorted(model.model_fields))}"
