"""What works on this machine, what does not, and what to do about it."""

from __future__ import annotations

import errno
import logging
import os
import platform
import shlex
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import psutil

from common import media, probe
from common.desktop import screen_problem
from common.endpoints import listening, parse, remote
from common.keys import KeyRing, KeysError
from common.page.certificate import certificate_problem
from common.settings import POOLS, Config
from common.sources import SourceError, SourceSpec, parse_source, webcam_present

_CAMERA_S = 20.0
_BROKER_S = 5.0
_WEBCAM_S, _SCREEN_S, _MODEL_S = 10.0, 10.0, 60.0
_ROOM_MB = 500
_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the answer.

    Attributes:
        text: what was found, and what to do if that is not well.
        needed: the default run cannot do without it.
    """

    what: str
    ok: bool
    text: str
    needed: bool = True


def examine(config: Config) -> int:
    """Print a line a check; return 1 when something fails that the default run needs, else 0."""
    failed = 0
    # Looks that take time run beside each other, in child processes; the lines come in a fixed order.
    with ThreadPoolExecutor(4) as pool:
        for part in [pool.submit(_listed, check, config) for check in CHECKS]:
            for line in part.result():
                failed += line.needed and not line.ok
                optional = "" if line.ok or line.needed else " (not needed)"
                print(f"{'✓' if line.ok else '✗'} {line.what}{optional}: {line.text}", flush=True)
    print(f"{failed} of these must be put right first" if failed else "Mien can run here: python launch.py")
    return 1 if failed else 0


def system(config: Config) -> Iterator[Check]:
    """The interpreter and the system."""
    yield Check(
        what="system", ok=True, text=f"Python {platform.python_version()}, {platform.system()} {platform.release()}"
    )


def cameras(config: Config) -> Iterator[Check]:
    """Every configured camera, opened; whether it is well while Mien runs, ``status`` tells."""
    for name in config.own_cameras:
        spec = _source(config.cameras[name].source)
        if spec is not None and spec.kind in ("demo", "crowd"):
            continue  # see sample media
        shown, what = "" if spec is None else f"{spec.description}: ", f"camera {name}"
        if _running(config):
            yield Check(what=what, ok=True, text=f"{shown}used by the Mien that is running, see status")
            continue
        found = probe.ask(config, "camera", name, timeout_s=_CAMERA_S)
        yield Check(what=what, ok=found.ok, text=f"{shown}{found.text}")


def _source(text: str) -> SourceSpec | None:
    try:
        return parse_source(text)
    except SourceError:
        return None


def webcams(config: Config) -> Iterator[Check]:
    """Every webcam, opened."""
    if webcam_present() is False:
        yield Check(
            what="webcam", ok=True, text="none here: the demo clip is shown; others: --source screen, a file, a URL"
        )
        return
    numbers = sorted(
        int(path.name.removeprefix("video"))
        for path in Path("/dev").glob("video[0-9]*")
        if path.name.removeprefix("video").isdigit() and _gives_pictures(path.name)
    )
    used = {_source(camera.source) for camera in config.cameras.values()} if _running(config) else set()
    for number in numbers or range(2):
        if _source(f"webcam:{number}") in used:
            continue  # by the Mien that is running
        found = probe.ask(config, "webcam", str(number), timeout_s=_WEBCAM_S)
        yield Check(what=f"webcam {number}", ok=found.ok, text=found.text, needed=False)


def _gives_pictures(device: str) -> bool:
    """Whether a video device is more than the second one of a webcam, which tells about its pictures (Linux)."""
    try:
        return Path("/sys/class/video4linux", device, "index").read_text(encoding="ascii").strip() == "0"
    except OSError:
        return True


def screen(config: Config) -> Iterator[Check]:
    """A screen for the window, and to take pictures of."""
    problem = screen_problem()
    if problem is not None:
        yield Check(what="screen", ok=False, text=f"{problem}; the terminal shows the live table", needed=False)
        return
    found = probe.ask(config, "screen", timeout_s=_SCREEN_S)
    yield Check(what="screen", ok=found.ok, text=f"a window can be shown; {found.text}", needed=False)


def models(config: Config) -> Iterator[Check]:
    """Every model, loaded and run once."""
    for stage in POOLS:
        found = probe.ask(config, "model", stage, timeout_s=_MODEL_S)
        yield Check(what=f"{stage} model", ok=found.ok, text=found.text)


def sample_media(config: Config) -> Iterator[Check]:
    """The clips of the demo."""
    folder = config.storage.data_dir / "samples"
    missing = [name for name in media.SAMPLES if not os.path.isfile(folder / name)]
    if missing:
        text = f"{len(missing)} of {len(media.SAMPLES)} files are not in {folder}; the demo fetches them when it starts"
        command = "python -m common.media"
        if config.storage.data_dir != media.data_dir():
            command = f"MIEN_DATA_DIR={shlex.quote(str(config.storage.data_dir))} {command}"
        yield Check(what="sample media", ok=False, text=f"{text}, or now: {command}", needed=False)
    else:
        yield Check(what="sample media", ok=True, text=f"in {folder}")


def ports(config: Config) -> Iterator[Check]:
    """Addresses that a run listens on: free, ours, or whose."""
    for channel in ("news_in", "news_out", "previews"):
        endpoint = config.endpoint(channel)
        if remote(endpoint) and not KeyRing(config.keys_dir).listens():
            continue  # another machine listens there
        place = parse(listening(endpoint))
        if place is None:
            continue
        host, port = place
        module = f"stages.{'preview' if channel == 'previews' else 'bus'}"
        yield _port(config, host, port, f"port {port} ({channel})", module, f"endpoints.{channel}")


def page(config: Config) -> Iterator[Check]:
    """The page's port: free, ours, or whose. Its certificate: can be used."""
    settings = config.dashboard
    if settings.enabled:
        what = f"port {settings.port} (dashboard)"
        yield _port(config, settings.host, settings.port, what, "stages.dashboard", "dashboard.port")
        if settings.tls_cert is not None:
            problem = certificate_problem(settings)
            text = problem or f"{settings.tls_cert}, the page is served with https"
            yield Check(what="certificate (dashboard)", ok=problem is None, text=text)


def _port(config: Config, host: str, port: int, what: str, module: str, setting: str) -> Check:
    """Whether the stage of that module can listen there."""
    try:
        holder = _holder(host, port)
    except OSError as error:  # no address of this machine, no right to a low port, …
        why = error.strerror or str(error)
        section = setting.partition(".")[0]
        return Check(what=what, ok=False, text=f"cannot listen on {host}: {why}; change the address ({section})")
    if holder is None:
        return Check(what=what, ok=True, text="free")
    if _running(config) and (holder == "" or module in holder):
        return Check(what=what, ok=True, text="used by the Mien that is running")
    by = f" by {holder}" if holder else ""
    return Check(what=what, ok=False, text=f"in use{by}: end that program, or set {setting} to another port")


def keys(config: Config) -> Iterator[Check]:
    """What other machines can reach opens with keys: is there one here, and is the other machine to be found."""
    found = parse(config.endpoint("news_out"))
    if found is None or not remote(config.endpoint("news_out")):
        yield Check(what="other machines", ok=True, text="none can connect: all endpoints are on this one")
        return
    ring = KeyRing(config.keys_dir)
    try:
        own = ring.own()
    except KeysError as error:
        yield Check(what="key", ok=False, text=str(error))
        return
    advice = "where the bus runs: python launch.py keys make NAME --role ROLE; here: python launch.py keys import FILE"
    text = f"{own.name}, for {', '.join(own.roles)}" if own else f"none in {ring.folder}; {advice}"
    yield Check(what="key", ok=own is not None, text=text)
    try:
        socket.getaddrinfo(*found)
    except OSError as error:
        text = f"has no address ({error.strerror or error}): name it in /etc/hosts or the DNS, or write its address"
        yield Check(what=f"host {found[0]}", ok=False, text=text)
    else:
        yield Check(what=f"host {found[0]}", ok=True, text="has an address")


def alerts(config: Config) -> Iterator[Check]:
    """Rules: is there somebody of each name that they are for."""
    if not any(rule.people or rule.not_people for rule in config.alerts.rules):
        return
    from common import people  # SQLAlchemy takes a while, and only those who name people need it
    from common.store import Store, StoreError

    there: set[str] = set()
    place = config.storage.place
    if place.url is not None or os.path.exists(place.file):  # else nobody is enrolled yet
        try:
            # What a running Mien has just written is beside the file yet: to be read only with SQLite's own files.
            writable = place.url is not None or os.access(config.storage.data_dir, os.W_OK)
            with Store(place, who="doctor", only_read=not writable, make=False) as store:
                for person in people.everybody(store):
                    there |= {people.name_key(person.name), f"#{person.id}"}
        except StoreError as error:
            yield Check(
                what="people", ok=False, text=f"whom alert rules are for cannot be looked up: {error}", needed=False
            )
            return
    for rule in config.alerts.rules:
        for name in dict.fromkeys((*rule.people, *rule.not_people)):
            if people.name_key(name) not in there:
                text = f"names {name!r}: nobody is called so (python launch.py people list)"
                yield Check(what=f"alert rule {rule.name!r}", ok=False, text=text, needed=False)


def notifications(config: Config) -> Iterator[Check]:
    """Whom alerts are told to: addresses that can be understood, and a broker that lets us in."""
    if config.notifications.targets:
        from common import notify  # apprise takes 35 MB

        logging.getLogger("apprise").setLevel(logging.CRITICAL)  # it would show the address, which has the password
        for name, address in config.notifications.targets.items():
            problem = notify.problem(address)
            text = problem or "the address is understood; the Alerts page sends a test"
            yield Check(what=f"notifications to {name}", ok=problem is None, text=text)
    if config.mqtt.url is not None:
        from common import mqtt_sender

        try:
            problem = mqtt_sender.problem(config.mqtt, timeout_s=_BROKER_S)
        except OSError as error:
            problem = f"the certificates of mqtt.ca, cert and key cannot be used: {error}"
        text = f"{config.mqtt.broker()}: {problem or 'it lets us in'}"
        yield Check(what="MQTT broker", ok=problem is None, text=text)


def storage(config: Config) -> Iterator[Check]:
    """The data directory: can be written to, has room. The run directory: can be made."""
    for what, folder, setting in (
        ("data directory", config.storage.data_dir, "--data-dir"),
        ("run directory", config.run_dir, "--run-dir"),
    ):
        # Of what lies in a directory that one may not enter nothing is known: that directory is then what is tried.
        existing = next(path for path in (folder, *folder.parents) if os.path.exists(path))
        try:
            with tempfile.TemporaryFile(dir=existing):
                pass
        except OSError as error:
            text = f"{folder} cannot be written to ({error.strerror or error}): choose another with {setting} DIR"
            yield Check(what=what, ok=False, text=text)
            continue
        free_mb = shutil.disk_usage(existing).free / 2**20
        text = f"{folder}, {free_mb / 1024:.1f} GB free"
        if what == "data directory" and free_mb < _ROOM_MB:
            yield Check(what=what, ok=False, text=f"{text}: make room, {_ROOM_MB} MB are wanted, or {setting} DIR")
        else:
            yield Check(what=what, ok=True, text=text)


def processor(config: Config) -> Iterator[Check]:
    """What computes, and how well."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory_gb = psutil.virtual_memory().available / 2**30
    yield Check(
        what="machine", ok=cores >= 2 and memory_gb >= 1, needed=False,
        text=f"{cores} cores, {memory_gb:.1f} GB of memory available"
        + ("" if cores >= 2 and memory_gb >= 1 else ": two cores and 1 GB are wanted; give less with --workers"),
    )  # fmt: skip
    found = probe.ask(config, "processor", timeout_s=_MODEL_S)
    flags = _flags()
    known = f" ({', '.join(flag for flag in _FLAGS if flag in flags) or 'no AVX2'})" if flags else ""
    yield Check(what="processor", ok=found.ok, text=found.text + known)
    tool = shutil.which("nvidia-smi")
    if tool is not None:
        yield Check(what="NVIDIA GPU", ok=True, text=f"{tool} is here; used for training, inference stays on the CPU")


CHECKS: tuple[Callable[[Config], Iterator[Check]], ...] = (
    system, processor, cameras, webcams, screen, models, sample_media, ports, page, keys, alerts, notifications,
    storage,
)  # fmt: skip


def _listed(check: Callable[[Config], Iterator[Check]], config: Config) -> list[Check]:
    return list(check(config))


def _flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return set()  # other systems do not tell this way
    line = next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), "")
    return set(line.partition(":")[2].split())


def _running(config: Config) -> bool:
    try:
        return psutil.pid_exists(int((config.run_dir / "pid").read_text(encoding="ascii")))
    except (OSError, ValueError):
        return False


def _holder(host: str, port: int) -> str | None:
    """Return who listens there, "" if that cannot be told, None if nobody does. Raises OSError: nobody here could."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as attempt:
        if sys.platform != "win32":
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            attempt.bind((host.strip("[]").replace("*", "0.0.0.0"), port))
            return None
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
    try:
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
            if listens and connection.pid:
                process = psutil.Process(connection.pid)
                return f"process {connection.pid} ({' '.join(process.cmdline()[:4]) or process.name()})"
    except (psutil.Error, OSError):
        return ""  # only the administrator may ask on some systems
    return ""
