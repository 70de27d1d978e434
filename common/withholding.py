"""Messages of the public protocol without anything that says who somebody is. Pure."""

from __future__ import annotations

import re
from typing import TypeVar

from common import words
from common.messages import Alert, CameraState, Correction, Face, Identity, Message, Preview, Result, Stats

M = TypeVar("M", bound=Message)
_FILE = re.compile(r"[/\\]|\.\w*[A-Za-z]")  # a path, or a name with its ending; "1.5 s" is neither


def nameless(message: M) -> M:
    """Return a message that says the same without names and numbers of people, and without names of files."""
    if isinstance(message, Result):
        faces = tuple(face.model_copy(update={"identity": stranger(face)}) for face in message.faces)
        return message.model_copy(update={"faces": faces, "name": None})
    if isinstance(message, Preview):
        return message.model_copy(update={"result": nameless(message.result)})
    if isinstance(message, Correction):
        return message.model_copy(
            update={"was": Identity(status=message.was.status), "now": Identity(status=message.now.status)}
        )
    if isinstance(message, Alert):
        gone = dict.fromkeys(("name", "person", "number", "by", "why"))
        return message.model_copy(update={**gone, "text": _text(message)})
    if isinstance(message, CameraState):
        return message.model_copy(update={"source": "", "reason": _reason(message)})
    if isinstance(message, Stats):
        detail = {key: value for key, value in message.detail.items() if key != "source"}
        return message.model_copy(update={"detail": detail})
    return message


def stranger(face: Face) -> Identity:
    """Return a face's identity with its status alone."""
    return Identity(status=face.identity.status, withheld=face.identity.withheld)


def _reason(state: CameraState) -> str | None:
    """Return why a camera is as it is without what it reads; None where a path or a file's name may be left in it."""
    reason = state.reason
    if reason and state.source:
        reason = reason.replace(state.source, "the source")
    return None if reason and _FILE.search(reason) else reason


def _text(alert: Alert) -> str:
    lasted = words.clock(max(0.0, alert.at - alert.since))
    who = f"Camera {alert.camera}" if alert.about == "offline" else f"Somebody on {alert.camera}"
    if alert.event == "closed":
        return f"{who}: over, after {lasted}"
    if alert.about == "offline":
        return f"{who} has shown nothing for {lasted}"
    looks = "has not been seen" if alert.about == "unseen" else f"has looked {alert.label or 'unhappy'}"
    return f"{who} {looks} for {lasted} – please check"
