"""How often somebody may try a password. Pure: time goes in, waiting times come out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

FREE = 5  # wrong passwords before waiting begins
FIRST_WAIT_S = 15.0
LONGEST_WAIT_S = 900.0
FORGOTTEN_S = 3600.0  # after which wrong passwords no longer count
_KEPT = 10_000  # names and addresses that are remembered


class Attempts:
    """Counts wrong passwords by user name and by address; each one beyond the fifth doubles the wait."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, tuple[int, float]] = OrderedDict()  # key: how many, when the last one

    def wait_s(self, keys: Iterable[str], now: float) -> float:
        """Return how long the next try must wait; 0: it may come now."""
        return max((self._wait_s(key, now) for key in keys), default=0.0)

    def wrong(self, keys: Iterable[str], now: float) -> None:
        """Note a wrong password."""
        for key in keys:
            count, last = self._wrong.pop(key, (0, now))
            self._wrong[key] = (1 if now - last > FORGOTTEN_S else count + 1, now)
        while len(self._wrong) > _KEPT:
            self._wrong.popitem(last=False)

    def right(self, keys: Iterable[str]) -> None:
        """Note a right password: the count begins anew."""
        for key in keys:
            self._wrong.pop(key, None)

    def _wait_s(self, key: str, now: float) -> float:
        count, last = self._wrong.get(key, (0, now))
        if count < FREE:
            return 0.0
        wait = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(count - FREE, 20))
        return max(0.0, last + wait - now)
