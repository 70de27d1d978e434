"""The bus: forwards small messages from whoever publishes to whoever subscribes."""

from __future__ import annotations

import sys
from typing import ClassVar

from common.stage import Stage, main
from common.transport import Socket, forward, opened


class Bus(Stage):
    """Forwards the news; subscribers know its one address."""

    name: ClassVar[str] = "bus"

    def open(self) -> None:
        self._front: Socket | None = None
        self._back: Socket | None = None
        self._front = opened("news_out", self.config.endpoint("news_out"), "xpub", bind=True)
        self._back = opened("news_in", self.config.endpoint("news_in"), "xsub", bind=True, linger_ms=200)
        self.poller.add(self._front)
        self.poller.add(self._back)

    def handle(self, ready: set[Socket]) -> None:
        assert self._front is not None and self._back is not None
        if ready:
            moved = forward(self._front, self._back, timeout_ms=0)
            self.meter.taken += moved
            self.meter.given += moved

    def close(self) -> None:
        for socket in (self._front, self._back):
            if socket is not None:
                socket.close()


if __name__ == "__main__":
    sys.exit(main(Bus))
