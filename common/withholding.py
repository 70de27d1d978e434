"""Messages of the public protocol without anything that says who somebody is. Pure."""

from __future__ import annotations

from typing import TypeVar

from common import words
from common.messages import Alert, CameraState, Correction, Face, Identity, Message, Preview, Result

M = TypeVar("M", bound=Message)


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
        return message.model_copy(update={"source": ""})
    return message


def stranger(face: Face) -> Identity:
    """Return a face's identity with its status alone."""
    return Identity(status=face.identity.status, withheld=face.identity.withheld)


def _text(alert: Alert) -> str:
    lasted = words.clock(max(0.0, alert.at - alert.since))
    if alert.about == "offline":
        return f"Camera {alert.camera} has shown nothing for {lasted}"
    looks = "has not been seen" if alert.about == "unseen" else f"has looked {alert.label or 'unhappy'}"
    if alert.event == "closed":
        return f"Somebody on {alert.camera}: over, after {lasted}"
    return f"Somebody on {alert.camera} {looks} for {lasted} – please check"
