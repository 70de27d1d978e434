"""Addresses of channels: a text, and beside it what a socket needs to know to open it."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Self

PORTS = {
    # Where ``endpoints.host`` puts each channel.
    "news_in": 5560, "news_out": 5561, "previews": 5562, "control": 5563, "news_public": 5564,
    "frames": 5565, "jobs": 5566, "findings": 5567, "pictures": 5568,
}  # fmt: skip
_TCP = re.compile(r"tcp://(?:\[(?P<six>[0-9A-Fa-f:.%\w]+)\]|(?P<host>[^/:\[\]]+)):(?P<port>\d{1,5})")


class Endpoint(str):
    """``ipc://path`` or ``tcp://host:port``, under which a channel is reached.

    Attributes:
        keys: the directory of the keys; None: this address was given without any, and works on this machine alone.
        listen: the address to listen on instead of ``host``; None: ``host`` itself if it is an address, all of this
            machine's addresses if it is a name.
        everywhere: keys are asked for on this machine, too.
    """

    keys: Path | None = None
    listen: str | None = None
    everywhere: bool = False

    @classmethod
    def of(cls, text: str, *, keys: Path, listen: str | None, everywhere: bool) -> Self:
        """Return an endpoint with all its attributes."""
        made = cls(text)
        made.keys, made.listen, made.everywhere = keys, listen, everywhere
        return made


def parse(endpoint: str) -> tuple[str, int] | None:
    """Return host and port of a TCP endpoint, None for another or a malformed one."""
    found = _TCP.fullmatch(endpoint)
    if found is None or not 0 < int(found["port"]) < 65536:
        return None
    return found["six"] or found["host"], int(found["port"])


def is_loopback(host: str) -> bool:
    """Whether a host can be reached from this machine alone. A name other than ``localhost`` might mean any."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_address(host: str) -> bool:
    """Whether this is a number and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def remote(endpoint: str) -> bool:
    """Whether other machines can reach this endpoint."""
    place = parse(endpoint)
    return place is not None and not is_loopback(place[0])


def locked(endpoint: str) -> bool:
    """Whether this endpoint opens with keys only."""
    if remote(endpoint):
        return True
    return isinstance(endpoint, Endpoint) and endpoint.everywhere and parse(endpoint) is not None


def listening(endpoint: str) -> str:
    """Return where to listen so that others find this endpoint."""
    place = parse(endpoint)
    if place is None or not remote(endpoint):
        return str(endpoint)
    listen = endpoint.listen if isinstance(endpoint, Endpoint) else None
    if listen is None:
        listen = place[0] if is_address(place[0]) else "0.0.0.0"
    return f"tcp://[{listen}]:{place[1]}" if ":" in listen else f"tcp://{listen}:{place[1]}"
