"""The chain: carries this cell's news to the bus of the hub, and requests from there to this cell."""

from __future__ import annotations

import sys
from typing import ClassVar

from common.stage import Stage, main
from common.transport import Socket, forward, opened

CONTROL = b"control."


class Chain(Stage):
    """Makes one bus of two: whoever subscribes at the hub hears this cell, and whoever asks there is answered.

    News go up and requests go down, never the other way, so that nothing goes round in circles. Only what somebody at
    the hub subscribes to is carried.
    """

    name: ClassVar[str] = "chain"

    def open(self) -> None:
        cell = self.config.cell
        assert cell.hub_news_in is not None and cell.hub_news_out is not None  # else it is not started (common/plan.py)
        self._sockets: list[Socket] = []
        self._up = self._opened("news_in", self.config.reached_at(cell.hub_news_in), "xpub")
        self._here = self._opened("news_out", self.config.endpoint("news_out"), "xsub")
        self._asked = self._opened("news_out", self.config.reached_at(cell.hub_news_out), "sub")
        self._asked.subscribe(CONTROL)
        down = "control" if self.config.control_apart else "news_in"
        self._down = opened(down, self.config.endpoint(down), "pub")
        self._sockets.append(self._down)

    def handle(self, ready: set[Socket]) -> None:
        moved = forward(self._up, self._here, timeout_ms=0, withheld=CONTROL) if ready else 0
        if self._asked in ready:
            for _ in range(256):
                parts = self._asked.receive()
                if parts is None:
                    break
                self._down.send(parts)
                moved += 1
        self.meter.taken += moved
        self.meter.given += moved

    def close(self) -> None:
        for socket in getattr(self, "_sockets", []):
            socket.close()

    def _opened(self, channel: str, endpoint: str, role: str) -> Socket:
        socket = opened(channel, endpoint, role, linger_ms=200)
        self._sockets.append(socket)
        self.poller.add(socket)
        return socket


if __name__ == "__main__":
    sys.exit(main(Chain))
