"""What MQTT is told of a camera: who is here, how the most prominent one looks, and when it is worth telling. Pure.

Times are ``time.monotonic()`` unless they are said to be unix seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from common.alert_store import Episode
from common.messages import CameraState, Face, Result
from common.withholding import stranger

HERE_S = 1.5  # a face that the detector misses for a moment is still here
REPEAT_S = 10.0  # without a change, figures are told anew after this
SILENT_S = 5.0  # a camera of which nothing is heard for so long is offline
_LONGEST = 250  # characters that Home Assistant takes as a state

NOBODY = "nobody"
CANNOT_ASSESS = "cannot assess"
PENDING = "pending"

_SHOWS = "value_json.state == 'online' and not value_json.paused"  # as Home Assistant writes it


class CameraView:
    """One camera as the broker knows it.

    Args:
        names: whether it may be told who people are.
        changes_per_s: see ``MqttConfig``.
    """

    def __init__(self, camera: str, *, names: bool, changes_per_s: float) -> None:
        self.camera = camera
        self._names = names
        self._pause_s = 1 / changes_per_s
        self._faces: dict[int, tuple[Face, float]] = {}  # by track, and when it was seen
        self._labels: dict[int, tuple[str, float | None]] = {}  # the last judgement of each
        self._state: CameraState | None = None
        self._heard_at = float("-inf")
        self._captured_at: float | None = None
        self._told: tuple[Any, ...] | None = None
        self._told_at = float("-inf")

    def result(self, result: Result, now: float) -> None:
        """Take a result in."""
        if not result.analysed:
            return
        self._captured_at = result.captured_at
        for face in result.faces:
            identity = face.identity if self._names else stranger(face)
            self._faces[face.track] = (face.model_copy(update={"identity": identity}), now)
            expression = face.expression
            if expression.status == "ok" and expression.label is not None:
                self._labels[face.track] = (expression.label, expression.confidence)
            elif expression.status == "cannot_assess":
                self._labels[face.track] = (CANNOT_ASSESS, None)
            else:  # not judged in time: what was last said of this face still holds
                self._labels.setdefault(face.track, (PENDING, None))

    def state(self, state: CameraState, now: float) -> None:
        """Take the camera's state in."""
        self._state, self._heard_at = state, now

    def due(self, now: float) -> dict[str, Any] | None:
        """Return who is here, if it is time to tell: as soon as it has changed, else now and then."""
        if now - self._told_at < self._pause_s:
            return None
        said = self.people(now)
        shape = (said["pictures"], said["people"], said["who"], said["expression"], said["track"])
        if shape == self._told and now - self._told_at < REPEAT_S:
            return None
        self._told, self._told_at = shape, now
        return said

    def people(self, now: float) -> dict[str, Any]:
        """Return who is here and how the most prominent one (the largest face) looks.

        ``pictures``: whether anybody could be seen; "nobody" means an empty room only where it is true.
        """
        for track, (_, seen) in list(self._faces.items()):
            if now - seen > HERE_S:
                del self._faces[track]
                self._labels.pop(track, None)
        here: dict[Any, Face] = {}
        for face, _ in sorted(self._faces.values(), key=lambda one: one[1]):
            here[_key(face)] = face  # of one person's tracks the one seen last
        faces = sorted(here.values(), key=lambda face: -face.box[2] * face.box[3])
        who = [_word(face, names=self._names) for face in faces]
        if not faces:
            first: dict[str, Any] = {"expression": NOBODY, "confidence": None, "name": None, "track": None}
        else:
            label, confidence = self._labels[faces[0].track]
            known = faces[0].identity.name if self._names else None
            first = {
                "expression": label,
                "confidence": None if confidence is None else round(confidence, 2),
                "name": known,
                "track": faces[0].track,
            }
        told = ", ".join(who) or NOBODY
        pictures = self.online(now)
        return {
            "people": len(faces),
            "pictures": pictures["state"] == "online" and not pictures["paused"],
            "who": told if len(told) <= _LONGEST else told[: _LONGEST - 1] + "…",
            "here": who,
            **first,
            "captured_at": self._captured_at,
        }

    def online(self, now: float) -> dict[str, Any]:
        """Return whether pictures come, and whether somebody has paused the camera."""
        if self._state is None:
            return _told("offline", reason="nothing was heard of it yet")
        if now - self._heard_at > SILENT_S and self._state.state != "ended":
            return _told("offline", reason="nothing is heard of it any more")
        state = self._state
        return _told(state.state, since=state.since, reason=state.reason, paused=state.paused)


def ended() -> dict[str, Any]:
    """Return what is said of a camera's pictures when Mien ends."""
    return _told("offline", reason="Mien has ended")


def _told(state: str, *, since: float | None = None, reason: str | None, paused: bool = False) -> dict[str, Any]:
    return {"state": state, "since": since, "reason": reason, "paused": paused}


def is_state(payload: bytes) -> bool:
    """Whether this is what Mien says of a camera's pictures, and not another program's under the same topic."""
    try:
        said = json.loads(payload)
    except ValueError:
        return False
    return isinstance(said, dict) and {*said, "paused"} == set(ended())  # which earlier versions did not say


def alert_state(camera: str, episodes: Iterable[Episode], *, names: bool) -> dict[str, Any]:
    """Return what is open on a camera: ``open`` ON or OFF, how many, and the one that waits longest."""
    mine = sorted((one for one in episodes if one.camera == camera and one.open), key=lambda one: one.opened_at)
    waiting = [one for one in mine if one.acknowledged_at is None]
    first = waiting[0] if waiting else mine[0] if mine else None
    return {
        "open": "ON" if mine else "OFF",
        "count": len(mine),
        "unacknowledged": len(waiting),
        "episode": None if first is None else first.id,
        "about": None if first is None else first.about,
        "label": None if first is None else first.label,
        "name": first.name if first is not None and names else None,
        "since": None if first is None else first.began_at,
    }


def discovery(
    camera: str, *, topic: str, prefix: str, version: str, expressions: Iterable[str]
) -> dict[str, dict[str, Any]]:
    """Return Home Assistant's discovery messages for a camera, by topic.

    Source: https://www.home-assistant.io/integrations/mqtt/#mqtt-discovery
    """
    node = "".join(c if c.isalnum() and c.isascii() else "_" for c in f"{topic}_{camera}")
    mine = f"{topic}/{camera}"
    running = {"topic": f"{topic}/status"}
    pictures = {
        "topic": f"{mine}/state",
        "value_template": "{{ 'online' if " + _SHOWS + " else 'offline' }}",
    }
    people = {"state_topic": f"{mine}/people", "json_attributes_topic": f"{mine}/people"}
    looks = [*expressions, CANNOT_ASSESS, PENDING, NOBODY]
    kinds: dict[tuple[str, str], dict[str, Any]] = {
        ("sensor", "who"): {
            "name": "Who is here", "icon": "mdi:account-group", "value_template": "{{ value_json.who }}", **people,
        },
        ("sensor", "people"): {
            "name": "People", "icon": "mdi:counter", "state_topic": f"{mine}/people", "state_class": "measurement",
            "value_template": "{{ value_json.people }}",
        },
        ("sensor", "expression"): {
            "name": "Expression", "icon": "mdi:emoticon-outline", "device_class": "enum", "options": looks,
            "value_template": "{{ value_json.expression }}", **people,
        },
        ("binary_sensor", "alert"): {
            "name": "Open alert", "device_class": "problem", "state_topic": f"{mine}/alert",
            "value_template": "{{ value_json.open }}", "json_attributes_topic": f"{mine}/alert",
            "availability": [running],
        },
        ("binary_sensor", "pictures"): {
            "name": "Pictures", "device_class": "connectivity", "entity_category": "diagnostic",
            "state_topic": f"{mine}/state", "json_attributes_topic": f"{mine}/state",
            "value_template": "{{ 'ON' if " + _SHOWS + " else 'OFF' }}", "availability": [running],
        },
    }  # fmt: skip
    common = {
        "availability": [running, pictures],
        "availability_mode": "all",
        "device": {"identifiers": [node], "name": f"Mien {camera}", "manufacturer": "Mien", "sw_version": version},
        "origin": {"name": "Mien", "sw_version": version},
    }
    return {
        f"{prefix}/{kind}/{node}/{what}/config": common | {"unique_id": f"{node}_{what}"} | entity
        for (kind, what), entity in kinds.items()
    }


def as_json(said: dict[str, Any]) -> str:
    """Return the payload of a message."""
    return json.dumps(said, ensure_ascii=False)


def _key(face: Face) -> Any:
    identity = face.identity
    if identity.status == "known" and identity.person is not None:
        return "person", identity.person
    if identity.status == "unknown" and identity.number is not None:
        return "number", identity.number
    return "track", face.track


def _word(face: Face, *, names: bool) -> str:
    identity = face.identity
    if not names or identity.status == "pending":
        return "somebody"
    if identity.status == "known":
        return identity.name or "somebody"
    return "unknown" if identity.number is None else f"unknown {identity.number}"
