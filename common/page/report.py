"""The shift report: a period, some people, on one page to print or as a PDF; and exports for other programs."""

from __future__ import annotations

import asyncio
import html
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Annotated
from urllib.parse import urlencode

from fastapi import FastAPI, Query
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from starlette.requests import Request

from common import alert_store, history_store, people
from common.history_store import HistoryError, Note, Subject
from common.ledger import Ledger, LedgerError
from common.page import history, told, words
from common.page import ribbon as ribbons
from common.page.access import User
from common.page.desk import Desk, DeskError
from common.page.site import Site, user_of
from common.page.words import Words
from common.store import StoreError

SHIFT_S = 8 * 3600
LONGEST_S = 7 * 86400
_MOST = 40  # people in a report
FORMATS = {"csv": ("csv", "text/csv"), "json": ("jsonl", "application/x-ndjson"),
           "parquet": ("parquet", "application/vnd.apache.parquet")}  # fmt: skip
Moment = Annotated[float, Query(ge=0, le=1e11)]  # unix seconds
Chosen = Annotated[Sequence[str], Query()]


class ReportError(ValueError):
    """A report that cannot be made; the text says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What the report says of one person, in words; ``runs`` are begin, end (unix seconds) and kind."""

    subject: Subject
    name: str
    coverage: str
    shares: list[tuple[str, str, float]]  # expression, its word, part of the assessed time
    runs: list[tuple[float, float, str]]
    svg: str
    episodes: list[str]
    notes: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A shift report, in one language."""

    title: str
    period: str
    begin: float
    end: float
    made: str
    remark: str
    nobody: str
    heads: dict[str, str]
    axis: list[tuple[float, str]]
    parts: list[Part]
    loose: list[str]  # notes about no one in particular


def gather(
    ledger: Ledger, t: Words, names: dict[Subject, str], begin: float, end: float, *, by: str, loose: bool
) -> Report:
    """Return the report of a period and of those people of ``names`` of whom there is something to say in it.

    Args:
        loose: it also has the notes about no one in particular.
    """
    now = time.time()
    there = _there(ledger, begin, end)
    told_of = [(subject, name) for subject, name in names.items() if subject in there]
    made = t("made_at", time=told.whole_time(now), who=by)
    if len(told_of) > _MOST:
        made += " · " + t("not_in_report", count=len(told_of) - _MOST)
    parts = []
    for subject, name in told_of[:_MOST]:
        view = history.read(ledger, subject, begin, end)
        summary = view.summary
        parts.append(
            Part(
                subject=subject,
                name=name,
                coverage=history.coverage(t, summary),
                shares=[(label, t(label), share) for label, share in history.shares(summary).items()],
                runs=[(run.begin, run.end, run.kind) for run in ribbons.runs(view.ribbon, until=now)],
                svg=history.drawn(t, view, now, static=True),
                episodes=[f"{told.whole_time(one.began_at)}  {told.episode(t, one)}" for one in view.episodes],
                notes=_notes(view.notes),
            )
        )
    return Report(
        title=t("report_title"),
        period=f"{told.whole_time(begin)} – {told.whole_time(end)}",
        begin=begin,
        end=end,
        made=made,
        remark=t("report_note"),
        nobody=t("no_people_report"),
        heads={"episodes": t("episodes"), "notes": t("notes"), "loose": t("no_one")},
        axis=ribbons.axis(begin, end),
        parts=parts,
        loose=_notes(history_store.loose_notes(ledger, begin, end)) if loose else [],
    )


def _notes(notes: Sequence[Note]) -> list[str]:
    return [f"{told.whole_time(note.at)}  {note.text} ({note.who})" for note in notes]


def _there(ledger: Ledger, begin: float, end: float) -> set[Subject]:
    """Return who was seen in a period, or had an alert or a note in it."""
    there = set(history_store.subjects(ledger, begin, end))
    there |= {note.subject for note in history_store.notes(ledger, begin, end) if note.subject is not None}
    for one in alert_store.episodes(ledger, begin=begin, end=end, limit=10_000):
        if one.person is not None or one.unknown is not None:
            there.add(Subject(person=one.person, unknown=None if one.person is not None else one.unknown))
    return there


def page_of(t: Words, report: Report | None, names: dict[str, str], chosen: set[str], begin: float, end: float,
            problem: str = "") -> str:  # fmt: skip
    """Return the report as a page that prints well, with the form that chooses its period and people."""
    options = "".join(
        f'<label class="choice"><input type="checkbox" name="who" value="{key}"{" checked" if key in chosen else ""}> '
        f"{html.escape(name)}</label>"
        for key, name in names.items()
    )
    query = urlencode([("begin", _local(begin)), ("end", _local(end)), *(("who", key) for key in sorted(chosen))])
    form = f"""<form class="chooser" method="get"><label>{t("from")}
<input type="datetime-local" name="begin" value="{_local(begin)}" required></label><label>{t("to")}
<input type="datetime-local" name="end" value="{_local(end)}" required></label>
<details><summary>{t("who")}: {t("all_people") if not chosen else len(chosen)}</summary>{options}</details>
<button class="action first">{t("show_report")}</button>
<button class="action" type="button" onclick="print()">{t("print")}</button>
<a class="action" href="/report.pdf?{html.escape(query)}" download>{t("as_pdf")}</a>
<a class="action" href="/history">{t("history")}</a></form>"""
    body = f'<p class="problem" role="alert">{html.escape(problem)}</p>' if problem else ""
    if report is not None:
        body += (
            f"<h1>{report.title}</h1><p>{report.period}<br><span class='quiet'>{html.escape(report.made)}</span></p>"
        )
        body += "".join(_part(report, part) for part in report.parts) or f"<p>{report.nobody}</p>"
        if report.loose:
            body += f"<section><h2>{report.heads['loose']}</h2>{_list(report.heads['notes'], report.loose)}</section>"
        body += f'<p class="quiet remark">{report.remark}</p>'
    return f"""<!doctype html><html lang="{t.language}"><head><meta charset="utf-8">
<title>Mien – {t("report_title")}</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="/page/open/page.css"><link rel="stylesheet" href="/page/open/report.css"></head>
<body class="report-body"><main class="report">{form}{body}</main></body></html>"""


def register(app: FastAPI, site: Site) -> None:
    """Add the routes of report and export."""

    @app.get("/report", include_in_schema=False)
    async def report(request: Request, begin: str | None = None, end: str | None = None, who: Chosen = ()) -> Response:
        t = words.chosen(request.cookies, request.headers.get("accept-language", ""))
        user = user_of(request.scope)
        if not user.may("operator"):
            return PlainTextResponse(t("not_allowed"), 403)
        now = time.time()
        first, last = _time(begin, now - SHIFT_S), _time(end, now)
        try:
            known, made = await _made(site.desk, t, user, first, last, who)
        except (ReportError, HistoryError, LedgerError, StoreError) as error:
            return HTMLResponse(page_of(t, None, {}, set(who), first, last, str(error)), 422)
        return HTMLResponse(page_of(t, made, known, set(who), first, last))

    @app.get("/report.pdf", include_in_schema=False)
    async def pdf(request: Request, begin: str, end: str, who: Chosen = ()) -> Response:
        t = words.chosen(request.cookies, request.headers.get("accept-language", ""))
        user = user_of(request.scope)
        if not user.may("operator"):
            return PlainTextResponse(t("not_allowed"), 403)
        try:
            _, made = await _made(site.desk, t, user, _time(begin, 0.0), _time(end, 0.0), who)
            with tempfile.TemporaryDirectory(prefix="mien-page-") as place:
                source, target = Path(place) / "report.json", Path(place) / "report.pdf"
                source.write_text(json.dumps(asdict(made), ensure_ascii=False), encoding="utf-8")
                await site.desk.child("common.page.pdf", str(source), str(target))
                data = target.read_bytes()
        except (ReportError, HistoryError, LedgerError, StoreError, DeskError) as error:
            return PlainTextResponse(str(error), 422)
        name = f"mien-{time.strftime('%Y%m%d-%H%M', time.localtime(made.begin))}.pdf"
        return Response(
            data, media_type="application/pdf", headers={"content-disposition": f'attachment; filename="{name}"'}
        )

    @app.get("/export", include_in_schema=False)
    async def export(
        request: Request, begin: Moment, end: Moment, format: str, person: int | None = None, unknown: int | None = None
    ) -> Response:
        t = words.chosen(request.cookies, request.headers.get("accept-language", ""))
        user = user_of(request.scope)
        if not user.may("operator"):
            return PlainTextResponse(t("not_allowed"), 403)
        if format not in FORMATS:
            return PlainTextResponse(f"formats are {', '.join(FORMATS)}", 422)
        suffix, kind = FORMATS[format]
        try:
            subject = Subject(person=person, unknown=unknown)
            if person is not None and await site.desk.store(None, people.is_withheld, person):
                return PlainTextResponse(t("not_agreed"), 404)
            about = f"#{person}" if person is not None else f"unknown person {unknown}"
            await site.desk.audit(user.name, "exported", f"history of {about}, {format}")
            with tempfile.TemporaryDirectory(prefix="mien-page-") as place:
                file = Path(place) / f"history.{suffix}"
                settings = site.desk.saved_config(Path(place))
                arguments = (str(settings), str(file), str(subject.number), str(begin), str(end))
                await site.desk.child("common.page.export", *arguments)
                data = await asyncio.to_thread(file.read_bytes)
        except (HistoryError, DeskError, StoreError) as error:
            return PlainTextResponse(str(error), 422)
        name = f"mien-{subject.number}-{time.strftime('%Y%m%d', time.localtime(begin))}.{suffix}"
        return Response(data, media_type=kind, headers={"content-disposition": f'attachment; filename="{name}"'})


async def _made(
    desk: Desk, t: Words, user: User, begin: float, end: float, who: Sequence[str]
) -> tuple[dict[str, str], Report]:
    if end <= begin:
        raise ReportError(t("bad_period"))
    if end - begin > LONGEST_S:
        raise ReportError(t("long_period", count=round(LONGEST_S / 86400)))
    everybody = await desk.store(None, people.everybody)
    names = {Subject(person=one.id): one.name for one in everybody if not one.withheld(time.time())}
    withheld = {one.id for one in everybody if one.withheld(time.time())}
    for one in await desk.ledger(history_store.subjects, begin, end):
        if one.person not in withheld:
            names.setdefault(one, t("unknown_number", number=one.unknown))
    known = {history.key_of(subject): name for subject, name in names.items()}
    chosen = {s: name for s, name in names.items() if not who or history.key_of(s) in who}
    made = await desk.ledger(gather, t, chosen, begin, end, by=user.name, loose=not who)
    about = ", ".join(history.number_of(part.subject) for part in made.parts) or "nobody"
    await desk.audit(user.name, "viewed", f"report of {about}, {told.whole_time(begin)} – {told.whole_time(end)}")
    return known, made


def _part(report: Report, part: Part) -> str:
    shares = "".join(
        f'<span><i class="mark" data-label="{label}"></i>{word} {share:.0%}</span>'
        for label, word, share in part.shares
    )
    lists = _list(report.heads["episodes"], part.episodes) + _list(report.heads["notes"], part.notes)
    return (
        f'<section><h2>{html.escape(part.name)}</h2><p>{part.coverage}</p><div class="ribbon-room">{part.svg}</div>'
        f'{history.axis_of(report.axis)}<div class="legend">{shares}</div>{lists}</section>'
    )


def _list(head: str, lines: list[str]) -> str:
    return f"<h3>{head}</h3><ul>{''.join(f'<li>{html.escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def _local(at: float) -> str:
    return datetime.fromtimestamp(at).strftime("%Y-%m-%dT%H:%M")


def _time(text: str | None, otherwise: float) -> float:
    try:
        return datetime.fromisoformat(text).timestamp() if text else otherwise
    except (ValueError, OverflowError):
        return otherwise
