"""Who listens where: the one thing that everybody on the cluster asks. An actor of Ray, of which it knows nothing.

It remembers nothing that it is not told again each second: when its node dies, its successor is complete at once.
"""

from __future__ import annotations

from common.cluster.addresses import Addresses


class Registry:
    """Keeps the addresses of the channels.

    A stage that was started again elsewhere gives others than its predecessor, which may live on, cut off: the one
    that began later counts.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, str]] = {}  # channel → who says so, address
        self._turns = 0

    def begin(self) -> int:
        """Return a number for somebody who begins: higher than all before."""
        self._turns += 1
        return self._turns

    def exchange(self, turn: int, own: Addresses) -> dict[str, str]:
        """Take where somebody listens and return where all do. ``turn`` is what ``begin`` gave."""
        self._turns = max(self._turns, turn)  # numbers that this registry's predecessor gave
        for channel, address in own.items():
            if turn >= self._known.get(channel, (0, ""))[0]:
                self._known[channel] = (turn, address)
        return {channel: address for channel, (_, address) in self._known.items()}
