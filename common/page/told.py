"""Moments, durations, people and episodes in words, in the page's language. Pure."""

from __future__ import annotations

import time
from datetime import date, datetime, timedelta

from common.alert_store import Episode
from common.alerts.wording import SAYS_UNASSESSED_S
from common.page.words import Words
from common.words import clock

__all__ = ["clock", "day_bounds", "episode", "hour", "moment", "span", "who", "whole_time"]


def hour(at: float) -> str:
    """Return the time of day, ``14:05``."""
    return time.strftime("%H:%M", time.localtime(at))


def whole_time(at: float) -> str:
    """Return day and time, ``2027-03-01 14:05``."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(at))


def moment(t: Words, at: float, *, today: date | None = None) -> str:
    """Return a moment as people say it: today and yesterday by name."""
    day = datetime.fromtimestamp(at).date()
    ago = ((today or date.today()) - day).days
    if ago in (0, 1):
        return f"{t('today' if ago == 0 else 'yesterday')} {hour(at)}"
    return whole_time(at)


def span(seconds: float) -> str:
    """Return a longer duration, ``2 h 05 min`` or ``12 min``; below a minute in seconds."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def day_bounds(day: date) -> tuple[float, float]:
    """Return a day's first and last moment here, unix seconds; a day of 23 or 25 hours is one, too."""
    begin = datetime(day.year, day.month, day.day)
    return begin.timestamp(), (begin + timedelta(days=1)).timestamp()


def who(t: Words, name: str | None, unknown: int | None) -> str:
    """Return a name, or ``unknown 12``."""
    if name:
        return name
    return t("unknown") if unknown is None else t("unknown_number", number=unknown)


def episode(t: Words, one: Episode, *, time_mark: str | None = None) -> str:
    """Return what an episode says: "Ada has looked sad for 0:45 – please check".

    Args:
        time_mark: stands where the duration does, for a clock that runs.
    """
    end = one.closed_at if one.closed_at is not None else time.time()
    lasted = clock(end - one.began_at) if time_mark is None else time_mark
    somebody = who(t, one.name, one.unknown)
    if one.about == "offline":
        text = t("alert_offline", camera=one.camera, time=lasted)
    elif one.about == "unseen":
        # What the rule has counted: time without pictures is none, so that no clock can run for it.
        counted = clock(one.unassessed_s) if one.unassessed_s > 0 else lasted
        text = t("alert_unseen", who=somebody, time=counted)
    else:
        label = t(one.label) if one.label else "…"
        text = t("alert_looks" if one.open else "alert_looked", who=somebody, label=label, time=lasted)
        if one.unassessed_s >= SAYS_UNASSESSED_S:
            text += t("alert_unassessed", time=clock(one.unassessed_s))
    return f"{text} – {t('please_check')}" if one.open and one.acknowledged_at is None else text
