"""A period of somebody's expressions as a ribbon: runs of equal steps, and their drawing as SVG. Pure."""

from __future__ import annotations

import html
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from common.expressions import COLOURS, EXPRESSIONS, ExpressionName
from common.history_store import Ribbon
from common.page.words import Words

UNASSESSED, ABSENT, OFFLINE = "unassessed", "absent", "offline"
WIDTH = 1000  # of the drawing; it is stretched to the room that it gets
_TOP, _HIGH, _COVER = 14, 56, 12  # marks, ribbon, coverage
HEIGHT = _TOP + _HIGH + 4 + _COVER
_STEPS = 1440  # at most, in one drawing


@dataclass(frozen=True, slots=True)
class Run:
    """Steps one after another that are alike: unix seconds, and an expression, or why there is none."""

    begin: float
    end: float
    kind: str


@dataclass(frozen=True, slots=True)
class Mark:
    """Something above the ribbon: an episode with its length, or a note."""

    begin: float
    end: float
    text: str
    kind: str  # episode or note


def step_for(begin: float, end: float) -> int:
    """Return a length of steps, in seconds, with which a period is drawn finely and quickly."""
    for step in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600):
        if (end - begin) / step <= _STEPS:
            return step
    return 7200


def runs(ribbon: Ribbon, *, until: float | None = None) -> list[Run]:
    """Return a ribbon's steps with equal neighbours put together; what lies after ``until`` is left out."""
    kinds = np.full(len(ribbon), -4)
    kinds[ribbon.watched_s > 0] = -3
    kinds[ribbon.present_s > 0] = -2
    assessed = ribbon.assessed_s > 0
    kinds[assessed] = ribbon.dominant[assessed]
    names = {-4: OFFLINE, -3: ABSENT, -2: UNASSESSED, -1: UNASSESSED} | dict(enumerate(EXPRESSIONS))
    edges = np.flatnonzero(np.diff(kinds)) + 1
    starts, ends = np.concatenate(([0], edges)), np.concatenate((edges, [len(ribbon)]))
    found = []
    for first, last in zip(starts, ends, strict=True):
        begin, end = ribbon.begin + int(first) * ribbon.step_s, ribbon.begin + int(last) * ribbon.step_s
        if until is not None:
            end = min(end, until)
        if end > begin:
            found.append(Run(begin, end, names[int(kinds[first])]))
    return found


def drawing(
    t: Words,
    ribbon: Ribbon,
    end: float,
    marks: Sequence[Mark] = (),
    *,
    label: str = "",
    until: float | None = None,
    static: bool = False,
) -> str:
    """Return a ribbon as SVG: marks above, the expression that showed most, and how much could be assessed below it.

    Args:
        label: what it shows, in words.
        end: of the period; the ribbon's own last step may reach beyond it.
        until: now, when the period has not passed yet.
        static: for paper: no hints that show under the pointer.
    """
    begin = ribbon.begin
    scale = WIDTH / (end - begin)
    parts = [
        f'<svg class="ribbon" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="{html.escape(label, quote=True)}" xmlns="http://www.w3.org/2000/svg">',
        '<defs><pattern id="hatch" width="6" height="12" patternUnits="userSpaceOnUse">'
        '<path d="M0 12 L6 0" class="ribbon-hatch"/></pattern></defs>',
        f'<rect x="0" y="{_TOP}" width="{WIDTH}" height="{_HIGH}" class="ribbon-empty"/>',
    ]
    for run in runs(ribbon, until=until):
        if run.kind == ABSENT:
            continue
        x, width = (run.begin - begin) * scale, max(0.6, (run.end - run.begin) * scale)
        look = f'fill="{_colour(run.kind)}"' if run.kind in COLOURS else f'class="ribbon-{run.kind}"'
        top, high = (_TOP, _HIGH) if run.kind != UNASSESSED else (_TOP + _HIGH * 3 // 4, _HIGH // 4)
        word = t(run.kind) if run.kind in COLOURS else t("not_watched" if run.kind == OFFLINE else "not_assessed")
        hint = "" if static else f"<title>{_span(run.begin, run.end)} {html.escape(word)}</title>"
        parts.append(f'<rect x="{x:.2f}" y="{top}" width="{width:.2f}" height="{high}" {look}>{hint}</rect>')
    base = _TOP + _HIGH + 4
    parts.append(f'<rect x="0" y="{base}" width="{WIDTH}" height="{_COVER}" class="ribbon-empty"/>')
    present = ribbon.present_s > 0
    for first, last, share in _shares(ribbon, present):
        x, width = first * ribbon.step_s * scale, max(0.6, (last - first) * ribbon.step_s * scale)
        tall = _COVER * share
        parts.append(
            f'<rect x="{x:.2f}" y="{base + _COVER - tall:.2f}" width="{width:.2f}" height="{tall:.2f}" '
            'class="ribbon-cover"/>'
        )
    for mark in marks:
        x, width = (mark.begin - begin) * scale, max(4.0, (mark.end - mark.begin) * scale)
        x = max(0.0, min(WIDTH - 4.0, x))
        shape = f'<rect x="{x:.2f}" y="2" width="{min(width, WIDTH - x):.2f}" height="9" class="ribbon-{mark.kind}">'
        parts.append(f"{shape}<title>{html.escape(mark.text)}</title></rect>")
    parts.append("</svg>")
    return "".join(parts)


def axis(begin: float, end: float) -> list[tuple[float, str]]:
    """Return where the axis has its words: part of the width (0 … 1) and the time of day."""
    whole = end - begin
    for every in (60, 300, 600, 900, 1800, 3600, 7200, 10800, 21600):
        if whole / every <= 9:
            break
    local = time.localtime(begin)
    since_midnight = local.tm_hour * 3600 + local.tm_min * 60 + local.tm_sec
    first = begin + (-since_midnight) % every
    ticks = []
    at = float(first)
    while at <= end:
        ticks.append(((at - begin) / whole, time.strftime("%H:%M", time.localtime(at))))
        at += every
    return ticks


def spoken(t: Words, shares: Mapping[ExpressionName, float]) -> str:
    """Return parts of the assessed time in words, for those who do not see the ribbon."""
    listed = sorted(shares.items(), key=lambda item: -item[1])
    return ", ".join(f"{t(label)} {share:.0%}" for label, share in listed if share >= 0.005) or t("not_assessed")


def _shares(ribbon: Ribbon, present: np.ndarray[tuple[int, ...], np.dtype[np.bool_]]) -> list[tuple[int, int, float]]:
    """Return runs of steps with about the same part assessed: first, after the last, part of the time."""
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(present, ribbon.assessed_s / ribbon.present_s, 0.0)
    coarse = np.rint(share * 10).astype(int)
    edges = np.flatnonzero(np.diff(coarse)) + 1
    starts, ends = np.concatenate(([0], edges)), np.concatenate((edges, [len(ribbon)]))
    return [(int(a), int(b), coarse[a] / 10) for a, b in zip(starts, ends, strict=True) if coarse[a] > 0]


def _colour(label: str) -> str:
    return "#{:02X}{:02X}{:02X}".format(*COLOURS[label])


def _span(begin: float, end: float) -> str:
    return f"{time.strftime('%H:%M:%S', time.localtime(begin))}–{time.strftime('%H:%M:%S', time.localtime(end))}"
