"""Rules: what an alert is about, how long it must last, and whom it is for. Sections of the configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from common.expressions import ExpressionName
from common.messages import Name
from common.names import name_key

Who = Literal["everyone", "known", "unknown"]
RoleName = Literal["patient", "staff", "visitor"]
PersonName = Annotated[str, Field(min_length=1, max_length=100)]
Seconds = Annotated[float, Field(gt=0, le=7 * 86400)]
NEGATIVE: tuple[ExpressionName, ...] = ("angry", "disgusted", "fearful", "sad")


class Section(BaseModel):
    """A part of the configuration: nothing unknown, no NaN."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Rule(Section):
    """One rule. Times are seconds; probabilities are the smoothed ones, added up over the rule's expressions."""

    name: str = Field(min_length=1, max_length=100)
    about: Literal["expression", "unseen", "offline"] = Field(
        default="expression",
        description="how a face looks; somebody who is there, but no face to be seen; a camera without pictures",
    )
    expressions: tuple[ExpressionName, ...] = Field(default=NEGATIVE, min_length=1)
    min_probability: float = Field(default=0.6, gt=0, le=1, description="from here on the time counts")
    leave_probability: float | None = Field(
        default=None, gt=0, le=1, description="… and below this it counts back; null: 0.15 less"
    )
    min_duration_s: Seconds = Field(default=10, description="so much time opens an episode")
    leave_s: Seconds = Field(default=10, description="so much time below leave_probability closes it")
    pause_s: Seconds = Field(default=120, description="it closes when nothing could be assessed for so long")
    cooldown_s: float = Field(default=120, ge=0, le=7 * 86400, description="no other one so soon after it closed")
    escalate_after_s: float | None = Field(default=120, ge=0, description="unacknowledged for so long; 0: never")
    above_usual: float | None = Field(
        default=None, gt=0, le=1, description="fire on change: so far above what is usual for the person; null: off"
    )
    who: Who = "everyone"
    roles: tuple[RoleName, ...] = Field(default=(), description="only people of these roles; empty: all")
    people: tuple[PersonName, ...] = Field(default=(), description="only these, by name or #number; empty: all")
    not_people: tuple[PersonName, ...] = Field(default=(), description="never these, by name or #number")
    cameras: tuple[Name, ...] = Field(default=(), description="only these cameras; empty: all")
    targets: tuple[Name, ...] | None = Field(default=None, description="of notifications; null: all of them")
    snapshot: bool = Field(default=True, description="a picture may be taken and sent, where notifications allow it")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.leave_probability is not None and self.leave_probability > self.min_probability:
            raise ValueError("leave_probability must not be above min_probability: leaving is easier than entering")
        if len(set(self.expressions)) < len(self.expressions):
            raise ValueError("each expression is named once")
        if self.who == "unknown" and (self.roles or self.people):
            raise ValueError('who = "unknown" leaves nobody of roles or people: choose one of them')
        return self

    @property
    def leave(self) -> float:
        """The probability below which the time counts back."""
        return max(0.0, self.min_probability - 0.15) if self.leave_probability is None else self.leave_probability

    @property
    def picks_people(self) -> bool:
        """Whether it must be known who somebody is before it is known whether the rule is for them."""
        return bool(self.who != "everyone" or self.roles or self.people or self.not_people)


BUILT_IN: tuple[Rule, ...] = (
    Rule(name="negative expression"),
    Rule(name="face not seen", about="unseen", min_duration_s=600, leave_s=2, roles=("patient",), snapshot=False),
    Rule(name="camera offline", about="offline", min_duration_s=30, leave_s=2, snapshot=False),
)


class AlertsConfig(Section):
    """What opens an alert. Rules that are given replace the built-in ones."""

    rules: tuple[Rule, ...] = Field(default=BUILT_IN, max_length=64)
    keep_days: float = Field(default=366, gt=0, le=3660, description="closed episodes and notes are kept so long")

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        names = [rule.name for rule in self.rules]
        if len(set(names)) < len(names):
            raise ValueError("two rules have one name: each needs its own")
        return self


class HistoryConfig(Section):
    """How long what was seen is kept."""

    second_days: float = Field(default=3, gt=0, le=366, description="by the second; older history is by the minute")
    minute_days: float = Field(default=366, gt=0, le=3660, description="by the minute")
    undecided_s: Seconds = Field(default=120, description="a face without a name or number is remembered so long")


class NotificationsConfig(Section):
    """Who is told, through apprise: mail, SMS gateways, chat, MQTT, webhooks, the desktop."""

    targets: dict[Name, str] = Field(
        default_factory=dict, description="name = address, as apprise writes them: mailto://…, json://…, mqtt://…"
    )
    events: tuple[Literal["opened", "escalated", "closed"], ...] = ("opened", "escalated")
    names: bool = Field(default=True, description="false: the text says 'a patient' instead of the name")
    snapshot: bool = Field(default=False, description="attach a picture; needs the snapshot stage")
    retry_first_s: float = Field(default=2, gt=0, le=3600)
    retry_longest_s: float = Field(default=300, gt=0, le=86400)
    give_up_s: float = Field(default=6 * 3600, gt=0, description="what could not be sent for so long has failed")
    most_waiting: int = Field(default=1000, ge=1, le=100_000, description="beyond that the oldest are given up")


@dataclass(frozen=True, slots=True, kw_only=True)
class Party:
    """Whom something is about, as far as it is known.

    Attributes:
        person, number, track: the first that is not None counts; all None: a camera.
        role: of a person.
        undecided: it is not known yet who it is.
    """

    person: int | None = None
    name: str | None = None
    role: str | None = None
    number: int | None = None
    track: int | None = None
    undecided: bool = False


def covers(rule: Rule, camera: str) -> bool:
    """Return whether a rule is for what a camera shows, whoever that is."""
    return not rule.cameras or camera in rule.cameras


def applies(rule: Rule, party: Party, camera: str) -> bool:
    """Return whether a rule is for somebody on a camera; False while that cannot be known."""
    if not covers(rule, camera):
        return False
    if not rule.picks_people:
        return True
    if party.undecided:
        return False
    names = {f"#{party.person}", name_key(party.name or "")} if party.person is not None else set()
    if any(name_key(name) in names for name in rule.not_people):
        return False
    if party.person is None:
        return rule.who != "known" and not rule.roles and not rule.people
    if rule.who == "unknown" or (rule.roles and party.role not in rule.roles):
        return False
    return not rule.people or any(name_key(name) in names for name in rule.people)
