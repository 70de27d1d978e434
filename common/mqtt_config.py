"""The bridge to MQTT: where the broker is, and what it is told. A section of the configuration."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Self
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

_LEVELS = re.compile(r"[^/+#\x00]+(/[^/+#\x00]+)*")  # a topic without wildcards and empty levels


class MqttConfig(BaseModel):
    """With ``url`` the stage ``mqtt`` runs."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    url: str | None = Field(
        default=None,
        description="mqtt://user:password@host:1883, mqtts://… for an encrypted connection; null: no bridge",
    )
    ca: Path | None = Field(
        default=None, description="the authority that signed the broker's certificate, PEM; null: those of the system"
    )
    cert: Path | None = Field(default=None, description="certificate of ours, PEM, for brokers that ask for one")
    key: Path | None = Field(default=None, description="its private key, PEM")
    topic: str = Field(default="mien", max_length=200, description="what all topics begin with; one for each Mien")
    discovery: str = Field(
        default="homeassistant", max_length=200, description="where Home Assistant looks for devices; empty: nowhere"
    )
    names: bool = Field(default=True, description="false: the broker is never told who somebody is")
    changes_per_s: float = Field(
        default=4, gt=0, le=30, description="who is here goes out when it changes, so often at most, for each camera"
    )
    results_per_s: float = Field(
        default=1, ge=0, le=30, description="whole results a second at most, for each camera; 0: none"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.url is not None:
            self.broker()
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key belong together: give both files, or neither")
        files = {"ca": self.ca, "cert": self.cert, "key": self.key}
        for name, path in files.items():
            if path is not None and not (self.url or "").startswith("mqtts://"):
                raise ValueError(f"{name} is for encrypted connections: write the url as mqtts://…, or leave it out")
            if path is not None and not path.is_file():
                raise ValueError(f"{name}: there is no file {path}")
        for name, topic in (("topic", self.topic), ("discovery", self.discovery)):
            if (topic or name == "topic") and not _LEVELS.fullmatch(topic):
                raise ValueError(f"{name}: words with / between, without + and #")
        return self

    def broker(self) -> Broker:
        """Return what the url says. Raises ValueError."""
        wanted = "url looks like mqtt://user:password@host:1883, or mqtts://… for an encrypted connection"
        try:
            parts = urlsplit(self.url or "")
            port = parts.port
        except ValueError:  # its text may hold a piece of the password
            raise ValueError(wanted) from None
        if parts.scheme not in ("mqtt", "mqtts") or not parts.hostname or parts.path.strip("/") or parts.query:
            raise ValueError(wanted)
        encrypted = parts.scheme == "mqtts"
        return Broker(
            host=parts.hostname,
            port=port or (8883 if encrypted else 1883),
            encrypted=encrypted,
            user=None if parts.username is None else unquote(parts.username),
            password=None if parts.password is None else unquote(parts.password),
        )


class Broker(BaseModel):
    """A broker's address; its text has no password."""

    model_config = ConfigDict(frozen=True)

    host: str
    port: int
    encrypted: bool
    user: str | None
    password: str | None = Field(repr=False)

    def __str__(self) -> str:
        return f"{'mqtts' if self.encrypted else 'mqtt'}://{self.host}:{self.port}"
