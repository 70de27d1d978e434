"""All routes of the page, put together."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from nicegui import ui
from starlette.staticfiles import StaticFiles

from common.page import alerts, api, health, history, live, people, report, users
from common.page.feed import Watcher
from common.page.forms import Forms
from common.page.guard import Guard
from common.page.site import Site

_STATIC = Path(__file__).parent / "static"


def build(app: FastAPI, site: Site, guard: Guard) -> None:
    """Give an application all routes of the page."""
    forms = Forms(site.desk, secure=site.config.dashboard.tls_cert is not None)
    forms.guard = guard
    app.include_router(forms.router)
    app.mount("/page/open", StaticFiles(directory=_STATIC), name="page")

    @app.get("/healthz", include_in_schema=False)
    async def healthz() -> Response:
        """Whether the page is served and the processes are well; no details, for anybody may ask."""
        well = not site.unwell()
        return PlainTextResponse("ok" if well else "not well", 200 if well else 503)

    @app.get("/page/session", include_in_schema=False)
    async def session() -> Response:
        """Whether the browser is still logged in: the guard answers when it is not."""
        return Response(status_code=204)

    @app.websocket("/feed")
    async def feed(websocket: WebSocket) -> None:
        await websocket.accept()
        watcher = site.feed.join()
        watcher.tell(json.dumps(site.telling(), ensure_ascii=False))
        sender = asyncio.create_task(_send(websocket, watcher))
        try:
            while True:
                _heed(site, watcher, await websocket.receive_text())
        except (WebSocketDisconnect, KeyError):
            pass  # it has gone
        finally:
            site.feed.leave(watcher)
            sender.cancel()

    @app.get("/live/recent", include_in_schema=False)
    async def recent(track: int, person: int | None = None, number: int | None = None) -> Response:
        return JSONResponse(site.recent.moments(track=track, person=person, number=number))

    api.build(app, site, guard)
    report.register(app, site)
    people.register(app, site, guard)
    for page in (live, alerts, history, health, users):
        page.register(site, guard)
    ui.run_with(
        app,
        title="Mien",
        tailwind=False,
        show_welcome_message=False,
        reconnect_timeout=5.0,
        favicon="👁",
        binding_refresh_interval=None,  # all that is bound says when it changes
    )


async def _send(websocket: WebSocket, watcher: Watcher) -> None:
    with contextlib.suppress(WebSocketDisconnect, RuntimeError, OSError):  # it has gone: its reader notices, too
        while True:
            what = await watcher.next()
            if isinstance(what, str):
                await websocket.send_text(what)
            else:
                await websocket.send_bytes(what)


def _heed(site: Site, watcher: Watcher, text: str) -> None:
    """Do what a browser says: ``{"watch": [cameras]}``, or ``{"drawn": camera}``. Anything else is left out."""
    if len(text) > 4096:
        return
    try:
        said: Any = json.loads(text)
    except ValueError:
        return
    if not isinstance(said, dict):
        return
    if isinstance(said.get("watch"), list):
        site.feed.watch(watcher, said["watch"][:64])
    if isinstance(said.get("drawn"), str):
        watcher.answered(said["drawn"])
