"""The interface for programs: read-only, with tokens, described by OpenAPI; and figures for Prometheus."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Literal

import swagger_ui_bundle
from fastapi import (
    Depends,
    FastAPI,
    HTTPException,
    Query,
    Request,
    WebSocket,
    WebSocketDisconnect,
    WebSocketException,
)
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse
from fastapi.security import HTTPBearer
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from pydantic import BaseModel, Field
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from common import alert_store, history_store, people
from common.alert_store import Episode
from common.history_store import HistoryError, Subject
from common.messages import Expression, Identity
from common.page import told
from common.page.access import Session, Token
from common.page.guard import Guard
from common.page.ribbon import step_for
from common.page.site import Site
from common.page.stream import Stream, StreamError, as_event, as_text
from common.page.words import Words
from common.status import SILENT_S

LONGEST_S = 31 * 86400.0
Seconds = Annotated[float, Query(ge=0, le=1e11, description="unix seconds")]
_ENGLISH = Words("en")
_bearer = HTTPBearer(auto_error=False, description="a token made on the page, by an administrator")


class ApiPerson(BaseModel):
    """Somebody who is enrolled and has agreed to be recognised."""

    id: int
    name: str
    role: str


class Here(BaseModel):
    """Somebody who is in view now."""

    camera: str
    track: int
    since: float = Field(description="unix seconds")
    seen_at: float = Field(description="unix seconds")
    identity: Identity
    expression: Expression


class ApiCamera(BaseModel):
    """Whether a camera gives pictures."""

    camera: str
    state: str = Field(description="online, paused, stalled, offline, ended; waiting: nothing was heard of it yet")
    for_s: float
    reason: str | None


class ApiAlert(BaseModel):
    """An episode; times are unix seconds."""

    id: int
    about: str
    state: str
    camera: str
    person: int | None
    name: str | None
    unknown: int | None
    label: str | None
    began_at: float
    opened_at: float
    acknowledged_at: float | None
    acknowledged_by: str | None
    closed_at: float | None
    judgement: str | None
    text: str


class ApiStep(BaseModel):
    """A step of a history in which something was seen; without ``label`` nothing could be assessed."""

    begin: float
    present_s: float
    assessed_s: float
    label: str | None


class ApiHistory(BaseModel):
    """A person's period. The four parts of the time add up to ``period_s``; none is "neutral"."""

    person: int
    begin: float
    end: float
    step_s: int
    period_s: float
    offline_s: float
    absent_s: float
    unassessed_s: float
    assessed_s: float
    expressions_s: dict[str, float]
    steps: list[ApiStep]


Topics = Annotated[
    str, Query(max_length=200, description="of results, corrections, camera, alerts, stats; all but stats if empty")
]
Cameras = Annotated[str, Query(max_length=4096, description="names with commas between; all if empty")]
Rate = Annotated[float | None, Query(gt=0, le=240, description="results a second and camera at most; all if empty")]
Names = Annotated[bool, Query(description="false: nothing that says who somebody is")]


def build(app: FastAPI, site: Site, guard: Guard) -> None:
    """Add ``/api`` and ``/metrics``; the guard has checked the token or the session."""
    api = FastAPI(
        title="Mien",
        version="1",
        description="Who is here, and how they look. Read-only. An expression is what a face shows, not what is felt.",
        docs_url=None,
        redoc_url=None,
        dependencies=[Depends(_bearer)],
    )
    desk = site.desk

    @api.get("/", include_in_schema=False)
    async def describe() -> HTMLResponse:
        return get_swagger_ui_html(
            openapi_url="/api/openapi.json",
            title="Mien – API",
            swagger_js_url="/page/swagger/swagger-ui-bundle.js",
            swagger_css_url="/page/swagger/swagger-ui.css",
            swagger_favicon_url="/favicon.ico",
        )

    @api.get("/v1/people")
    async def everybody() -> list[ApiPerson]:
        """Everybody who is enrolled and has agreed."""
        found = await desk.store(None, people.everybody)
        now = time.time()
        return [ApiPerson(id=p.id, name=p.name, role=p.role) for p in found if not p.withheld(now)]

    @api.get("/v1/here")
    async def here() -> list[Here]:
        """Who is in view now, and how they look; up to three seconds old."""
        return [
            Here(
                camera=trail.camera, track=trail.face.track, since=trail.since, seen_at=trail.last,
                identity=trail.face.identity, expression=trail.face.expression,
            )
            for trail in site.recent.here(time.monotonic())
        ]  # fmt: skip

    @api.get("/v1/cameras")
    async def cameras() -> list[ApiCamera]:
        """Whether each camera gives pictures."""
        return [
            ApiCamera(camera=name, state=one["state"], for_s=one["for_s"], reason=one["reason"])
            for name, one in site.cameras().items()
        ]

    @api.get("/v1/alerts")
    async def alerts(
        request: Request,
        begin: Annotated[float | None, Query(description="unix seconds")] = None,
        end: Annotated[float | None, Query(description="unix seconds")] = None,
        state: Literal["open", "closed", "all"] = "all",
        person: int | None = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> list[ApiAlert]:
        """Episodes, open ones first, then the newest first."""
        wanted = {"open": True, "closed": False}.get(state)
        if person is not None:
            await desk.audit(_asker(request), "viewed", f"alerts of #{person} by the interface for programs")
        found = await desk.ledger(
            alert_store.episodes, begin=begin, end=end, is_open=wanted, person=person, consent_at=time.time(),
            limit=limit, offset=offset,
        )  # fmt: skip
        return [_alert(one) for one in found]

    @api.get("/v1/history/{person}")
    async def history(request: Request, person: int, begin: Seconds, end: Seconds) -> ApiHistory:
        """A person's history, at most 31 days at once."""
        session: Session | None = request.scope.get("mien")
        if session is not None and not session.user.may("operator"):
            raise HTTPException(403, "your role does not allow this")
        if end - begin > LONGEST_S:
            raise HTTPException(422, "at most 31 days can be asked for at once")
        known = await desk.store(None, people.everybody)
        if all(one.id != person or one.withheld(time.time()) for one in known):
            raise HTTPException(404, f"nobody of the number {person} is enrolled")
        subject, step_s = Subject(person=person), step_for(begin, max(end, begin + 1))
        await desk.audit(_asker(request), "viewed", f"history of #{person} by the interface for programs")
        try:
            summary = await desk.ledger(history_store.summary, subject, begin, end)
            ribbon = await desk.ledger(history_store.ribbon, subject, begin, end, step_s=step_s)
        except HistoryError as error:
            raise HTTPException(422, str(error)) from error
        labels = list(summary.expressions_s)
        return ApiHistory(
            person=person, begin=begin, end=end, step_s=step_s, period_s=summary.period_s,
            offline_s=summary.offline_s, absent_s=summary.absent_s, unassessed_s=summary.unassessed_s,
            assessed_s=summary.assessed_s, expressions_s={str(k): v for k, v in summary.expressions_s.items()},
            steps=[
                ApiStep(
                    begin=ribbon.begin + index * step_s,
                    present_s=float(ribbon.present_s[index]),
                    assessed_s=float(ribbon.assessed_s[index]),
                    label=labels[ribbon.dominant[index]] if ribbon.assessed_s[index] > 0 else None,
                )
                for index in range(len(ribbon))
                if ribbon.present_s[index] > 0
            ],
        )  # fmt: skip

    @api.get(
        "/v1/stream",
        response_class=StreamingResponse,
        responses={
            200: {"content": {"text/event-stream": {}}, "description": "Server-Sent Events, until one side ends it"},
            503: {"description": "too many programs are listening already"},
        },
    )
    async def stream(
        request: Request, topics: Topics = "", cameras: Cameras = "", rate: Rate = None, names: Names = True
    ) -> StreamingResponse:
        """News as they come. The event's name is the first part of the topic, its data the message of the public
        protocol (docs/protocol.md) as JSON.

        Who reads too slowly gets the newest result of each camera, the last 256 of everything else, and an event
        `missed` with how many messages that left out. A comment every five seconds is a sign of life.

        A WebSocket at the same address, with the same parameters, says the same: each of its messages is an object of
        `topic` and `message`.
        """
        try:
            joined = site.streams.join(topics=topics, cameras=cameras, rate=rate, names=names)
        except StreamError as error:
            raise HTTPException(503 if "already" in str(error) else 422, str(error)) from error
        session, token = request.scope.get("mien"), request.scope.get("mien_token")

        async def events() -> AsyncIterator[str]:
            yield "retry: 2000\n\n"
            async for item in joined.follow(lambda: guard.holds(session, token)):
                yield as_event(item)

        return Events(events(), leave=lambda: site.streams.leave(joined))

    # Of the application itself: the other one asks for the token in a way that WebSockets have not.
    @app.websocket("/api/v1/stream")
    async def socket(
        websocket: WebSocket, topics: Topics = "", cameras: Cameras = "", rate: Rate = None, names: Names = True
    ) -> None:
        session, token = websocket.scope.get("mien"), websocket.scope.get("mien_token")
        try:
            joined = site.streams.join(topics=topics, cameras=cameras, rate=rate, names=names)
        except StreamError as error:
            raise WebSocketException(1013 if "already" in str(error) else 1008, str(error)) from error
        try:
            await websocket.accept()
            async with asyncio.TaskGroup() as tasks:
                reader = tasks.create_task(_until_gone(websocket, joined))
                with contextlib.suppress(WebSocketDisconnect, RuntimeError, OSError):  # it has gone
                    async for item in joined.follow(lambda: guard.holds(session, token)):
                        if item is not None:
                            await websocket.send_text(as_text(item))
                    await websocket.close(1001)
                reader.cancel()
        finally:
            site.streams.leave(joined)

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        registry = CollectorRegistry()
        registry.register(_Figures(site))
        return PlainTextResponse(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    app.mount("/api", api)
    app.mount("/page/swagger", StaticFiles(directory=Path(str(swagger_ui_bundle.swagger_ui_path))), name="swagger")


class Events(StreamingResponse):
    """Server-Sent Events; ``leave`` is called when they end, also when they are broken off before the first one."""

    def __init__(self, events: AsyncIterator[str], *, leave: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream", headers={"x-accel-buffering": "no"})
        self._leave = leave

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Not in the generator: one that has not begun has nothing to leave by when it is thrown away.
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._leave()


async def _until_gone(websocket: WebSocket, joined: Stream) -> None:
    """Read until the other side goes; what it says is not asked for."""
    with contextlib.suppress(WebSocketDisconnect):
        while (await websocket.receive())["type"] != "websocket.disconnect":
            pass
    joined.end()


class _Figures:
    """What the processes say of themselves, as Prometheus asks for it."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def collect(self) -> list[Metric]:
        labels = ["process"]
        kinds = {
            "in_per_second": ("taken in, per second", "in_s"),
            "out_per_second": ("given out, per second", "out_s"),
            "dropped": ("left out since the process started", "dropped"),
            "work_p50_milliseconds": ("work time, median", "p50_ms"),
            "work_p95_milliseconds": ("work time, 95th percentile", "p95_ms"),
            "resident_megabytes": ("memory", "rss_mb"),
            "cpu_cores": ("processor time per second", "cpu"),
            "bad_messages": ("messages that could not be trusted", "bad_messages"),
        }
        found: list[Metric] = []
        rows = self._site.board.rows(time.monotonic())
        for name, (text, field) in kinds.items():
            family = GaugeMetricFamily(f"mien_process_{name}", text, labels=labels)
            for row in rows:
                if row.stats is not None and row.silent_s <= SILENT_S:
                    family.add_metric([row.name], float(getattr(row.stats, field)))
            found.append(family)
        up = GaugeMetricFamily("mien_process_up", "1 while a process is well", labels=labels)
        restarts = GaugeMetricFamily("mien_process_restarts", "since the start", labels=labels)
        for row in rows:
            up.add_metric([row.name], float(not row.style))
            if row.restarts is not None:
                restarts.add_metric([row.name], float(row.restarts))
        camera = GaugeMetricFamily("mien_camera_online", "1 while pictures come", labels=["camera"])
        for name, state in self._site.cameras().items():
            camera.add_metric([name], float(state["state"] == "online"))
        latency = GaugeMetricFamily("mien_latency_milliseconds", "by stage", labels=["stage", "quantile"])
        for stage, (median, p95) in self._site.latencies().items():
            latency.add_metric([stage, "0.5"], median)
            latency.add_metric([stage, "0.95"], p95)
        faces = GaugeMetricFamily(
            "mien_faces_in_view", "now", value=len(list(self._site.recent.here(time.monotonic())))
        )
        waiting = sum(one.acknowledged_at is None for one in self._site.episodes)
        alerts = GaugeMetricFamily("mien_alerts_open", "episodes that nobody has acknowledged", value=waiting)
        return [*found, up, restarts, camera, latency, faces, alerts]


def _asker(request: Request) -> str:
    """Return who asks, as the audit log names them."""
    session: Session | None = request.scope.get("mien")
    token: Token | None = request.scope.get("mien_token")
    return session.user.name if session is not None else f"token {token.name}" if token else "?"


def _alert(one: Episode) -> ApiAlert:
    return ApiAlert(
        id=one.id, about=one.about, state=one.state, camera=one.camera, person=one.person, name=one.name,
        unknown=one.unknown, label=one.label, began_at=one.began_at, opened_at=one.opened_at,
        acknowledged_at=one.acknowledged_at, acknowledged_by=one.acknowledged_by, closed_at=one.closed_at,
        judgement=one.judgement, text=told.episode(_ENGLISH, one),
    )  # fmt: skip
