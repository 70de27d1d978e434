"""The connection to an MQTT broker: it comes back by itself, blocks nobody, and says what it had to leave out.

Three kinds of messages: a *state* is kept by the broker, and its newest value is sent whenever there is a connection;
an *event* waits for one (the last ``EVENTS`` of them) and arrives at least once; what is *passing* goes out now or not
at all. States that an earlier run has left at the broker are told by ``left``.

paho's thread does the network; at most ``WINDOW`` messages are in its hands, so that a broker that takes nothing costs
no memory.
"""

from __future__ import annotations

import logging
import ssl
import sys
import threading
import time
import uuid
from collections import deque
from queue import Empty, SimpleQueue
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from common.mqtt_config import MqttConfig

WINDOW = 100
EVENTS = 1000
LEFT = 1000  # states of earlier runs: more are not asked about
KEEP_ALIVE_S = 10
LONGEST_PAUSE_S = 10
_COMPLAIN_S = 30.0
_FAREWELL_S = 0.7

ONLINE, OFFLINE = "online", "offline"

log = logging.getLogger("mien.mqtt")


class Sender:
    """Belongs to one thread, but for the callbacks of paho's.

    Args:
        client_id: under which the broker knows us; two at once throw each other out.
        look_for: which states that the broker keeps are to be told, as topics with ``+``; those that seldom change, for
            our own come back, too.

    Attributes:
        sent, dropped: messages handed to the broker; events and passing messages that were not.

    Raises:
        OSError: certificate files that cannot be used.
    """

    def __init__(self, settings: MqttConfig, client_id: str, *, look_for: str) -> None:
        self._look_for = look_for
        self._left: deque[tuple[str, bytes]] = deque(maxlen=LEFT)
        self.status = f"{settings.topic}/status"
        self.sent = 0
        self.dropped = 0
        self._broker = settings.broker()
        self._states: dict[str, str] = {}
        self._unsent: dict[str, None] = {}  # states whose newest value the broker does not have; in order
        self._events: deque[tuple[str, str]] = deque()
        self._flying: deque[paho.MQTTMessageInfo] = deque()
        self._connected = threading.Event()
        self._connections = self._greeted = 0
        self._complained: dict[str, float] = {}
        self._client = client = paho.Client(CallbackAPIVersion.VERSION2, client_id=client_id)
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_disconnect = self._on_disconnect
        client.on_connect_fail = self._on_connect_fail
        client.will_set(self.status, OFFLINE, qos=1, retain=True)
        client.reconnect_delay_set(1, LONGEST_PAUSE_S)
        client.max_queued_messages_set(2 * WINDOW)
        _prepare(client, settings)

    def open(self) -> None:
        """Begin to connect; returns at once."""
        self._client.connect_async(self._broker.host, self._broker.port, keepalive=KEEP_ALIVE_S)
        self._client.loop_start()

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted us."""
        return self._connected.is_set()

    def left(self) -> list[tuple[str, bytes]]:
        """Return the states that the broker had from before, topic and payload, as far as they have come by now."""
        return [self._left.popleft() for _ in range(len(self._left))]

    def states(self) -> set[str]:
        """Return the topics that have a value."""
        return {topic for topic, payload in self._states.items() if payload}

    def state(self, topic: str, payload: str) -> None:
        """Have the broker keep this as the topic's value (empty: nothing); not sent if it has it already."""
        if self._states.get(topic) != payload:
            self._states[topic] = payload
            self._unsent[topic] = None

    def event(self, topic: str, payload: str) -> None:
        """Send this, now or when there is a connection."""
        if len(self._events) >= EVENTS:
            self._events.popleft()
            self._drop("events: the oldest that waited")
        self._events.append((topic, payload))

    def passing(self, topic: str, payload: str) -> None:
        """Send this now or not at all."""
        if not self._connected.is_set() or not self._room():
            self._drop("results")
        else:
            self._send(topic, payload, qos=0, retain=False)

    def turn(self) -> None:
        """Send what can be sent now."""
        if not self._connected.is_set():
            return
        if self._greeted != self._connections:
            # Another connection, perhaps another broker: all it should know is said again.
            self._greeted = self._connections
            self._unsent = dict.fromkeys(self._states)
            self._send(self.status, ONLINE, qos=1, retain=True)
        while self._unsent and self._room():
            topic = next(iter(self._unsent))
            del self._unsent[topic]
            self._send(topic, self._states[topic], qos=1, retain=True)
        while self._events and self._room():
            self._send(*self._events.popleft(), qos=1, retain=False)

    def close(self) -> None:
        """Say the last states and good-bye, without waiting long: what is not heard, the broker's own will says."""
        deadline = time.monotonic() + _FAREWELL_S
        if self._connected.is_set():
            self.turn()
            while self._unsent and self._connected.is_set() and time.monotonic() < deadline:
                time.sleep(0.01)  # more than fits into paho's hands at once
                self.turn()
            self._send(self.status, OFFLINE, qos=1, retain=True)
            while self._flying and self._connected.is_set() and time.monotonic() < deadline:
                self._room()
                time.sleep(0.01)  # paho's thread is at work, and has no way to tell
        self._client.disconnect()  # its thread is a daemon's: it may be waiting for a name server, which we do not

    # --- inside ---

    def _send(self, topic: str, payload: str, *, qos: int, retain: bool) -> None:
        self._flying.append(self._client.publish(topic, payload, qos=qos, retain=retain))
        self.sent += 1

    def _room(self) -> bool:
        # The broker answers in order, so that the oldest is the first to be done with.
        while self._flying and _done(self._flying[0]):
            self._flying.popleft()
        return len(self._flying) < WINDOW

    def _drop(self, what: str) -> None:
        self.dropped += 1
        self._complain("dropped", "left out %d messages so far (last: %s)", self.dropped, what)

    def _complain(self, about: str, text: str, *arguments: Any) -> None:
        now = time.monotonic()
        if now - self._complained.get(about, float("-inf")) >= _COMPLAIN_S:
            self._complained[about] = now
            log.warning(text, *arguments)

    # --- in paho's thread ---

    def _on_connect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if reason.is_failure:
            self._complain(str(reason), "%s refuses: %s%s", self._broker, reason, _advice(reason))
            return
        log.info("connected to %s", self._broker)
        self._complained.clear()
        client.subscribe(self._look_for)
        self._connections += 1
        self._connected.set()

    def _on_message(self, client: Any, data: Any, message: paho.MQTTMessage) -> None:
        if message.retain and message.payload:  # else it was said just now
            self._left.append((message.topic, bytes(message.payload)))

    def _on_disconnect(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        if self._connected.is_set():
            self._connected.clear()
            if reason.is_failure:
                self._complain("lost", "the connection to %s is lost (%s): trying again", self._broker, reason)

    def _on_connect_fail(self, client: Any, data: Any) -> None:
        error = sys.exc_info()[1]  # called while it is being handled
        self._complain(
            "unreachable", "%s cannot be reached: %s; trying again", self._broker, error or "no reason given"
        )


def problem(settings: MqttConfig, *, timeout_s: float) -> str | None:
    """Connect to the broker once; return None, or why that is not possible.

    Raises:
        OSError: certificate files that cannot be used.
    """
    broker = settings.broker()
    said: SimpleQueue[str] = SimpleQueue()  # empty: it has let us in
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=f"mien-{uuid.uuid4().hex}")
    _prepare(client, settings)

    def answered(client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        said.put(f"it refuses: {reason}{_advice(reason)}" if reason.is_failure else "")

    client.on_connect = answered
    client.on_connect_fail = lambda client, data: said.put(f"it cannot be reached: {sys.exc_info()[1]}")
    client.connect_async(broker.host, broker.port, keepalive=KEEP_ALIVE_S)
    client.loop_start()
    try:
        return said.get(timeout=timeout_s) or None
    except Empty:
        return f"it did not answer within {timeout_s:g} s"
    finally:
        client.disconnect()  # its thread is a daemon's, as above


def _prepare(client: paho.Client, settings: MqttConfig) -> None:
    """Give a client what the broker asks for. Raises OSError: certificate files that cannot be used."""
    broker = settings.broker()
    if broker.user is not None:
        client.username_pw_set(broker.user, broker.password)
    if broker.encrypted:
        context = ssl.create_default_context(cafile=settings.ca)
        if settings.cert is not None:
            context.load_cert_chain(settings.cert, settings.key)
        client.tls_set_context(context)


def _advice(reason: Any) -> str:
    return " (user and password in mqtt.url)" if "uthor" in str(reason) or "password" in str(reason) else ""


def _done(info: paho.MQTTMessageInfo) -> bool:
    try:
        return info.is_published()
    except (ValueError, RuntimeError):
        return True  # lost with its connection; states and unanswered events are sent again over the next one
