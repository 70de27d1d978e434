"""What subscribers have asked a listening socket for, and how much of it is whose. Pure.

ZeroMQ keeps what is subscribed to in a tree, with some fifty bytes for each letter of each topic, and has no bound
for it: 20,000 topics of 250 letters, sent within half a second, are 240 MB.
"""

from __future__ import annotations

from typing import Final

LONGEST: Final = 1024  # bytes of a subscription; a CURVE handshake has to fit, too
MOST_BYTES: Final = 128 * 1024  # of one subscriber's topics: a thousand and more
_EACH: Final = 64  # what a topic costs beside its letters


class Wishes:
    """Keeps account of the topics that are subscribed to, by whose they are."""

    def __init__(self) -> None:
        self._whose: dict[bytes, str] = {}
        self._sizes: dict[str, int] = {}

    def heard(self, word: bytes, who: str) -> bool:
        """Take in a word of ZeroMQ's: 1 and a topic that somebody wants, 0 and one that nobody wants any more.

        Returns:
            Whether ``who`` now asks for more than anybody needs.
        """
        topic, size = word[1:], len(word) + _EACH
        owner = self._whose.pop(topic, None)
        if owner is not None:
            self._sizes[owner] -= size
            if not self._sizes[owner]:
                del self._sizes[owner]
        if word[:1] != b"\1":
            return False
        self._whose[topic] = who
        self._sizes[who] = self._sizes.get(who, 0) + size
        return self._sizes[who] > MOST_BYTES

    def clear(self) -> None:
        """Everybody was hung up on."""
        self._whose.clear()
        self._sizes.clear()
