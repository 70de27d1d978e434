"""Open episodes that the store does not hold yet, as the news tells of them: the page shows them all the same. Pure.

While the store cannot be written, the alerts stage publishes each step after two seconds without a number, and once
more with one when it is written down (``common/alert_book.py``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from common.alert_store import Episode
from common.alerts.episode import Key, key_of
from common.alerts.rules import Party
from common.messages import Alert

Step = tuple[Any, ...]


class Unwritten:
    """Fed with alerts; keeps those that are open and have no number, as episodes of the number 0."""

    def __init__(self) -> None:
        self.episodes: list[Episode] = []
        self._told: set[Step] = set()  # without a number: they come once more
        self._sender: str | None = None

    def take(self, alert: Alert, now: float) -> bool:
        """Take a step in at ``now``, unix seconds; return whether it is news: it has not been told without a number."""
        self.stage_is(alert.sender)
        party = Party(person=alert.person, number=alert.number, track=alert.track)
        step = (alert.event, alert.rule, alert.camera, alert.since, party)
        erased = alert.about != "offline" and party == Party()  # nothing may be shown of whom it was about
        news = step not in self._told and not erased
        there = next((one for one in self.episodes if _same(one, alert, party, erased=erased)), None)
        if alert.episode or erased or alert.event == "closed":
            self._told.discard(step)
            self.episodes = [one for one in self.episodes if not _same(one, alert, party, erased=erased)]
            return news
        self._told.add(step)
        one = replace(
            _episode(alert) if there is None else there,
            camera=alert.camera, person=alert.person, name=alert.name, unknown=alert.number, track=alert.track,
            label=alert.label, text=alert.text, opened_at=now if there is None else there.opened_at,
        )  # fmt: skip
        if alert.event == "escalated":
            one = replace(one, escalated_at=now)
        self.episodes = [other for other in self.episodes if other is not there] + [one]
        return news

    def written(self, stored: Iterable[Episode]) -> None:
        """Drop what the store holds by now: these are open there."""
        there = {(one.rule, _key(one)) for one in stored}
        self.episodes = [one for one in self.episodes if (one.rule, _key(one)) not in there]

    def stage_is(self, sender: str) -> bool:
        """The alerts stage is this process: what another one has not written down is lost with it.

        Returns:
            Whether anything was.
        """
        if sender == self._sender:
            return False
        lost = bool(self.episodes)
        self.episodes, self._told, self._sender = [], set(), sender
        return lost


def _episode(alert: Alert) -> Episode:
    return Episode(
        id=0, rule=alert.rule, about=alert.about, camera=alert.camera, person=None, name=None, unknown=None, track=None,
        label=None, began_at=alert.since, opened_at=0.0, escalated_at=None, acknowledged_at=None, acknowledged_by=None,
        snoozed_until=None, judgement=None, judged_by=None, closed_at=None, closed_why=None, peak=None, assessed_s=0.0,
        unassessed_s=0.0, text="", snapshot=None,
    )  # fmt: skip


def _key(one: Episode) -> Key:
    return key_of(Party(person=one.person, number=one.unknown, track=one.track), one.camera)


def _same(one: Episode, alert: Alert, party: Party, *, erased: bool) -> bool:
    """Whether a step is of this episode. Who it is about may be known better by now; since when it is so stays."""
    if (one.rule, one.began_at) != (alert.rule, alert.since):
        return False
    return erased or _key(one) == key_of(party, alert.camera) or (one.track is not None and one.track == party.track)
