"""What is said of an episode: what was seen, for how long, and the wish that somebody looks. Never a diagnosis."""

from __future__ import annotations

import time

from common import words
from common.alert_store import Event
from common.alerts.episode import Live
from common.alerts.presence import SHOWS
from common.alerts.rules import Party

SAYS_UNASSESSED_S = 5.0  # shorter gaps are not worth a word
CHECK = "please check"


def who(party: Party, camera: str, *, names: bool = True) -> str:
    """Return whom it is about, as a sentence begins."""
    if party.person is not None:
        return words.one_line(party.name or f"Person {party.person}") if names else f"A {party.role or 'person'}"
    if party.number is not None:
        return f"Unknown person {party.number}"
    return f"Camera {camera}" if party.track is None else f"Somebody on {camera}"


def moment(at: float, now: float) -> str:
    """Return a moment in local time, with its day unless that is today."""
    then = time.localtime(at)
    today = then[:3] == time.localtime(now)[:3]
    return time.strftime("%H:%M" if today else "%Y-%m-%d %H:%M", then)


def text(live: Live, event: Event, at: float, *, names: bool = True) -> str:
    """Return what is said of a step."""
    subject, lasted = who(live.party, live.camera, names=names), words.clock(at - live.began_at)
    if live.rule.about == "offline":
        if event == "closed":
            again = live.closed_why in (None, SHOWS)
            return f"{subject}{' shows something again' if again else f': {live.closed_why}'}, after {lasted}"
        return f"{subject} has shown nothing for {lasted} – {CHECK}"
    if live.rule.about == "unseen":
        if event == "closed":
            return f"{subject}: {live.closed_why or 'seen again'}, after {lasted}"
        where = "is followed and" if live.followed else "is there, but"
        return f"{subject} {where} the face has not been seen for {words.clock(live.counted_s)} – {CHECK}"
    looks = " or ".join(live.looks) or "unhappy"
    if event == "closed":
        return f"{subject}: {live.closed_why or 'over'}, after {lasted}"
    said = f"{subject} has looked {looks} for {words.clock(live.counted_s)}"
    if live.unassessed_s >= SAYS_UNASSESSED_S:
        said += f", and could not be assessed for {words.clock(live.unassessed_s)}"
    if event == "escalated":
        said += ", and nobody has answered"
    return f"{said} – {CHECK}"
