"""The administrators' page: who may log in, tokens for programs, and the audit log."""

from __future__ import annotations

import html
from collections.abc import Awaitable, Callable
from typing import Any

from nicegui import ui
from sqlalchemy import Row, select
from starlette.requests import Request

from common.page import access, told
from common.page.access import ROLES, Token, User
from common.page.confirm import confirm
from common.page.frame import Page, asked, frame
from common.page.guard import Guard
from common.page.site import Site
from common.schema import AUDIT
from common.store import Store

LINES = 200  # of the audit log, the newest


def register(site: Site, guard: Guard) -> None:
    """Add the page's route."""

    @ui.page("/users")
    async def users(request: Request) -> None:
        with frame(site, guard, request, "users") as page:
            if not page.may("admin"):
                ui.label(page.t("not_allowed")).classes("quiet empty")
                return
            await _Users(page).build()


def audit_lines(store: Store, count: int = LINES) -> list[Row[Any]]:
    """Return the newest lines of the audit log, newest first."""
    with store.read() as connection:
        return list(connection.execute(select(AUDIT).order_by(AUDIT.c.id.desc()).limit(count)).all())


class _Users:
    def __init__(self, page: Page) -> None:
        self._page = page
        self._t = page.t
        self._users: ui.element
        self._tokens: ui.element
        self._log: ui.html

    async def build(self) -> None:
        t = self._t
        with ui.element("div").classes("page-head"):
            ui.label(t("users")).classes("heading")
            ui.space()
            ui.button(t("add_user"), icon="person_add", on_click=self._add_user).props("no-caps unelevated").mark("add")
        self._users = ui.element("div").classes("card")
        with ui.element("div").classes("page-head section"):
            ui.label(t("tokens")).classes("heading")
            ui.space()
            ui.button(t("add_token"), icon="key", on_click=self._add_token).props("no-caps flat").mark("add-token")
        self._tokens = ui.element("div").classes("card")
        ui.label(t("audit")).classes("heading section")
        self._log = ui.html("", sanitize=False).classes("card")
        await self._fill()

    async def _fill(self) -> None:
        t, desk = self._t, self._page.site.desk
        self._users.clear()
        with self._users:
            for user in await desk.store(None, access.users):
                self._user(user)
        self._tokens.clear()
        tokens = await desk.store(None, access.tokens)
        with self._tokens:
            for token in tokens:
                self._token(token)
            if not tokens:
                ui.label(t("no_tokens")).classes("quiet")
        lines = await desk.store(None, audit_lines)
        heads = (t("audit_when"), t("who"), t("audit_did"), t("audit_about"))
        head = "".join(f"<th>{html.escape(word)}</th>" for word in heads)
        body = "".join(
            f"<tr><td>{told.whole_time(line.at)}</td><td>{html.escape(line.who)}</td>"
            f"<td>{html.escape(line.did)}</td><td>{html.escape(line.about)}</td></tr>"
            for line in lines
        )
        self._log.set_content(f'<table class="lines"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>')

    def _user(self, user: User) -> None:
        t = self._t
        own = user.id == self._page.user.id
        with ui.element("div").classes("user-line").mark(f"user-{user.name}"):
            seen = t("never_logged_in") if user.seen_at is None else t("last_log_in", time=told.moment(t, user.seen_at))
            ui.label(user.name + (f" ({t('you')})" if own else "")).classes("person-name")
            ui.label(seen).classes("quiet")
            ui.space()
            ui.select(
                {role: t(role) for role in ROLES},
                value=user.role,
                on_change=lambda event: self._do(access.set_role, user.id, event.value),
            ).props(f'outlined dense aria-label="{t("role")}"').mark(f"role-{user.name}")
            if own:  # a one-time password would end this page before anybody has read it
                ui.button(t("change_password"), on_click=lambda: ui.navigate.to("/password")).props("flat no-caps")
            else:
                reset = ui.button(t("reset_password"), on_click=lambda: self._reset(user)).props("flat no-caps")
                reset.mark(f"reset-{user.name}")
                self._removes(user.name, access.remove_user, user.id).mark(f"remove-{user.name}")

    def _token(self, token: Token) -> None:
        t = self._t
        with ui.element("div").classes("user-line"):
            used = t("never_used") if token.seen_at is None else t("last_used", time=told.moment(t, token.seen_at))
            if token.expires_at is not None:
                used += " · " + t("ends", day=told.whole_time(token.expires_at)[:10])
            ui.label(token.name).classes("person-name")
            ui.label(used).classes("quiet")
            ui.space()
            self._removes(token.name, access.remove_token, token.id).mark(f"remove-token-{token.name}")

    def _removes(self, name: str, function: Callable[..., Any], number: int) -> ui.button:
        """Build the button that removes somebody or something of a name, when that is confirmed."""
        t = self._t

        def ask() -> None:
            confirm(self._page, f"{name}: {t('remove')}?", lambda: self._do(function, number), label=t("remove"))

        return ui.button(t("remove"), on_click=ask).props("flat no-caps")

    async def _do(self, function: Callable[..., Any], *args: Any) -> Any:
        with self._page.told():
            await self._page.must("admin")
            try:
                return await self._page.site.desk.store(self._page.user.name, function, *args)
            finally:
                self._page.guard.forget()
                await self._fill()
        return None

    async def _reset(self, user: User) -> None:
        password = await self._do(access.new_password, user.id)
        if password:
            with self._page.client:  # the list, and in it what was clicked, has been drawn anew
                self._secret(self._t("one_time_is", name=user.name), password)

    def _add_user(self) -> None:
        t = self._t
        dialog, card = asked(t("add_user"))
        with card:
            name = ui.input(t("user_name")).props("outlined autofocus").classes("wide").mark("user-name")
            role = ui.select({role: t(role) for role in ROLES}, value="operator", label=t("role"))
            role.props("outlined").classes("wide")

            async def save() -> None:
                password = await self._do(access.add_user, name.value or "", role.value)
                if password:
                    dialog.close()
                    self._secret(t("one_time_is", name=name.value), password)

            self._buttons(dialog, save)
        dialog.open()

    def _add_token(self) -> None:
        t = self._t
        dialog, card = asked(t("add_token"))
        with card:
            name = ui.input(t("token_for")).props("outlined autofocus").classes("wide").mark("token-name")
            days = ui.number(t("token_days"), min=1, max=3650, precision=0).props("outlined").classes("wide")

            async def save() -> None:
                with self._page.told():
                    await self._page.must("admin")
                    secret = await self._page.site.desk.store(
                        self._page.user.name, access.add_token, name.value or "", days=days.value or None
                    )
                    dialog.close()
                    await self._fill()
                    self._secret(t("token_is"), secret)

            self._buttons(dialog, save)
        dialog.open()

    def _buttons(self, dialog: ui.dialog, save: Callable[[], Awaitable[None]]) -> None:
        with ui.row().classes("buttons"):
            ui.button(self._t("cancel"), on_click=dialog.close).props("flat no-caps")
            ui.button(self._t("save"), on_click=save).props("no-caps unelevated").mark("save")

    def _secret(self, text: str, secret: str) -> None:
        dialog, card = asked(text)
        with card:
            ui.label(secret).classes("secret").mark("secret")
            with ui.row().classes("buttons"):
                ui.button(self._t("close"), on_click=dialog.close).props("no-caps unelevated")
        dialog.open()
