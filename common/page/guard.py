"""The gate before everything that the page serves: addresses, origins, sessions, tokens, and headers for browsers."""

from __future__ import annotations

import asyncio
import http.cookies
import ipaddress
import socket
import time
from collections.abc import Callable, MutableMapping
from importlib.metadata import version
from typing import Any
from urllib.parse import quote, urlsplit

from common.page import access
from common.page.access import Session, Token
from common.page.desk import Desk
from common.settings import Config

Scope = MutableMapping[str, Any]
App = Callable[[Scope, Any, Any], Any]

LIBRARIES = f"/_nicegui/{version('nicegui')}/static/"  # asked for without importing it: that takes a second
OPEN = ("/login", "/healthz", "/page/open/", "/favicon.ico", LIBRARIES)  # for anybody: none of it shows data
FOR_TOKENS = ("/api/", "/metrics")  # what programs may read with a token
FRESH_S = 5.0  # a session is looked up in the store again after this
_REFUSED = 4401  # of a WebSocket whose session has ended

_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' blob: data:; media-src 'self' data:; font-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; form-action 'self'; base-uri 'none'; object-src 'none'"
)


class Guard:
    """Lets a request through to the page, or not."""

    def __init__(self, app: App, config: Config, desk: Desk) -> None:
        self._app = app
        self._config = config.dashboard
        self._desk = desk
        self._known: dict[bytes, tuple[Session, float]] = {}  # sessions and when they were looked up
        self._open: dict[bytes, set[asyncio.Task[Any]]] = {}  # their WebSockets
        self.cookie = f"mien_{self._config.port}"
        self._names = {"localhost", socket.gethostname().lower(), *(name.lower() for name in self._config.names)}
        if self._config.host not in ("0.0.0.0", "::"):
            self._names.add(self._config.host.lower())

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await self._http(scope, receive, self._with_headers(scope, send))
        elif scope["type"] == "websocket":
            await self._websocket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    # --- sessions ---

    async def session(self, secret: str | None) -> Session | None:
        """Return the session that a browser's cookie stands for, if it has not ended."""
        if not secret:
            return None
        key = access.digest(secret)
        known = self._known.get(key)
        if known is not None and time.monotonic() - known[1] < FRESH_S:
            return known[0]
        found = await self._looked_up(key)
        if found is None:
            self.ended(key)
        else:
            self._known[key] = (found, time.monotonic())
        return found

    def forget(self) -> None:
        """Users have changed: look every session up again at its next use."""
        self._known.clear()

    def ended(self, key: bytes) -> None:
        """A session has ended: close what it has open."""
        self._known.pop(key, None)
        for task in self._open.pop(key, set()):
            task.cancel("session")

    def end(self) -> None:
        """Close everything that is open: the page ends."""
        for tasks in self._open.values():
            for task in tasks:
                task.cancel()

    async def watch(self) -> None:
        """Look every session with open pages up again now and then: they end, also while they are in use."""
        while True:
            await asyncio.sleep(FRESH_S)
            for key in list(self._open):
                if await self._looked_up(key) is None:
                    self.ended(key)

    async def holds(self, session: Session | None, token: Token | None) -> bool:
        """Whether who has opened something that lasts may still have it."""
        if session is not None:
            found = await self._looked_up(session.id)
            return found is not None and found.user.role == session.user.role
        return token is not None and await self._desk.store(None, access.token_holds, token.id)

    async def _looked_up(self, key: bytes) -> Session | None:
        return await self._desk.store(
            None,
            access.session,
            key,
            longest_s=self._config.session_hours * 3600,
            idle_s=self._config.idle_minutes * 60,
        )

    # --- requests ---

    async def _http(self, scope: Scope, receive: Any, send: Any) -> None:
        path: str = scope["path"]
        headers = _headers(scope)
        if not self._is_here(headers.get("host", "")):
            await _answer(send, 400, "This address is not one of Mien's: add its name to dashboard.names.")
            return
        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and not self._same_origin(scope, headers):
            await _answer(send, 403, "This request came from another site.")
            return
        if scope["method"] == "OPTIONS":
            await _answer(send, 405, "Not offered.")
            return
        session = await self.session(self._cookie_of(headers))
        scope["mien"] = session
        if path.startswith(OPEN):
            await self._app(scope, receive, send)
        elif path.startswith(FOR_TOKENS) and session is None:
            scope["mien_token"] = await self._token(headers) if scope["method"] == "GET" else None
            if scope["mien_token"] is not None:
                await self._app(scope, receive, send)
            else:
                extra = [(b"www-authenticate", b'Bearer realm="Mien"')]
                await _answer(send, 401, "A token is needed: Authorization: Bearer …", extra)
        elif session is None:
            if scope["method"] == "GET" and "text/html" in headers.get("accept", ""):
                query = scope.get("query_string", b"").decode("latin-1")
                there = path + ("?" + query if query else "")
                target = "/login" if there == "/" else f"/login?next={quote(there, safe='')}"
                await _answer(send, 303, "", [(b"location", target.encode())])
            else:
                await _answer(send, 401, "Log in first.")
        elif session.user.one_time and not path.startswith(("/password", "/logout", "/_nicegui")):
            await _answer(send, 303, "", [(b"location", b"/password")])
        else:
            await self._app(scope, receive, send)

    async def _websocket(self, scope: Scope, receive: Any, send: Any) -> None:
        headers = _headers(scope)
        session = None
        if self._is_here(headers.get("host", "")):
            if self._same_origin(scope, headers):
                session = await self.session(self._cookie_of(headers))
            # Programs say where they come from seldom; if they do, it must be here. Browsers always do.
            elif scope["path"].startswith(FOR_TOKENS) and not headers.get("origin"):
                scope["mien"], scope["mien_token"] = None, await self._token(headers)
                if scope["mien_token"] is not None:
                    await self._app(scope, receive, send)
                    return
        if session is None or session.user.one_time:
            await receive()
            await send({"type": "websocket.close", "code": _REFUSED})  # before accepting: answered with 403
            return
        scope["mien"] = session
        task = asyncio.ensure_future(self._app(scope, receive, send))
        self._open.setdefault(session.id, set()).add(task)
        try:
            await asyncio.wait({task})
            if task.cancelled():
                await send({"type": "websocket.close", "code": _REFUSED})
            else:
                task.result()
        finally:
            task.cancel()
            tasks = self._open.get(session.id, set())
            tasks.discard(task)
            if not tasks:
                self._open.pop(session.id, None)

    async def _token(self, headers: dict[str, str]) -> Token | None:
        kind, _, secret = headers.get("authorization", "").partition(" ")
        if kind.lower() != "bearer" or not secret:
            return None
        return await self._desk.store(None, access.token, secret.strip())

    # --- what a request says of itself ---

    def _cookie_of(self, headers: dict[str, str]) -> str | None:
        try:
            cookies = http.cookies.SimpleCookie(headers.get("cookie", ""))
        except http.cookies.CookieError:
            return None
        found = cookies.get(self.cookie)
        return found.value if found else None

    def _is_here(self, host: str) -> bool:
        """Whether a browser means this machine: a name that an attacker's own domain was pointed at does not pass."""
        name = urlsplit(f"//{host}").hostname or ""
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        return address.is_loopback or not self._config.loopback

    def _same_origin(self, scope: Scope, headers: dict[str, str]) -> bool:
        origin = urlsplit(headers.get("origin", ""))
        scheme = {"http": "http", "ws": "http", "https": "https", "wss": "https"}.get(scope["scheme"], "")
        return origin.scheme == scheme and origin.netloc.lower() == headers.get("host", "").lower() != ""

    def _with_headers(self, scope: Scope, send: Any) -> Any:
        fixed = scope["path"].startswith(("/_nicegui/", "/page/"))

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                extra = [
                    (b"content-security-policy", _POLICY.encode()),
                    (b"x-content-type-options", b"nosniff"),
                    (b"referrer-policy", b"same-origin"),
                    (b"x-frame-options", b"DENY"),
                ]
                if not fixed:
                    extra.append((b"cache-control", b"no-store"))
                message["headers"] = [
                    pair for pair in message.get("headers", []) if fixed or pair[0].lower() != b"cache-control"
                ] + extra
            await send(message)

        return with_headers


def _headers(scope: Scope) -> dict[str, str]:
    return {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}


async def _answer(send: Any, status: int, text: str, extra: list[tuple[bytes, bytes]] | None = None) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *(extra or [])]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
