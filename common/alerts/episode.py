"""One alert from opening to closing: what is remembered of it, and what becomes known of each step."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from common.alert_store import JUDGEMENTS, AlertError, Event, Judgement
from common.alerts.condition import Condition
from common.alerts.rules import Party, Rule

# Whom something is about: ("person", 3), ("unknown", 12), ("track", 17) or ("camera ward", 0).
Key = tuple[str, int]

# Columns of the table that a Live has under the same name.
_COLUMNS = (
    "escalated_at", "acknowledged_at", "acknowledged_by", "snoozed_until", "judgement", "judged_by", "closed_at",
    "closed_why", "label", "peak", "assessed_s", "unassessed_s", "text",
)  # fmt: skip

# What an episode keeps over a restart whatever is seen afterwards: when it was, and what people did about it.
REMEMBERED = (
    "number", "stored", "began_at", "opened_at", "escalated_at", "acknowledged_at", "acknowledged_by", "snoozed_until",
    "judgement", "judged_by", "snapshot",
)  # fmt: skip


def key_of(party: Party, camera: str) -> Key:
    """Return whom a party is: the person before the unknown person's number before the track before the camera."""
    if party.person is not None:
        return "person", party.person
    if party.number is not None:
        return "unknown", party.number
    return (f"camera {camera}", 0) if party.track is None else ("track", party.track)


@dataclass(slots=True, kw_only=True)
class Live:
    """An open episode.

    Attributes:
        number: None until it has been written down.
        looks: the one or two expressions that it is told with.
        counted_s: assessed time for which it was so; of ``unseen``, time for which no face was seen.
        followed: somebody follows the person.
        stored: whose it is in the store: person, number of an unknown person. Others change that, too.
    """

    rule: Rule
    party: Party
    camera: str
    began_at: float
    opened_at: float
    number: int | None = None
    escalated_at: float | None = None
    acknowledged_at: float | None = None
    acknowledged_by: str | None = None
    snoozed_until: float | None = None
    judgement: Judgement | None = None
    judged_by: str | None = None
    closed_at: float | None = None
    closed_why: str | None = None
    label: str | None = None
    looks: list[str] = field(default_factory=list)
    counted_s: float = 0.0
    assessed_s: float = 0.0
    unassessed_s: float = 0.0
    peak: float | None = None
    text: str = ""
    snapshot: str | None = None
    followed: bool = False
    stored: tuple[int | None, int | None] | None = None

    def take(self, condition: Condition) -> None:
        """Take over what a condition has counted."""
        self.looks = condition.leading()
        self.label = self.looks[0] if self.looks else self.label
        self.counted_s, self.peak = condition.held_s, condition.peak
        self.assessed_s, self.unassessed_s = condition.assessed_s, condition.unassessed_s

    @property
    def owner(self) -> tuple[int | None, int | None]:
        """Whose it is: person, number of an unknown person."""
        return self.party.person, self.party.number

    def columns(self) -> dict[str, Any]:
        """Return it as a row of the table ``episode``."""
        row = {name: getattr(self, name) for name in _COLUMNS}
        memory = {"looks": self.looks, "counted_s": self.counted_s, "followed": self.followed}
        return row | {
            "rule": self.rule.name,
            "about": self.rule.about,
            "began_at": self.began_at,
            "opened_at": self.opened_at,
            "camera": self.camera,
            "person_id": self.party.person,
            "unknown_id": self.party.number,
            "track": self.party.track,
            "memory": json.dumps(memory),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """A step of an episode that is to be written down and published.

    Attributes:
        erase: nothing of the episode may be kept, nor said whom it was about.
    """

    event: Event
    live: Live
    at: float
    by: str | None = None
    why: str | None = None
    until: float | None = None
    erase: bool = False


def restored(row: Any, rule: Rule, role: str | None = None) -> Live:
    """Return an episode as it was written down: a row of ``episode`` with the person's ``name``."""
    memory = json.loads(row["memory"] or "{}")
    live = Live(
        rule=rule,
        party=Party(person=row["person_id"], name=row["name"], role=role, number=row["unknown_id"], track=row["track"]),
        camera=row["camera"],
        began_at=row["began_at"],
        opened_at=row["opened_at"],
        number=row["id"],
        looks=memory.get("looks", []),
        counted_s=memory.get("counted_s", 0.0),
        followed=memory.get("followed", False),
        stored=(row["person_id"], row["unknown_id"]),
    )
    for name in (*_COLUMNS, "snapshot"):
        setattr(live, name, row[name])
    return live


# --- what people do ---


def acknowledge(live: Live, at: float, by: str) -> Happening:
    """Somebody looks after it. Raises AlertError: somebody does already."""
    if live.acknowledged_at is not None:
        raise AlertError(f"episode {live.number} was acknowledged already, by {live.acknowledged_by}")
    live.acknowledged_at, live.acknowledged_by, live.snoozed_until = at, by, None
    return Happening(event="acknowledged", live=live, at=at, by=by)


def snooze(live: Live, at: float, by: str, minutes: float) -> Happening:
    """Be quiet for a while; then it escalates again if it is still open.

    Raises:
        AlertError: it is over, or somebody looks after it already, or that is no time.
    """
    if live.closed_at is not None:
        raise AlertError(f"episode {live.number} is over: there is nothing to snooze")
    if live.acknowledged_at is not None:
        raise AlertError(f"episode {live.number} was acknowledged, by {live.acknowledged_by}: it is quiet already")
    if not 0 < minutes <= 24 * 60:
        raise AlertError(f"snooze for more than 0 and at most {24 * 60} minutes, not {minutes:g}")
    live.snoozed_until = at + minutes * 60
    return Happening(event="snoozed", live=live, at=at, by=by, until=live.snoozed_until)


def judge(live: Live, at: float, by: str, judgement: str) -> Happening:
    """Say whether it was useful; the last word counts. Raises AlertError: no such judgement."""
    if judgement not in JUDGEMENTS:
        raise AlertError(f"an alert is judged {' or '.join(repr(one) for one in JUDGEMENTS)}, not {judgement!r}")
    live.judgement, live.judged_by = judgement, by
    return Happening(event="judged", live=live, at=at, by=by)


def escalation_due(live: Live, now: float) -> bool:
    """Whether nobody has answered in time, for the first time or again after a snooze."""
    if not live.rule.escalate_after_s or live.acknowledged_at is not None:
        return False
    if live.snoozed_until is not None:
        return now >= live.snoozed_until and (live.escalated_at is None or live.escalated_at < live.snoozed_until)
    return live.escalated_at is None and now >= live.opened_at + live.rule.escalate_after_s
