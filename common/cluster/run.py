"""``launch.py --cluster ADDRESS``: a run whose processes are spread over a Ray cluster."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

from common import options
from common.cluster.placement import check_places
from common.cluster.view import View
from common.config import ConfigError
from common.desktop import screen_problem
from common.plan import plan
from common.run import RunError, end_on_signals, say
from common.rundir import RunDir
from common.settings import POOLS, Config

_REACH_S: Final = 5.0
_NODES: Final = "docs/deployment.md says how its nodes are started"


def run(arguments: argparse.Namespace) -> int:
    """Place the stages on the cluster and keep them there until somebody ends it; return the exit code.

    Raises:
        ConfigError, RunDirError, RunError: it cannot begin.
    """
    for option, given in (
        ("--record", arguments.record is not None),
        ("--record-biometrics", arguments.record_biometrics),
        ("--replay", arguments.replay is not None),
    ):
        if given:
            raise ConfigError(f"{option} works on one machine only: leave out --cluster, or leave out {option}")
    config = _settled(arguments)
    screen = not arguments.headless and screen_problem() is None
    specs = plan(config, only=arguments.only, without=arguments.without, screen=screen)
    check_places(specs, config.cluster)
    if arguments.check_config:
        print(f"the configuration is right; it places: {', '.join(spec.name for spec in specs)}")
        return 0
    if arguments.verbose:
        specs = [dataclasses.replace(spec, arguments=(*spec.arguments, "--verbose")) for spec in specs]
    ends_at = time.monotonic() + (arguments.duration or float("inf"))
    stop = threading.Event()
    with RunDir(config) as place, _connected(arguments.cluster, config):
        end_on_signals(stop)  # only now: Ray had put handlers of its own there
        from common.cluster.engine import Engine

        engine = Engine(config, specs, say)
        view = View(config, place.config_file, table=not arguments.verbose)
        try:
            engine.start()
            while not stop.is_set() and engine.failure is None and not engine.complete and time.monotonic() < ends_at:
                engine.turn()
                if engine.connected:
                    view.turn(engine)
        finally:
            view.close()
            engine.stop()
    if engine.failure is not None:
        say(engine.failure)
        return 2
    return 0


def _settled(arguments: argparse.Namespace) -> Config:
    """Return the checked configuration. On a cluster a pool may begin with none, and then grow."""
    config = options.settled(arguments, tell=say)
    # The plan needs one process of each pool as the pattern of all; how many there are is the engine's business.
    counts = {pool: min(max(1, getattr(config.workers, pool)), getattr(config.cluster, pool).maximum) for pool in POOLS}
    return config.model_copy(update={"workers": config.workers.model_copy(update=counts), "shared_memory": False})


def reach(address: str) -> str:
    """Return this machine's own address as the cluster sees it.

    Raises:
        ConfigError: that is no address.
        RunError: nobody answers there.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ConfigError(f"--cluster {address}: write HOST:PORT, as 'ray start --head' printed it")
    try:
        with socket.create_connection((host, int(port)), timeout=_REACH_S) as connection:
            there, own = connection.getpeername()[0], str(connection.getsockname()[0])
    except OSError as error:
        raise RunError(
            f"no cluster answers at {address} ({error.strerror or error}): is it running? {_NODES}"
        ) from None
    # A machine with several addresses calls itself by the one that the cluster's first node has, if that is here.
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6 if ":" in there else socket.AF_INET) as mine:
        mine.bind((there, 0))
        return str(there)
    return own


@contextlib.contextmanager
def _connected(address: str, config: Config) -> Iterator[None]:
    """Connect to the cluster for as long as the ``with`` block lasts; it ends what was placed, whatever happens."""
    if importlib.util.find_spec("ray") is None:
        raise RunError("--cluster needs Ray, which is not installed: pip install 'mien[cluster]', on every node")
    own = reach(address)
    # Read when Ray is imported, and then never again.
    if os.environ.setdefault("RAY_AUTH_MODE", "token").lower() != "token":
        raise RunError("a cluster without tokens lets everybody run programs on it: set RAY_AUTH_MODE=token everywhere")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    settings: dict[str, Any] = {
        "address": address,
        "namespace": f"mien-{config.cluster.name}",
        "_node_ip_address": own,
        "log_to_driver": False,  # what the stages say comes with the reports
        "configure_logging": False,
    }
    logging.getLogger("ray").setLevel(logging.WARNING)
    try:
        ray.init(**settings)
    except ray.exceptions.AuthenticationError as error:
        told = str(error).partition(". ")[0]
        raise RunError(
            f"the cluster at {address} does not let us in: {told}. {_NODES}, and where the token is"
        ) from error
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise RunError(
            f"cannot join the cluster at {address} as {own} ({str(error).splitlines()[0]}): is this machine one of its "
            f"nodes, and has it the same token as the others? {_NODES}"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
