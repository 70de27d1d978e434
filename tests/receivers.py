"""Real receivers of notifications, on this machine: a mail server and a web server."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from tests.conftest import free_ports


class MailServer:
    """Takes mail. Use it as a context.

    Attributes:
        mails: what came, as bytes with headers.
        address: for apprise.
    """

    def __init__(self) -> None:
        self.mails: list[bytes] = []
        [self._port] = free_ports(1)
        self.address = f"mailto://127.0.0.1:{self._port}/?from=mien@ward.example&to=nurse@ward.example&mode=insecure"
        self._controller = Controller(self, hostname="127.0.0.1", port=self._port)

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        self.mails.append(bytes(envelope.content or b""))
        return "250 taken"

    def __enter__(self) -> MailServer:
        self._controller.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._controller.stop()


class WebServer:
    """Takes JSON by POST. Use it as a context.

    Attributes:
        bodies: what came and was taken.
        refuse: so many of the next ones are answered with 503.
        hold: requests wait while this is cleared.
        asked: how many requests came.
    """

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.refuse = 0
        self.asked = 0
        self.hold = threading.Event()
        self.hold.set()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                outer.asked += 1
                outer.hold.wait(30)
                taken = outer.refuse <= 0
                outer.refuse -= 1
                if taken:
                    outer.bodies.append(json.loads(body))
                self.send_response(200 if taken else 503)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"json://127.0.0.1:{self._server.server_port}/alerts?rto=20"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> WebServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.hold.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
