"""How a face is told in words: one wording for the window, the terminal, the snapshot and the page."""

from __future__ import annotations

from common.messages import Enrolling, Expression, Face, Identity

WAITING = "…"  # an answer that is still to come

REASONS = {
    "small": "too small",
    "blurred": "blurred",
    "turned": "turned away",
    "dark": "too dark",
    "bright": "too bright",
    "cut": "cut off",
    "covered": "covered",
}


def who(identity: Identity) -> str:
    """Return the name, ``unknown`` with the number it has, or ``…`` while the answer is to come."""
    if identity.status == "known":
        return one_line(identity.name or f"person {identity.person}")
    if identity.status == "unknown":
        return "unknown" if identity.number is None else f"unknown {identity.number}"
    return WAITING


def enrolling(progress: Enrolling) -> str:
    """Return how far an enrolment is and what the person should do."""
    done = f"enrolling: {progress.pictures} of {progress.wanted} pictures"
    if progress.turn is None:
        return f"{done}, keep still"
    if progress.turn == "front":
        return f"{done}, look at the camera"
    return f"{done}, turn the head slowly to the {progress.turn}"


def looks(expression: Expression) -> str:
    """Return the expression, why there is none, or ``…`` while the answer is to come."""
    if expression.status == "ok" and expression.label:
        return expression.label
    if expression.status == "cannot_assess":
        return why(expression.reason)
    return WAITING


def why(reason: str | None) -> str:
    """Return the reason for which a face cannot be assessed, in words."""
    if not reason:
        return "cannot assess"
    return REASONS.get(reason, one_line(reason.replace("_", " ")))


def tells(face: Face) -> str:
    """Return who a face is and how it looks, as ``name, expression``; ``…`` when both are to come."""
    name, word = who(face.identity), looks(face.expression)
    return WAITING if name == word == WAITING else f"{name}, {word}"


def clock(seconds: float) -> str:
    """Return a duration as ``m:ss``, or ``h:mm:ss`` from an hour on; negative ones count as none."""
    whole = int(max(0.0, seconds))
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def counted(number: int, thing: str) -> str:
    """Return ``1 face``, ``2 faces``, ``no faces``."""
    return f"{number or 'no'} {thing}{'' if number == 1 else 's'}"


def one_line(text: str) -> str:
    """Return the text without line breaks, tabs and other characters that steer a terminal."""
    return " ".join("".join(c if c.isprintable() or c == "\u200d" else " " for c in text).split())
