"""The bus as its users see it: publish a message under a topic, read messages under topics."""

from __future__ import annotations

import logging
import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping

from common.messages import Message, MessageError, kind_of, pack, unpack
from common.settings import Config
from common.transport import Socket, opened

log = logging.getLogger(__name__)

_TOPICS = 1024  # that are remembered; some come from outside, and each request has one of its own


class NewsWriter:
    """Publishes on the bus. Nothing blocks: without a bus the news is lost, which subscribers see as a gap in ``n``.

    What nobody subscribes to is not even packed. (After a restart of the bus, what somebody subscribed to before it is:
    ZeroMQ keeps subscriptions over a connection that was lost.)

    ``channel`` is ``control`` for requests, which have a way in of their own where other machines can reach the bus.
    """

    def __init__(self, config: Config, sender: str, *, channel: str = "news_in") -> None:
        self.sender = sender
        self._socket = opened(channel, config.endpoint(channel), "xpub", linger_ms=200)
        self._wanted: set[bytes] = set()  # beginnings of topics, by the bus's subscriptions
        self._n: OrderedDict[bytes, int] = OrderedDict()  # messages by topic

    def publish(self, message: Message, about: str) -> None:
        """Send a message as ``<kind>.<about>``: ``results.cam0``, ``stats.detection``, ``reply.<request>``."""
        topic = f"{message.kind}.{about}".encode()
        n = self._n[topic] = self._n.pop(topic, 0) + 1
        if len(self._n) > _TOPICS:
            self._n.popitem(last=False)
        while self._socket.waits():
            for word in map(bytes, self._socket.receive() or ()):
                (self._wanted.add if word[:1] == b"\1" else self._wanted.discard)(word[1:])
        if topic.startswith(tuple(self._wanted)):  # ZeroMQ would see to it, too; but to pack is most of the work
            self._socket.send([topic, pack(message.model_copy(update={"n": n}))])

    def close(self) -> None:
        self._socket.close()


class NewsReader:
    """Reads the bus under some topics.

    ``sampled`` gives topics (prefixes) of which not every message is needed: those that come within so many seconds
    after the last one of the same topic are left out unread, for reading is most of what a message costs.

    Attributes:
        socket: to be watched by a ``Poller``.
        bad: messages that could not be trusted; each is counted, logged at most once a second, and left out.
    """

    def __init__(self, config: Config, topics: Iterable[str], *, sampled: Mapping[str, float] | None = None) -> None:
        self._sampled = {topic.encode(): pause_s for topic, pause_s in (sampled or {}).items()}
        self._next_sample: dict[bytes, float] = {}
        self.socket: Socket = opened("news_out", config.endpoint("news_out"), "sub")
        self.bad = 0
        self._complaint = Complaint()
        for topic in topics:
            self.socket.subscribe(topic.encode())

    def read(self, *, timeout_ms: int = 0, limit: int = 256) -> list[tuple[str, Message]]:
        """Return what is waiting as (topic, message); waits for the first one up to ``timeout_ms``."""
        found: list[tuple[str, Message]] = []
        while len(found) < limit:
            parts = self.socket.receive(timeout_ms=0 if found else timeout_ms)
            if parts is None:
                break
            try:
                if len(parts) < 2:
                    raise MessageError(f"{len(parts)} parts came, a topic and a map were expected")
                topic = bytes(parts[0][:256])
                if self._sampled and self._too_soon(topic):
                    continue
                found.append((topic.decode("ascii"), unpack(kind_of(topic), parts[1])))
            except (MessageError, UnicodeDecodeError) as error:
                self.bad += 1
                self._complaint(log, "news", error)
        return found

    def close(self) -> None:
        self.socket.close()

    def _too_soon(self, topic: bytes) -> bool:
        pause_s = next((pause for prefix, pause in self._sampled.items() if topic.startswith(prefix)), 0.0)
        if not pause_s:
            return False
        now = time.monotonic()
        if now < self._next_sample.get(topic, 0.0):
            return True
        if len(self._next_sample) < _TOPICS or topic in self._next_sample:
            self._next_sample[topic] = now + pause_s
        return False


class Complaint:
    """Logs that bad messages came, at most once a second however many there are."""

    def __init__(self) -> None:
        self._next = 0.0
        self._held = 0

    def __call__(self, logger: logging.Logger, where: str, error: Exception) -> None:
        self._held += 1
        if time.monotonic() < self._next:
            return
        logger.warning("%s: left out %d bad message%s: %s", where, self._held, "s" * (self._held > 1), error)
        self._next, self._held = time.monotonic() + 1.0, 0
