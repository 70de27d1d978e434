"""The directory of a run: its sockets, its resolved configuration, and the lock that keeps a second run out.

What people have asked of a camera while it runs, as to pause, is in the data directory: a run that is killed, or loses
its power, goes on as they left it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from filelock import FileLock, Timeout

from common.channels import CHANNELS
from common.config import ConfigError, load, save
from common.ring import remove_rings
from common.settings import Config

CONFIG_FILE = "config.json"
_HELD = "held"  # in the data directory; in it one directory a run directory


class RunDirError(RuntimeError):
    """A run directory that cannot be used; the text says why and what to do."""


class RunDir:
    """Holds ``config.run_dir`` for one run: made for this user alone, locked, and emptied when the run ends.

    Args:
        config: the configuration of the run; saved as ``config.json`` for the stages.

    Attributes:
        config_file: where it was saved.
        broke_off: the run ends because it cannot go on, not because somebody ended it: the next one goes on as people
            left this one.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.path = config.run_dir
        self.config_file = self.path / CONFIG_FILE
        self.broke_off = False
        self._lock = FileLock(self.path / "lock", timeout=0)

    def __enter__(self) -> Self:
        """Make the directory and take the lock. Raises RunDirError: somebody else's, or another run is in it."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                self.path.mkdir(mode=0o700)
            _check_ownership(self.path)
            self._take_lock()
            self._clear()  # what a run that was killed has left
            (self.path / "pid").write_text(str(os.getpid()), encoding="ascii")
            save(self.config, self.config_file)
        except OSError as error:
            self._lock.release()
            raise RunDirError(f"{self.path} cannot be used: {error}; choose another with --run-dir DIR") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()
        if not self.broke_off and (error is None or isinstance(error, KeyboardInterrupt)):
            for directory in _held_in(self.config):
                shutil.rmtree(directory, ignore_errors=True)
        if os.name == "posix":  # while it is held: whoever waits for it sees that its file is gone, and makes a new one
            (self.path / "lock").unlink(missing_ok=True)
        self._lock.release()

    def _take_lock(self) -> None:
        try:
            self._lock.acquire()
        except Timeout:
            try:
                who = f"process {int((self.path / 'pid').read_text(encoding='ascii'))}"
            except (OSError, ValueError):
                who = "starting or ending right now"
            raise RunDirError(
                f"another Mien is running ({who}) in {self.path}: stop it, or use --run-dir DIR (and other ports, "
                "endpoints.* in the configuration) to run a second one"
            ) from None

    def _clear(self) -> None:
        for name in (*CHANNELS, CONFIG_FILE, f"{CONFIG_FILE}.part", "pid"):
            with contextlib.suppress(FileNotFoundError):
                (self.path / name).unlink()
        remove_rings(self.config)


def hold(config: Config, name: str, text: str) -> None:
    """Write down what somebody has asked for, until ``let_go`` or the orderly end of the run.

    Where the data directory cannot be written it survives a process, but perhaps not the run. Raises OSError: neither.
    """
    first, second = _held_in(config)
    try:
        _write(first, name, text)
    except OSError:
        _write(second, name, text)
    else:
        (second / name).unlink(missing_ok=True)  # of a time at which the first could not be written


def _write(directory: Path, name: str, text: str) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    part = directory / f"{name}.part"
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(directory / name)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def held(config: Config, name: str) -> str | None:
    """Return what is written down under this name, None if nothing is. Raises OSError: that cannot be told."""
    for directory in reversed(_held_in(config)):  # what is in the second place was written when the first could not be
        with contextlib.suppress(FileNotFoundError):
            return (directory / name).read_text(encoding="utf-8", errors="replace")
    return None


def let_go(config: Config, name: str) -> None:
    """Forget what is written down under this name. Raises OSError: it cannot be."""
    for directory in reversed(_held_in(config)):
        (directory / name).unlink(missing_ok=True)


def _held_in(config: Config) -> tuple[Path, Path]:
    """Where a run's word is kept: apart from other runs with the same data, or else in the run directory."""
    run = hashlib.sha256(os.fsencode(config.run_dir.absolute())).hexdigest()[:16]
    return config.storage.data_dir / _HELD / run, config.run_dir / _HELD


def _check_ownership(path: Path) -> None:
    """Raise RunDirError where what lies in a run directory may be somebody else's."""
    if os.name != "posix":
        return  # temporary directories are the user's own there
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise RunDirError(f"{path} is not a directory: remove it, or choose another with --run-dir DIR")
    if found.st_uid != os.geteuid():
        raise RunDirError(
            f"{path} belongs to another user (number {found.st_uid}), who could read and replace what Mien "
            "keeps there: choose another with --run-dir DIR, or be that user (sudo -u)"
        )
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise RunDirError(
            f"other users can write to {path}: take that right away (chmod 700), or choose another with --run-dir DIR"
        )


def attached(config: Config) -> Config:
    """Return the configuration of the run that goes on in ``config.run_dir``, or ``config`` when there is none.

    Commands that talk to a running Mien find its addresses so, however it was started.

    Raises:
        ConfigError: the directory is another user's, who could send commands to a store of theirs.
    """
    path = config.run_dir / CONFIG_FILE
    try:
        _check_ownership(config.run_dir)
        return load(path, environment={}) if path.is_file() else config
    except FileNotFoundError:
        return config
    except RunDirError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise ConfigError(
            f"{config.run_dir} cannot be looked into ({error.strerror}): be the user that Mien runs as (sudo -u), or "
            "choose another with --run-dir DIR"
        ) from error
    except ConfigError:
        return config  # it has just ended


def is_running(config: Config) -> bool:
    """Return whether a Mien runs in ``config.run_dir`` now, and did not just leave its files there."""
    try:
        _check_ownership(config.run_dir)
        if not (config.run_dir / CONFIG_FILE).is_file():
            return False
    except (RunDirError, OSError):
        return False  # there is none, or none of ours
    lock = FileLock(config.run_dir / "lock")
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True
