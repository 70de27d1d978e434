"""What all pages have in common: the bar at the top, the language, light or dark, and what its user may do."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

from nicegui import Client, context, ui
from starlette.requests import Request

from common.ledger import LedgerError
from common.page import access, words
from common.page.access import AccessError, Role, User
from common.page.desk import DeskError
from common.page.guard import Guard
from common.page.site import Site, user_of
from common.page.words import LANGUAGES, Words
from common.people import NotEnrolled, PeopleError
from common.store import StoreError

TABS = (("live", "/"), ("people", "/people"), ("alerts", "/alerts"), ("history", "/history"), ("health", "/health"))
REFUSALS = (PeopleError, StoreError, LedgerError, DeskError, AccessError, ValueError)


@dataclass(frozen=True, slots=True)
class Page:
    """One open page: whose it is, and in which language."""

    site: Site
    guard: Guard
    request: Request
    user: User
    t: Words
    client: Client

    def may(self, role: Role) -> bool:
        """Whether the user's role included this one when the page was opened: what is worth showing."""
        return self.user.may(role)

    async def must(self, role: Role) -> None:
        """Make sure that the user may do something that needs this role, at the moment when they do it.

        A page can stay open for a day: meanwhile its user may have got another role, or its session may have ended.

        Raises:
            AccessError: they may not.
        """
        if not await self.guard.holds(self.request.scope["mien"], None):
            raise AccessError(self.t("log_in_again"))
        if not self.may(role):
            raise AccessError(self.t("not_allowed"))

    @contextlib.contextmanager
    def told(self) -> Iterator[None]:
        """Tell the user why something could not be done, instead of ending it."""
        try:
            yield
        except REFUSALS as error:
            said = self.t("not_enrolled") if isinstance(error, NotEnrolled) else str(error)
            with self.client:  # what was clicked may have been drawn anew meanwhile
                ui.notify(said, type="negative", timeout=8000, close_button=True, multi_line=True)


@contextlib.contextmanager
def frame(site: Site, guard: Guard, request: Request, active: str) -> Iterator[Page]:
    """Build the bar at the top; the page's own contents are built inside."""
    t = words.chosen(request.cookies, request.headers.get("accept-language", ""))
    page = Page(site, guard, request, user_of(request.scope), t, context.client)
    theme = request.cookies.get("mien_theme", "auto")
    ui.dark_mode({"light": False, "dark": True}.get(theme))
    ui.page_title("Mien" if active == "live" else f"Mien – {t(active)}")
    setup = {
        "language": t.language,
        "words": t.all(),
        "cameras": list(site.config.cameras),
        "state": site.telling(),
        "operator": page.may("operator"),
    }
    data = json.dumps(setup, ensure_ascii=False).replace("<", "\\u003c")
    ui.add_head_html(
        '<link rel="stylesheet" href="/page/open/page.css">'
        f'<script type="application/json" id="mien-setup">{data}</script>'
        '<script type="module" src="/page/open/page.js"></script>'
    )
    with ui.element("header").classes("bar"):
        ui.html("Mien", tag="strong", sanitize=False).classes("brand")
        with ui.element("nav").props(f'aria-label="{t("menu")}"').classes("tabs"):
            for key, path in TABS:
                current = ' aria-current="page"' if key == active else ""
                badge = '<span class="badge" data-badge hidden></span>' if key == "alerts" else ""
                badge += '<span class="dot" data-unwell hidden></span>' if key == "health" else ""
                ui.html(
                    f'<a class="tab" href="{path}"{current}><span>{t(key)}</span>{badge}</a>', sanitize=False
                ).classes("tab-place")
        ui.space()
        _menu(page)
    ui.html(
        f'<div class="notice" id="mien-lost" role="status" hidden>{t("lost")}</div>'
        '<div class="notice" id="mien-unwell" role="alert" hidden></div>',
        sanitize=False,
    ).classes("notices")
    with ui.element("main").classes(f"page page-{active}"):
        yield page


def _menu(page: Page) -> None:
    t, user = page.t, page.user

    def keep(cookie: str, value: str) -> None:
        ui.run_javascript(
            f'document.cookie = "{cookie}={value}; path=/; max-age=31536000; samesite=lax"; location.reload()'
        )

    async def log_out() -> None:
        session = page.request.scope["mien"]
        await page.site.desk.store(user.name, access.end, session.id)
        ui.navigate.to("/login")
        page.guard.ended(session.id)

    with (
        ui.button(user.name, icon="expand_more").props("flat no-caps dense").classes("me").mark("me"),
        ui.menu().props("auto-close=false").classes("my-menu"),
    ):
        ui.label(f"{user.name} · {t(user.role)}").classes("quiet menu-head")
        theme = page.request.cookies.get("mien_theme", "auto")
        for key, label in (("theme", t("theme")), ("language", t("language"))):
            ui.label(label).classes("quiet menu-head")
            chosen = theme if key == "theme" else t.language
            options = {k: t(k) for k in ("auto", "light", "dark")} if key == "theme" else dict(LANGUAGES)
            ui.toggle(
                options, value=chosen, on_change=lambda event, key=key: keep(f"mien_{key}", str(event.value))
            ).props("dense no-caps unelevated").classes("menu-choice")
        ui.html(
            f'<label class="menu-line"><input type="checkbox" id="mien-sound"> {t("sound")}</label>', sanitize=False
        )
        ui.separator()
        if page.may("admin"):
            ui.menu_item(t("users"), lambda: ui.navigate.to("/users"))
        ui.menu_item(t("change_password"), lambda: ui.navigate.to("/password"))
        ui.menu_item(t("log_out"), log_out).mark("log-out")


def asked(title: str, *, text: str = "") -> tuple[ui.dialog, ui.card]:
    """Return a dialog with a title and its card, to be filled and opened.

    It belongs to the whole page: what it was asked for by may be drawn anew while somebody still types.
    """
    with context.client.layout, ui.dialog() as dialog, ui.card().classes("dialog") as card:
        ui.label(title).classes("dialog-title")
        if text:
            ui.label(text).classes("quiet")
    return dialog, card
