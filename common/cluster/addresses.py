"""Which channels a stage opens on its node, at which addresses, and how the others' configuration gets them. Pure."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from typing import Any, Final

from common.channels import CHANNELS
from common.settings import Config

Addresses = Mapping[str, str]  # channel → tcp://host:port

# Always needed. The others are opened where the configuration gives them an address.
_INNER: Final = ("frames", "jobs", "findings", "pictures")
_BINDERS: Final = ("bus", "conductor", "preview")


def bound_by(stage: str, config: Config, host: str) -> tuple[str, ...]:
    """Return the channels that a stage listens on in this configuration, on a node of this address."""
    if stage not in _BINDERS:
        return ()
    # Between machines requests have a channel of their own: a key opens channels, and not everybody may ask.
    always = _INNER if loopback(host) else (*_INNER, "control")
    return tuple(
        name
        for name, channel in CHANNELS.items()
        if channel.binds == stage and (name in always or getattr(config.endpoints, name) is not None)
    )


def chosen(stage: str, config: Config, host: str) -> dict[str, str]:
    """Return addresses on ``host`` for the channels that a stage listens on.

    A port that the configuration gives is kept, for others may know it; the rest are free ones.
    """
    found: dict[str, str] = {}
    place = f"[{host}]" if ":" in host else host
    for name in bound_by(stage, config, host):
        port = (getattr(config.endpoints, name) or "").rpartition(":")[2]
        found[name] = f"tcp://{place}:{port if port.isdigit() else _free_port(host)}"
    return found


def connected(config: Config, addresses: Addresses, **settings: Any) -> Config:
    """Return the configuration with these addresses in it, and ``settings`` in the place of its own."""
    changed = config.model_dump()
    changed["endpoints"] |= addresses
    return Config.model_validate(changed | settings)


def loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as holder:
        holder.bind((host, 0))
        port: int = holder.getsockname()[1]
        return port
