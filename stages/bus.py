"""The bus: forwards small messages from whoever publishes to whoever subscribes."""

from __future__ import annotations

import sys
from typing import ClassVar

from common.messages import Message, Result, pack
from common.public import without_names
from common.stage import Stage, main
from common.transport import Socket, forward, opened

CONTROL = b"control."


class Bus(Stage):
    """Forwards the news; subscribers know its one address."""

    name: ClassVar[str] = "bus"

    def open(self) -> None:
        self._public_n = 0
        self._wishes: set[bytes] = set()  # of those who get the news without names
        self._sockets: list[Socket] = []
        self._front = self._opened("news_out", "xpub")
        self._back = self._opened("news_in", "xsub", linger_ms=200)
        # Each right has a way in of its own: whoever may only publish cannot control by it.
        self._withheld = CONTROL if self.config.control_apart else b""
        self._requests: Socket | None = None
        if self.config.control_apart:
            self._requests = self._opened("control", "sub")
            self._requests.subscribe(CONTROL)
        self._public = self._opened("news_public", "xpub") if self.config.endpoints.news_public else None

    def topics(self) -> tuple[str, ...]:
        return ("results.",) if self.config.endpoints.news_public else ()

    def handle(self, ready: set[Socket]) -> None:
        if not ready:
            return
        moved = forward(self._front, self._back, timeout_ms=0, withheld=self._withheld)
        if self._requests is not None and self._requests in ready:
            for _ in range(100):
                parts = self._requests.receive()
                if parts is None:
                    break
                moved += self._front.send(parts)
        if self._public is not None and self._public in ready:
            while (parts := self._public.receive()) is not None:
                word = bytes(parts[0][:256])
                (self._wishes.add if word.startswith(b"\x01") else self._wishes.discard)(word[1:])
        self.meter.taken += moved
        self.meter.given += moved

    def on_news(self, topic: str, message: Message) -> None:
        if self._public is None or not self._wishes or not isinstance(message, Result):
            return
        self._public_n += 1
        shown = without_names(message, self.instance, self._public_n)
        self._public.send([f"{shown.kind}.{shown.camera}".encode(), pack(shown)])

    def close(self) -> None:
        for socket in getattr(self, "_sockets", []):
            socket.close()

    def _opened(self, channel: str, role: str, *, linger_ms: int = 0) -> Socket:
        socket = opened(channel, self.config.endpoint(channel), role, bind=True, linger_ms=linger_ms)
        self._sockets.append(socket)
        self.poller.add(socket)
        return socket


if __name__ == "__main__":
    sys.exit(main(Bus))
