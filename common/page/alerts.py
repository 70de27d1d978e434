"""The Alerts page: what is open, with what can be done about it, and what was."""

from __future__ import annotations

import html
import time
from collections.abc import Awaitable, Callable

from nicegui import ui
from starlette.requests import Request

from common import alert_store, people
from common.alert_store import Episode
from common.page import told
from common.page.frame import Page, frame
from common.page.guard import Guard
from common.page.site import Site

SNOOZES = (5, 15, 30, 60)  # minutes
DAYS = (1, 7, 30, 90)
PER_PAGE = 50


def register(site: Site, guard: Guard) -> None:
    """Add the page's route."""

    @ui.page("/alerts")
    async def alerts(request: Request) -> None:
        with frame(site, guard, request, "alerts") as page:
            await _build(page)


def open_list(page: Page) -> None:
    """Build the list of open episodes; it follows what happens."""
    place = ui.element("div").classes("alert-list").props('aria-live="polite"').mark("open-alerts")
    shown = -1
    texts: list[tuple[ui.html, str]] = []

    def follow() -> None:
        nonlocal shown
        episodes = sorted(page.site.episodes, key=lambda one: (one.acknowledged_at is not None, -one.opened_at))
        if shown == page.site.alert_steps:  # the same ones, in the same order
            # Only the words are changed: a menu that is open stays so, and the focus where it is.
            for number, (episode, (text, said)) in enumerate(zip(episodes, texts, strict=True)):
                if said != _said(page, episode):
                    text.set_content(_headline(page, episode))
                    texts[number] = (text, _said(page, episode))
            return
        shown = page.site.alert_steps
        place.clear()
        texts.clear()
        with place:
            for episode in episodes:
                texts.append((_card(page, episode), _said(page, episode)))
            if not episodes:
                ui.label(page.t("no_open_alerts")).classes("quiet empty")

    follow()
    ui.timer(0.5, follow)


async def _build(page: Page) -> None:
    t, desk = page.t, page.site.desk
    with ui.element("div").classes("page-head"):
        ui.label(t("open_alerts")).classes("heading")
        ui.space()
        if page.may("admin"):

            async def test() -> None:
                with page.told():
                    await page.must("admin")
                    await desk.audit(page.user.name, "notification", "test")
                    done = await desk.ask("alerts", "test-notification", timeout_s=60.0)
                    ui.notify(t("test_sent", targets=done.get("sent", "")), type="positive")

            ui.button(t("test_notification"), icon="outgoing_mail", on_click=test).props("flat no-caps").mark("test")
    openings = ui.element("div").classes("openings")
    with ui.element("div").classes("page-head"):
        ui.label(t("past_alerts")).classes("heading")
        ui.space()
        days = ui.select({n: t("last_days", count=n) for n in DAYS}, value=7).props("outlined dense").mark("days")
        who = ui.select({0: t("all_people")}, value=0).props("outlined dense").mark("who")
        verdicts = {"": t("all"), "useful": t("useful"), "false alarm": t("false_alarm")}
        verdict = ui.select(verdicts, value="").props("outlined dense")
    place = ui.element("div").classes("alert-list").mark("past-alerts")
    shown, count = -1, PER_PAGE
    there: list[Episode] | None = None
    more = ui.button(t("more"), on_click=lambda: fill(count + PER_PAGE)).props("flat no-caps").mark("more")

    async def fill(wanted: int) -> None:
        nonlocal shown, count, there
        shown, count = page.site.alert_news, wanted
        with page.told():
            everybody = [one for one in await desk.store(None, people.everybody) if not one.withheld(time.time())]
            choices = {0: t("all_people"), **{one.id: one.name for one in everybody}}
            if choices != who.options:
                who.set_options(choices, value=who.value if who.value in choices else 0)
            found = await desk.ledger(
                alert_store.episodes,
                begin=time.time() - float(days.value) * 86400,
                is_open=False,
                person=int(who.value) or None,
                judgement=verdict.value or None,
                consent_at=time.time(),
                limit=count + 1,
            )
            more.set_visibility(len(found) > count)
            if found == there:
                return  # the focus stays where it is
            there = found
            place.clear()
            with place:
                for episode in found[:count]:
                    _card(page, episode)
                if not found:
                    ui.label(t("no_past_alerts")).classes("quiet empty")

    async def choose() -> None:
        with page.told():
            if who.value:
                await desk.audit(page.user.name, "viewed", f"alerts of #{who.value}")
            await fill(PER_PAGE)

    for chooser in (days, who, verdict):
        chooser.on_value_change(choose)
    await fill(PER_PAGE)
    # Last: with the first timer the page is sent, and what is made after it comes a moment later.
    with openings:
        open_list(page)

    async def follow() -> None:
        if shown != page.site.alert_news:
            await fill(count)

    ui.timer(1.0, follow)


def _said(page: Page, episode: Episode) -> str:
    """Return what a card says, with a mark in the place of the clock that runs."""
    return told.episode(page.t, episode, time_mark="\0")


def _headline(page: Page, episode: Episode) -> str:
    """Return the same as HTML, with the expression's colour beside its word."""
    mark = episode.label if episode.about == "expression" and episode.label else "none"
    since = told.clock((episode.closed_at or time.time()) - episode.began_at)
    if episode.open:
        since = f'<span class="since" data-since="{episode.began_at}">{since}</span>'
    text = html.escape(_said(page, episode)).replace("\0", since)
    return f'<i class="mark" data-label="{mark}"></i><strong>{text}</strong>'


def _card(page: Page, episode: Episode) -> ui.html:
    """Build a card; return what it says."""
    t = page.t
    state = episode.state
    with ui.element("article").classes(f"card alert alert-{state}").mark(f"episode-{episode.id}"):
        headline = ui.html(_headline(page, episode), sanitize=False).classes("alert-text")
        facts = [told.moment(t, episode.began_at), t("at_camera", camera=episode.camera)]
        if state == "escalated":
            facts.append(t("escalated"))
        if episode.acknowledged_by:
            facts.append(t("acknowledged_by", who=episode.acknowledged_by))
        if episode.open and episode.snoozed_until and episode.snoozed_until > time.time():
            facts.append(t("snoozed_until", time=told.hour(episode.snoozed_until)))
        if episode.judgement:
            facts.append(t("judged_useful" if episode.judgement == "useful" else "judged_false"))
        if not episode.id:
            facts.append(t("not_written"))
        ui.label(" · ".join(facts)).classes("quiet")
        if page.may("operator") and episode.id:  # without a number nobody can say which one is meant
            with ui.element("div").classes("actions"):
                _actions(page, episode)
    return headline


def _actions(page: Page, episode: Episode) -> None:
    t, number = page.t, episode.id

    def asking(do: str, **args: str | int) -> Callable[[], Awaitable[None]]:
        async def ask() -> None:
            with page.told():
                await page.must("operator")
                await page.site.desk.ask("alerts", do, timeout_s=5.0, episode=number, by=page.user.name, **args)
                await page.site.desk.audit(page.user.name, "alert", f"{do} episode {number}")

        return ask

    if episode.open and episode.acknowledged_at is None:
        ui.button(t("acknowledge"), on_click=asking("acknowledge")).props("no-caps unelevated").mark("acknowledge")
        with ui.button(t("snooze"), icon="snooze").props("no-caps flat"), ui.menu():
            for minutes in SNOOZES:
                ui.menu_item(t("snooze_minutes", count=minutes), asking("snooze", minutes=minutes))
    for verdict, key, icon in (("useful", "useful", "thumb_up"), ("false alarm", "false_alarm", "thumb_down")):
        chosen = "unelevated" if episode.judgement == verdict else "flat"
        ui.button(t(key), icon=icon, on_click=asking("judge", judgement=verdict)).props(f"no-caps {chosen}").mark(key)
