"""The page's web server: an event loop in a thread of its own, beside the loop of the stage.

The stage hands news and pictures over; it never waits for the server, and the server never waits for the stage.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import uvicorn
from fastapi import FastAPI

from common.page import feed as feeds
from common.page.certificate import certificate_problem
from common.page.desk import Desk
from common.page.guard import Guard
from common.page.site import Site
from common.settings import Config

_STARTS_WITHIN_S = 30.0
_TAKES_NOTHING_MS = 60_000  # the system closes the connection of a client that takes nothing for so long
_ENDS_WITHIN_S = 1.5
_AGAIN_AFTER_S = 1.0

log = logging.getLogger("mien.dashboard")


class PortError(OSError):
    """Nobody can listen there, or not with that certificate; the text says why and what to do."""


def listening(config: Config) -> socket.socket:
    """Return a socket that listens where the configuration says. Raises PortError."""
    settings = config.dashboard
    if (problem := certificate_problem(settings)) is not None:
        raise PortError(f"the page cannot be served with https: {problem}")
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    if os.name == "posix":  # elsewhere it would let two programs share the port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # connections have it from their listener
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _TAKES_NOTHING_MS)
    try:
        listener.bind((settings.host, settings.port))
        listener.listen(128)
    except OSError as error:
        listener.close()
        reasons = {
            errno.EADDRINUSE: "another program, perhaps another Mien, listens there: end it, or set another port",
            errno.EACCES: "this user may not: set a port from 1024 on",
            errno.EADDRNOTAVAIL: "no network interface of this machine has that address: set another host",
        }
        why = reasons.get(error.errno or 0) or str(error)
        raise PortError(
            f"the page cannot be served at {settings.host}:{settings.port}: {why} (dashboard.host, dashboard.port)"
        ) from error
    return listener


async def lasting(work: Callable[[], Awaitable[None]]) -> None:
    """Do what shall never end; when it fails, say so, and begin anew after a moment."""
    while True:
        try:
            return await work()
        except Exception:
            log.exception("%s failed; it begins anew", work.__qualname__)
            await asyncio.sleep(_AGAIN_AFTER_S)


class _Served(uvicorn.Server):
    """Is told when to end; the original looks ten times a second, which costs more than all else while nobody comes."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ending = asyncio.Event()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):  # also sets the clock of the answers' headers
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.ending.wait(), 1.0)


class Server:
    """Serves the page until closed.

    Args:
        who: the process, as the audit log names what it does by itself.

    Attributes:
        site: belongs to the server's loop.
        desk: its wishes are for the stage to read.
    """

    def __init__(self, config: Config, who: str) -> None:
        self.desk = Desk(config, who)
        self.site = Site(config, self.desk, feeds.Feed(config.cameras))
        self._config = config
        self._loop: asyncio.AbstractEventLoop | None = None
        self._pictures: dict[str, bytes] = {}  # on their way to the loop: newest wins, should it be busy
        self._lock = threading.Lock()
        self._server: _Served | None = None
        self._thread: threading.Thread | None = None
        self._guard: Guard

    def start(self, listener: socket.socket) -> None:
        """Serve on a socket that listens. Raises RuntimeError when the server does not start."""
        self._guard = guard = self._app()
        settings = self._config.dashboard
        self._server = _Served(
            uvicorn.Config(
                guard,
                log_config=None,
                access_log=False,
                server_header=False,
                ws="websockets-sansio",
                ws_max_size=2**20,
                ws_per_message_deflate=False,  # JPEGs do not shrink
                loop="asyncio",
                lifespan="on",
                timeout_graceful_shutdown=1,
                timeout_keep_alive=30,
                limit_concurrency=500,
                ssl_certfile=settings.tls_cert,
                ssl_keyfile=settings.tls_key,
            )
        )
        for library in ("uvicorn", "asyncio", "filelock", "multipart"):
            logging.getLogger(library).setLevel(logging.WARNING)
        self._thread = threading.Thread(target=self._run, args=(self._server, listener), name="page", daemon=True)
        self._thread.start()
        deadline = time.monotonic() + _STARTS_WITHIN_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError("the page's server did not start")
            self._thread.join(0.02)

    @property
    def alive(self) -> bool:
        """Whether the server still serves."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def address(self) -> str:
        """Where people find the page."""
        settings = self._config.dashboard
        host = {"0.0.0.0": socket.gethostname(), "::": socket.gethostname()}.get(settings.host, settings.host)
        scheme = "http" if settings.tls_cert is None else "https"
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{settings.port}"

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Have a function called on the server's loop, from any thread; nothing after the end."""
        if self._loop is not None and not self._loop.is_closed():
            with contextlib.suppress(RuntimeError):  # it closed in between
                self._loop.call_soon_threadsafe(function, *args)

    def picture(self, camera: str, packed: bytes) -> None:
        """Hand over a picture for the browsers; one that the loop had no time for yet is replaced."""
        with self._lock:
            scheduled = bool(self._pictures)
            self._pictures[camera] = packed
        if not scheduled:
            self.call(self._publish)

    def close(self) -> None:
        """End the server and what it has open."""
        if self._server is not None:
            # Open pages and streams are not waited for: they come back by themselves.
            self.call(self._guard.end)
            self.call(self.site.streams.end)
            self._server.should_exit = True
            self.call(self._server.ending.set)
        if self._thread is not None:
            self._thread.join(_ENDS_WITHIN_S)
        self.desk.close()

    # --- inside ---

    def _publish(self) -> None:
        with self._lock:
            pictures, self._pictures = self._pictures, {}
        for camera, packed in pictures.items():
            self.site.feed.publish(camera, packed)

    def _run(self, server: _Served, listener: socket.socket) -> None:
        try:
            with asyncio.Runner() as runner:
                self._loop = runner.get_loop()
                runner.run(server.serve(sockets=[listener]))
        except Exception:
            log.exception("the page's server ended")
        finally:
            listener.close()

    def _app(self) -> Guard:
        # Here, not above: it takes a second, and where it keeps things has to be said before.
        os.environ["NICEGUI_STORAGE_PATH"] = str(self._config.storage.data_dir / "page")
        from common.page import pages

        @contextlib.asynccontextmanager
        async def lifespan(app: FastAPI) -> AsyncIterator[None]:
            works = (self.site.tick, self.site.follow_alerts, self.site.follow_people, guard.watch)
            tasks = [asyncio.create_task(lasting(work)) for work in works]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()

        app = FastAPI(title="Mien", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
        guard = Guard(app, self._config, self.desk)
        pages.build(app, self.site, guard)
        return guard
