"""The History page: a person's day as a ribbon, with how much could be assessed, episodes and notes."""

from __future__ import annotations

import html
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from urllib.parse import urlencode

from nicegui import events, ui
from starlette.requests import Request

from common import alert_store, history_store, people
from common.alert_store import Episode
from common.expressions import ExpressionName
from common.history_store import HistoryError, Note, Ribbon, Subject, Summary
from common.ledger import Ledger
from common.page import ribbon as ribbons
from common.page import told
from common.page.confirm import confirm
from common.page.frame import Page, asked, frame
from common.page.guard import Guard
from common.page.ribbon import Mark
from common.page.site import Site
from common.page.words import Words

SHORTEST_S = 60.0  # of a view


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What is shown of somebody: everything of a period, read at once."""

    subject: Subject
    begin: float
    end: float
    ribbon: Ribbon
    summary: Summary
    episodes: list[Episode]
    notes: list[Note]


def read(ledger: Ledger, subject: Subject, begin: float, end: float) -> View:
    """Return a period of somebody's history. Raises HistoryError: no such period."""
    return View(
        subject=subject,
        begin=begin,
        end=end,
        ribbon=history_store.ribbon(ledger, subject, begin, end, step_s=ribbons.step_for(begin, end)),
        summary=history_store.summary(ledger, subject, begin, end),
        episodes=alert_store.episodes(
            ledger, begin=begin, end=end, person=subject.person, unknown=subject.unknown, limit=500
        ),
        notes=history_store.notes(ledger, begin, end, subject=subject),
    )


def marks(t: Words, view: View, now: float) -> list[Mark]:
    """Return what stands above the ribbon."""
    found = [
        Mark(one.began_at, one.closed_at or now, f"{told.hour(one.began_at)} {told.episode(t, one)}", "episode")
        for one in view.episodes
    ]
    found += [Mark(note.at, note.at, f"{told.hour(note.at)} {note.text} ({note.who})", "note") for note in view.notes]
    return found


def drawn(t: Words, view: View, now: float, *, static: bool = False) -> str:
    """Return the view's ribbon as SVG; ``static``: for paper."""
    return ribbons.drawing(
        t, view.ribbon, view.end, marks(t, view, now), label=ribbons.spoken(t, shares(view.summary)), until=now,
        static=static,
    )  # fmt: skip


def shares(summary: Summary) -> dict[ExpressionName, float]:
    """Return each expression's part of the assessed time, 0 … 1."""
    return {
        label: seconds / summary.assessed_s if summary.assessed_s else 0.0
        for label, seconds in summary.expressions_s.items()
    }


def register(site: Site, guard: Guard) -> None:
    """Add the page's route."""

    @ui.page("/history")
    async def history(
        request: Request,
        person: int | None = None,
        unknown: int | None = None,
        day: str | None = None,
        begin: float | None = None,
        end: float | None = None,
    ) -> None:
        with frame(site, guard, request, "history") as page:
            if not page.may("operator"):
                ui.label(page.t("not_allowed")).classes("quiet empty")
                return
            chosen = Subject(person=person) if person else Subject(unknown=unknown) if unknown else None
            whole = told.day_bounds(_day(day))
            period = whole
            if begin is not None and end is not None and whole[0] - 86400 <= begin < end <= whole[1] + 86400:
                period = (begin, max(end, begin + SHORTEST_S))
            await _build(page, chosen, _day(day), period, whole)


async def _build(
    page: Page, subject: Subject | None, day: date, period: tuple[float, float], whole: tuple[float, float]
) -> None:
    t, desk = page.t, page.site.desk
    names = await _names(page, subject)

    def link(**changed: object) -> str:
        at = {"person": subject and subject.person, "unknown": subject and subject.unknown, "day": day.isoformat()}
        return "/history?" + urlencode({key: value for key, value in (at | changed).items() if value is not None})

    def chosen(value: str) -> None:
        kind, _, number = value.partition(" ")
        ui.navigate.to(link(**{"person": None, "unknown": None, kind: int(number)}))

    with ui.element("div").classes("page-head"):
        current = None if subject is None or key_of(subject) not in names else key_of(subject)
        ui.select(
            names, value=current, label=t("choose_person"), with_input=True,
            on_change=lambda event: chosen(event.value) if event.value else None,
        ).props("outlined dense").classes("who").mark("who")  # fmt: skip
        with ui.element("div").classes("day-choice"):
            for icon, label, ago in (("chevron_left", t("earlier"), -1), ("chevron_right", t("later"), 1)):
                target = link(day=(day + timedelta(days=ago)).isoformat())
                button = ui.button(icon=icon, on_click=lambda target=target: ui.navigate.to(target))
                button.props(f'flat round dense aria-label="{label}"')
                if ago == -1:
                    ui.input(
                        value=day.isoformat(),
                        on_change=lambda event: ui.navigate.to(link(day=event.value)) if _is_day(event.value) else None,
                    ).props(f'outlined dense type=date aria-label="{t("day")}"').mark("day")
        ui.space()
        ui.button(t("shift_report"), icon="description", on_click=lambda: ui.navigate.to("/report")).props(
            "flat no-caps"
        )
    if subject is None:
        ui.label(t("choose_history")).classes("quiet empty")
        with ui.element("div").classes("gallery small"):
            for key, name in names.items():
                kind, _, number = key.partition(" ")
                face = f"/{'people' if kind == 'person' else 'unknown'}/{number}/face"
                target = link(**{"person": None, "unknown": None, kind: int(number)})
                ui.html(
                    f'<a class="card person" href="{html.escape(target)}"><span class="face">'
                    f'<img src="{face}" alt=""></span><span class="person-name">{html.escape(name)}</span></a>',
                    sanitize=False,
                )
        with page.told():
            if loose := await desk.ledger(history_store.loose_notes):
                with ui.element("section").classes("card"):
                    ui.label(f"{t('notes')}: {t('no_one')}").classes("heading")
                    _notes(page, loose, told.whole_time, link())
        return
    if subject.person is not None and await desk.store(None, people.is_withheld, subject.person):
        ui.label(t("not_agreed")).classes("quiet empty")
        return
    with page.told():
        view = await desk.ledger(read, subject, *period)
        await desk.audit(page.user.name, "viewed", f"history of {number_of(subject)}, {day}")
        _show(page, view, names.get(key_of(subject), ""), day, whole, link)


def _show(page: Page, view: View, name: str, day: date, whole: tuple[float, float], link: Callable[..., str]) -> None:
    t, summary, now = page.t, view.summary, time.time()
    with ui.element("div").classes("card history"):
        with ui.element("div").classes("page-head"):
            ui.label(name).classes("panel-name")
            ui.label(day.isoformat()).classes("quiet")
            ui.space()
            if (view.begin, view.end) != whole:
                ui.button(t("whole_day"), icon="zoom_out_map", on_click=lambda: ui.navigate.to(link())).props(
                    "flat no-caps"
                )
            middle, length = (view.begin + view.end) / 2, view.end - view.begin
            for icon, label, factor in (("zoom_in", t("zoom_in"), 0.5), ("zoom_out", t("zoom_out"), 2.0)):
                half = max(SHORTEST_S, length * factor) / 2
                begin, end = max(whole[0], middle - half), min(whole[1], middle + half)
                ui.button(icon=icon, on_click=lambda b=begin, e=end: ui.navigate.to(link(begin=b, end=e))).props(
                    f'flat round dense aria-label="{label}"'
                )
        if summary.assessed_s + summary.unassessed_s == 0:
            ui.label(t("no_history", name=name)).classes("quiet empty")
        else:
            ui.label(coverage(t, summary)).mark("coverage")
        ui.html(
            f'<div class="ribbon-room" id="mien-ribbon" data-begin="{view.begin}" data-end="{view.end}">'
            f"{drawn(t, view, now)}</div>"
            f"{axis(view.begin, view.end)}",
            sanitize=False,
        ).classes("wide")
        ui.html(legend(t, summary), sanitize=False)
        ui.label(t("zoom_hint")).classes("quiet hint")
    ui.add_head_html('<script type="module" src="/page/open/history.js"></script>')

    def zoom(event: events.GenericEventArguments) -> None:
        if isinstance(event.args, dict):
            begin, end = float(event.args.get("begin", 0)), float(event.args.get("end", 0))
            if end - begin >= SHORTEST_S / 2:
                ui.navigate.to(link(begin=round(begin), end=round(max(end, begin + SHORTEST_S))))

    ui.on("mien-zoom", zoom)
    with ui.element("div").classes("two"):
        with ui.element("section").classes("card"):
            ui.label(t("episodes")).classes("heading")
            for one in view.episodes:
                ui.label(f"{told.hour(one.began_at)}  {told.episode(t, one)}").mark("episode")
            if not view.episodes:
                ui.label(t("no_past_alerts")).classes("quiet")
        with ui.element("section").classes("card"):
            with ui.element("div").classes("page-head"):
                ui.label(t("notes")).classes("heading")
                ui.space()
                ui.button(
                    t("add_note"),
                    icon="add",
                    on_click=lambda: note_dialog(page, view.subject, then=link()),
                ).props("flat no-caps dense").mark("add-note")
            _notes(page, view.notes, told.hour, link())
            if not view.notes:
                ui.label(t("no_notes")).classes("quiet")
    exports(page, view)


def _notes(page: Page, notes: Sequence[Note], say: Callable[[float], str], then: str) -> None:
    """Build a list of notes, each with what deletes it.

    Args:
        say: a moment in words.
        then: where to go afterwards.
    """

    async def remove(note: Note) -> None:
        with page.told():
            await page.must("operator")
            await page.site.desk.ledger(history_store.remove_note, note.id)
            await page.site.desk.audit(page.user.name, "note", f"deleted, about {number_of(note.subject)}")
            ui.navigate.to(then)

    def ask(note: Note) -> None:
        title = f"{page.t('note')}: {page.t('delete')}?"
        confirm(page, title, lambda: remove(note), label=page.t("delete"), text=f"{say(note.at)}  {note.text}")

    for note in notes:
        with ui.element("div").classes("note"):
            ui.label(f"{say(note.at)}  {note.text}")
            ui.label(note.who).classes("quiet")
            ui.button(icon="delete", on_click=lambda note=note: ask(note)).props(
                f'flat round dense aria-label="{page.t("delete")}"'
            ).mark("delete-note")


def exports(page: Page, view: View) -> None:
    """Build the links that export what is shown."""
    t = page.t
    with ui.element("div").classes("page-head"):
        ui.label(t("export")).classes("quiet")
        for kind in ("csv", "parquet", "json"):
            query: dict[str, object] = {
                "person": view.subject.person,
                "unknown": view.subject.unknown,
                "begin": view.begin,
            }
            query |= {"end": view.end, "format": kind}
            target = "/export?" + urlencode({key: value for key, value in query.items() if value is not None})
            ui.html(
                f'<a class="action" href="{html.escape(target)}" download data-export="{kind}">'
                f"{ {'csv': 'CSV', 'parquet': 'Parquet', 'json': 'JSON'}[kind] }</a>",
                sanitize=False,
            )


async def note_dialog(page: Page, subject: Subject, *, then: str | None = None) -> None:
    """Ask for a note about somebody; ``then`` is where to go afterwards."""
    t = page.t
    dialog, card = asked(t("add_note"))
    with card:
        text = ui.textarea(t("note")).props(f"outlined autofocus maxlength={history_store.MAX_NOTE}").classes("wide")
        text.mark("note-text")
        moment = ui.input(t("audit_when"), value=datetime.now().strftime("%Y-%m-%dT%H:%M"))
        moment.props("outlined type=datetime-local stack-label").classes("wide")

        async def save() -> None:
            with page.told():
                await page.must("operator")
                at = _moment(moment.value)
                await page.site.desk.ledger(history_store.add_note, subject, at, text.value or "", page.user.name)
                await page.site.desk.audit(page.user.name, "note", f"about {number_of(subject)}")
                dialog.close()
                if then is not None:
                    ui.navigate.to(then)
                else:
                    ui.notify(t("done"), type="positive")

        with ui.row().classes("buttons"):
            ui.button(t("cancel"), on_click=dialog.close).props("flat no-caps")
            ui.button(t("save"), on_click=save).props("no-caps unelevated").mark("save-note")
    dialog.open()


# --- also for the report ---


def coverage(t: Words, summary: Summary) -> str:
    """Return how long somebody was in view, and how much of that could be assessed."""
    present = summary.assessed_s + summary.unassessed_s
    share = t("coverage", share=round(100 * summary.share_present))
    return f"{t('in_view_time', time=told.span(present))} · {share}"


def legend(t: Words, summary: Summary) -> str:
    """Return the expressions with their words and parts of the assessed time, as HTML."""
    parts = []
    for label, share in shares(summary).items():
        parts.append(f'<span><i class="mark" data-label="{label}"></i>{t(label)} {share:.0%}</span>')
    parts.append(f'<span><i class="mark ribbon-key-unassessed"></i>{t("not_assessed")}</span>')
    parts.append(f'<span><i class="mark ribbon-key-offline"></i>{t("not_watched")}</span>')
    parts.append(f'<span><i class="mark ribbon-key-absent"></i>{t("not_in_view")}</span>')
    return f'<div class="legend">{"".join(parts)}</div>'


def axis(begin: float, end: float) -> str:
    """Return the words below the ribbon, as HTML."""
    return axis_of(ribbons.axis(begin, end))


def axis_of(ticks: list[tuple[float, str]]) -> str:
    """Return words at parts of the width (0 … 1), as HTML; those at the edges stay inside."""
    parts = []
    for at, word in ticks:
        edge = "first" if at < 0.03 else "last" if at > 0.97 else ""
        parts.append(f'<span class="{edge}" style="left:{100 * at:.2f}%">{word}</span>')
    return f'<div class="ribbon-axis" aria-hidden="true">{"".join(parts)}</div>'


def key_of(subject: Subject) -> str:
    """Return a word for a subject in forms: ``person 3``, ``unknown 12``."""
    return f"person {subject.person}" if subject.person is not None else f"unknown {subject.unknown}"


# --- inside ---


async def _names(page: Page, subject: Subject | None) -> dict[str, str]:
    t = page.t
    everybody = await page.site.desk.store(None, people.everybody)
    names = {f"person {one.id}": one.name for one in everybody if not one.withheld(time.time())}
    now = time.time()
    seen = await page.site.desk.ledger(history_store.subjects, now - 7 * 86400, now)
    for one in [*seen, *([subject] if subject else [])]:
        if one.unknown is not None:
            names.setdefault(key_of(one), t("unknown_number", number=one.unknown))
    return names


def number_of(subject: Subject | None) -> str:
    """Return who it is, as the audit log says it: without the name, which may be deleted one day."""
    if subject is None:
        return "no one in particular"
    return f"#{subject.person}" if subject.person is not None else f"unknown person {subject.unknown}"


def _day(text: str | None) -> date:
    return date.fromisoformat(text) if text is not None and _is_day(text) else date.today()


def _is_day(text: str | None) -> bool:
    try:
        return bool(text) and 2000 <= date.fromisoformat(text or "").year < 3000
    except ValueError:
        return False


def _moment(text: str | None) -> float:
    try:
        return datetime.fromisoformat(text or "").timestamp()
    except (ValueError, OverflowError) as error:
        raise HistoryError("say when: a day and a time") from error
