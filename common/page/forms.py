"""The pages without scripts: logging in, and changing one's password."""

from __future__ import annotations

import html
import secrets
import time
from urllib.parse import parse_qs

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from common.page import access, words
from common.page.access import AccessError, Session, WrongPassword
from common.page.attempts import Attempts
from common.page.desk import Desk
from common.page.guard import LIBRARIES, Guard
from common.page.words import Words
from common.words import clock

_MAX_BYTES = 4096
# What the pages behind are made with: fetched while somebody types, so that the first page is there at once.
_LIBRARIES = (
    "vue.esm-browser.prod.js", "quasar.umd.prod.js", "nicegui.js", "socket.io.min.js", "dompurify.mjs", "nicegui.css",
    "quasar.unimportant.prod.css", "quasar.important.prod.css", "fonts.css", "lang/en-US.umd.prod.js",
)  # fmt: skip
_OWN = ("page.css", "page.js", "live.js", "overlay.js", "panel.js")
_FORM_COOKIE = "mien_form"


def local(target: str) -> str:
    """Return a path of this page to go to after the log-in; anything else counts as the first page."""
    plain = target.isprintable() and target.startswith("/") and not target.startswith(("//", "/\\", "/log"))
    return target if plain else "/"


class Forms:
    """Serves ``/login`` and ``/password``. ``secure``: cookies only over https."""

    def __init__(self, desk: Desk, *, secure: bool) -> None:
        self.guard: Guard | None = None  # made after the routes that it guards
        self._desk = desk
        self._secure = secure
        self._attempts = Attempts()
        self.router = APIRouter()
        self.router.add_api_route("/login", self.show_login, methods=["GET"], include_in_schema=False)
        self.router.add_api_route("/login", self.log_in, methods=["POST"], include_in_schema=False)
        self.router.add_api_route("/password", self.show_password, methods=["GET"], include_in_schema=False)
        self.router.add_api_route("/password", self.change, methods=["POST"], include_in_schema=False)

    async def show_login(self, request: Request) -> Response:
        session: Session | None = request.scope.get("mien")
        if session is not None:
            return RedirectResponse("/", 303)
        return self._login(request)

    async def log_in(self, request: Request) -> Response:
        t = words.chosen(request.cookies, request.headers.get("accept-language", ""))
        fields = await self._fields(request)
        if fields is None:
            return self._login(request, t("stale_form"), 400)
        name, password = fields.get("name", "")[:200], fields.get("password", "")
        keys = (f"name {name.strip().casefold()}", f"address {request.client.host if request.client else ''}")
        wait_s = self._attempts.wait_s(keys, time.monotonic())
        if wait_s > 0:
            return self._login(request, t("wait", time=clock(wait_s + 1)), 429)
        # Counted before it is known: tries that come at the same time must not all be free.
        self._attempts.wrong(keys, time.monotonic())
        user = await self._desk.store(None, access.check, name, password)
        if user is None:
            return self._login(request, t("wrong"), 403)
        self._attempts.right(keys)
        secret = await self._desk.store(user.name, access.begin, user)
        response = RedirectResponse("/password" if user.one_time else local(fields.get("next", "/")), 303)
        assert self.guard is not None
        response.set_cookie(self.guard.cookie, secret, httponly=True, samesite="lax", secure=self._secure)
        response.delete_cookie(_FORM_COOKIE)
        return response

    async def show_password(self, request: Request) -> Response:
        return self._password(request)

    async def change(self, request: Request) -> Response:
        t = words.chosen(request.cookies, request.headers.get("accept-language", ""))
        session: Session = request.scope["mien"]
        fields = await self._fields(request)
        if fields is None:
            return self._password(request, t("stale_form"), 400)
        if fields.get("new", "") != fields.get("again", ""):
            return self._password(request, t("not_equal"), 400)
        keys = (f"name {session.user.name.casefold()}",)
        wait_s = self._attempts.wait_s(keys, time.monotonic())
        if wait_s > 0:
            return self._password(request, t("wait", time=clock(wait_s + 1)), 429)
        self._attempts.wrong(keys, time.monotonic())  # before it is known, as above
        try:
            await self._desk.store(
                session.user.name, access.set_password, session.user, fields.get("old", ""), fields.get("new", ""),
                keep=session.id,
            )  # fmt: skip
        except WrongPassword:
            return self._password(request, t("wrong_present"), 400)
        except AccessError as error:
            self._attempts.right(keys)
            return self._password(request, str(error), 400)
        self._attempts.right(keys)
        assert self.guard is not None
        self.guard.forget()
        response = RedirectResponse("/", 303)
        response.delete_cookie(_FORM_COOKIE)
        return response

    async def _fields(self, request: Request) -> dict[str, str] | None:
        """Return what was filled in; None if the form is not one that this browser was given."""
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _MAX_BYTES:
                return None
        fields = {key: values[-1] for key, values in parse_qs(body.decode("utf-8", "replace")).items()}
        given = request.cookies.get(_FORM_COOKIE, "")
        same = given and secrets.compare_digest(given.encode(), fields.get("form", "").encode())
        return fields if same else None

    def _login(self, request: Request, problem: str = "", status: int = 200) -> Response:
        t = words.chosen(request.cookies, request.headers.get("accept-language", ""))
        target = local(request.query_params.get("next", "/"))
        inputs = _input("name", t("user_name"), "text", "username") + _input(
            "password", t("password"), "password", "current-password"
        )
        inputs += f'<input type="hidden" name="next" value="{html.escape(target)}">'
        return self._form(t, t("log_in"), inputs, problem, "" if problem else t("first_time"), status)

    def _password(self, request: Request, problem: str = "", status: int = 200) -> Response:
        t = words.chosen(request.cookies, request.headers.get("accept-language", ""))
        session: Session = request.scope["mien"]
        inputs = (
            f'<input type="hidden" name="user" autocomplete="username" value="{html.escape(session.user.name)}">'
            + _input("old", t("present_password"), "password", "current-password")
            + _input("new", t("new_password", count=access.MIN_PASSWORD), "password", "new-password")
            + _input("again", t("new_again"), "password", "new-password")
        )
        hint = t("choose_password") if session.user.one_time else ""
        return self._form(t, t("change_password"), inputs, problem, hint, status)

    def _form(self, t: Words, title: str, inputs: str, problem: str, hint: str, status: int) -> Response:
        form = secrets.token_urlsafe(24)
        shown = f'<p class="problem" role="alert">{html.escape(problem)}</p>' if problem else ""
        shown += f'<p class="hint">{html.escape(hint)}</p>' if hint else ""
        page = f"""<!doctype html>
<html lang="{t.language}"><head><meta charset="utf-8"><title>Mien – {html.escape(title)}</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<link rel="stylesheet" href="/page/open/form.css">{_ahead()}</head>
<body><main><h1>Mien</h1><form method="post">{inputs}<input type="hidden" name="form" value="{form}">
{shown}<button type="submit">{html.escape(title)}</button></form></main></body></html>"""
        response = HTMLResponse(page, status)
        response.set_cookie(_FORM_COOKIE, form, httponly=True, samesite="strict", secure=self._secure, max_age=3600)
        return response


def _ahead() -> str:
    paths = [LIBRARIES + name for name in _LIBRARIES]
    paths += [f"/page/open/{name}" for name in _OWN]
    return "".join(f'<link rel="prefetch" href="{path}">' for path in paths)


def _input(name: str, label: str, kind: str, complete: str) -> str:
    first = " autofocus" if name in ("name", "old") else ""
    field = f'<input name="{name}" type="{kind}" autocomplete="{complete}" required{first}>'
    return f"<label>{html.escape(label)}{field}</label>"
