"""ZeroMQ, and nothing else: the only module that imports ``zmq``.

A ``Socket`` belongs to one thread, sends and receives whole multipart messages, and never copies a large part: what is
received can be looked at, or sent on, in place. Closing is explicit; ``LINGER`` is 0 unless a farewell must get out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

import zmq
import zmq.backend
import zmq.utils.z85

from common.channels import CHANNELS, Channel
from common.endpoints import listening, locked, parse, remote
from common.keys import SERVER
from common.locks import Authenticator, Lock, LockError, ServerLock, lock_for
from common.wishes import LONGEST, Wishes

log = logging.getLogger(__name__)

Received = list[memoryview]

# What `zmq.Socket` adds to these two (socket kinds that are not used here, flags as enumerations) takes half the time
# of a small message, and a frame takes some thirty of its parts from process to process.
_send = zmq.backend.Socket.send
_receive = zmq.backend.Socket.recv
_NOBLOCK, _SNDMORE, _POLLIN = int(zmq.NOBLOCK), int(zmq.SNDMORE), int(zmq.POLLIN)

_COPY_BELOW = 64 * 1024  # smaller parts are cheaper to copy than to hand over
_WISHES_A_TURN = 256
_REMOTE = {
    # Between machines: a peer that is gone without a word is given up soon, and looked for often. Each attempt asks
    # anew for the address behind the name.
    zmq.CONNECT_TIMEOUT: 700,
    zmq.TCP_MAXRT: 3000,
    zmq.RECONNECT_IVL: 100,
    zmq.RECONNECT_IVL_MAX: 200,
}


class TransportError(OSError):
    """A socket that cannot be opened; the text names the channel, the endpoint and what to do."""


class Socket:
    """One end of a channel.

    Args:
        channel: row of ``CHANNELS``.
        endpoint: ``ipc://path`` or ``tcp://host:port``.
        role: ``push``, ``pull``, ``pub``, ``sub``, ``xpub`` or ``xsub``.
        bind: bind instead of connect.
        linger_ms: how long closing waits for what is still queued.
        patient: the other side may leave messages lying for long, and none may be lost (every-frame mode).

    Raises:
        TransportError: the endpoint is malformed, taken, or not on this machine, or there is no key for it.
    """

    def __init__(
        self, channel: Channel, endpoint: str, role: str, *, bind: bool, linger_ms: int = 0, patient: bool = False
    ) -> None:
        self.channel = channel
        self.endpoint = endpoint
        self._bound = bind
        self._address = listening(endpoint) if bind else str(endpoint)
        self._lock: Lock | None = None
        try:
            if locked(endpoint):
                self._lock = lock_for(channel.name, endpoint, bind=bind)
        except LockError as error:
            raise TransportError(_refuse(error, channel, endpoint, bind)) from error
        self._socket: zmq.Socket[bytes] = zmq.Context.instance().socket(getattr(zmq, role.upper()))
        self._others: list[str] = []
        self._send_waits_ms = self._receive_waits_ms = 0
        options = {
            zmq.LINGER: linger_ms,
            zmq.SNDHWM: channel.send_queue,
            zmq.RCVHWM: channel.receive_queue,
            zmq.MAXMSGSIZE: channel.max_bytes,
            zmq.RECONNECT_IVL: 50,
            zmq.RECONNECT_IVL_MAX: 1000,
        }
        if role in ("push", "pull"):
            # No heartbeats: who waits with a full queue reads no pings either, would be taken for dead, and what was on
            # its way would be lost. The system notices a vanished peer, only later.
            options |= {zmq.TCP_KEEPALIVE: 1, zmq.TCP_KEEPALIVE_IDLE: 10, zmq.TCP_KEEPALIVE_INTVL: 5}
        else:
            # A peer that vanished without a word (cable, power) is noticed by the system: its subscription ends.
            # ZeroMQ's own heartbeats would do that, too, but end the process of a subscriber that has read nothing
            # for a while ("Assertion failed", libzmq 4.3.5, issue 3937).
            options |= {zmq.TCP_KEEPALIVE: 1, zmq.TCP_KEEPALIVE_IDLE: 1, zmq.TCP_KEEPALIVE_INTVL: 1}
            options |= {zmq.TCP_KEEPALIVE_CNT: 3}
        # Not for ipc, where nobody else can come, and whose file a second opening might lose.
        self._wishes = Wishes() if role == "xpub" and bind and parse(endpoint) else None
        self._complain_at = 0.0
        if role in ("pub", "xpub"):
            # What comes to these is subscriptions. ZeroMQ takes them in whether or not somebody reads: a few at a time.
            options |= {zmq.MAXMSGSIZE: LONGEST, zmq.RCVHWM: min(8, channel.receive_queue)}
        if role == "push":
            options[zmq.IMMEDIATE] = 1  # nothing is queued for a peer that is not there
        if self._lock is not None:
            options[zmq.HANDSHAKE_IVL] = 3000  # who does not show a key by then is hung up on; refused ones try again
        if remote(endpoint):
            options |= _REMOTE
            if patient:
                del options[zmq.TCP_MAXRT]
            if ":" in (parse(self._address) or ("",))[0]:
                options[zmq.IPV6] = 1
        try:
            for option, value in options.items():
                self._socket.setsockopt(option, value)
            self._open()
        except zmq.ZMQError as error:
            self._socket.close(0)
            raise TransportError(_explain(error, channel, endpoint, bind)) from error

    def _open(self) -> None:
        if self._lock is not None:
            for name, value in self._lock.options().items():
                self._socket.setsockopt(getattr(zmq, name), value)
        if self._bound:
            self._socket.bind(self._address)
        else:
            for address in (self._address, *self._others):
                self._socket.connect(address)

    def look(self) -> None:
        """Open anew when keys have changed; whoever may not come in any more is hung up on.

        Part of everything that a locked socket does; to be called now and then for one that rests.

        Raises:
            TransportError: nothing may be served any more.
        """
        if self._lock is None or not self._lock.due():
            return
        try:
            if self._lock.changed():
                self._open_anew()
        except LockError as error:
            self.close()
            raise TransportError(_refuse(error, self.channel, self.endpoint, self._bound)) from error

    def _open_anew(self) -> None:
        """Hang up on everybody; whoever may come back does so within a moment."""
        if self._bound:
            self._socket.unbind(self._address)  # closes the connections that came in by it, too
        else:
            for address in (self._address, *self._others):
                self._socket.disconnect(address)
        deadline = time.monotonic() + 2.0
        while True:
            try:
                return self._open()
            except zmq.ZMQError as error:  # ZeroMQ closes in the background
                if error.errno != zmq.EADDRINUSE or time.monotonic() > deadline:
                    raise TransportError(_explain(error, self.channel, self.endpoint, self._bound)) from error
                time.sleep(0.005)

    def _heard(self, frame: zmq.Frame) -> None:
        """Keep account of what is subscribed to; hang up when somebody asks for more than anybody needs."""
        word = frame.bytes
        if self._wishes is None or word[:1] not in (b"\0", b"\1"):
            return
        try:
            who = str(frame.get("User-Id"))
        except zmq.ZMQError:  # no key was asked for
            who = ""
        if not self._wishes.heard(word, who) or who == SERVER:
            return
        self._wishes.clear()
        now = time.monotonic()
        if now >= self._complain_at:
            self._complain_at = now + 1.0
            log.warning("%s: %s subscribes to far too much: hung up on all", self.channel.name, who or "somebody here")
        if isinstance(self._lock, ServerLock):
            self._lock.shut_out(who)
        self._open_anew()

    def send(self, parts: Sequence[Any], *, timeout_ms: int = 0) -> bool:
        """Send one message; return False if it could not be queued in time (the message is then not sent at all).

        Large parts are handed over, not copied: do not write to an array after sending it.
        """
        if self._lock is not None:
            self.look()
        # Waiting is left to ZeroMQ: asking first whether there is room would cost as much as sending.
        if timeout_ms and timeout_ms != self._send_waits_ms:
            self._socket.setsockopt(zmq.SNDTIMEO, timeout_ms)
            self._send_waits_ms = timeout_ms
        flags = 0 if timeout_ms else _NOBLOCK
        last = len(parts) - 1
        try:
            for index, part in enumerate(parts):
                if index == 1:
                    flags = 0  # the first part was taken: the rest of the message follows without waiting
                copied = (len(part) if isinstance(part, bytes) else _size(part)) < _COPY_BELOW
                _send(self._socket, part, flags | _SNDMORE if index < last else flags, copied)
        except zmq.Again:
            return False
        return True

    def receive(self, *, timeout_ms: int = 0) -> Received | None:
        """Return the parts of the next message as views, or None if none came in time."""
        if self._lock is not None:
            self.look()
        if timeout_ms and timeout_ms != self._receive_waits_ms:
            self._socket.setsockopt(zmq.RCVTIMEO, timeout_ms)
            self._receive_waits_ms = timeout_ms
        try:
            frames = _frames(self._socket, 0 if timeout_ms else _NOBLOCK)
        except zmq.Again:
            return None
        if self._wishes is not None:
            self._heard(frames[0])
        return [frame.buffer for frame in frames]

    def waits(self) -> bool:
        """Return whether a message can be received at once; costs less than to try where there rarely is one."""
        if self._lock is not None:
            self.look()
        return bool(int(self._socket.getsockopt(zmq.EVENTS)) & _POLLIN)

    def wait(self, timeout_ms: int) -> bool:
        """Return True as soon as a message can be received, False after ``timeout_ms``."""
        return bool(self._socket.poll(timeout_ms, zmq.POLLIN))

    def subscribe(self, topic: bytes) -> None:
        """Receive messages whose first part starts with ``topic`` (sockets of role ``sub``)."""
        self._socket.setsockopt(zmq.SUBSCRIBE, topic)

    def unsubscribe(self, topic: bytes) -> None:
        """Take back a ``subscribe``."""
        self._socket.setsockopt(zmq.UNSUBSCRIBE, topic)

    def also(self, endpoint: str) -> None:
        """Connect to one more place of the same kind.

        Raises:
            TransportError: the endpoint is malformed, or asks for keys where the first one does not (or the other way).
        """
        if locked(endpoint) != (self._lock is not None):
            raise TransportError(
                f"the channel {self.channel.name!r} is read at {self.endpoint} and at {endpoint}: both with keys, or "
                "both without (security.loopback = true asks for keys on this machine, too)"
            )
        try:
            self._socket.connect(endpoint)
            self._others.append(endpoint)
        except zmq.ZMQError as error:
            raise TransportError(_explain(error, self.channel, endpoint, False)) from error

    def close(self) -> None:
        """Close at once, but for ``linger_ms``. Closing twice is allowed."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class HasFileno(Protocol):
    """What the system can watch."""

    def fileno(self) -> int: ...


class Poller:
    """Waits for any of several sockets to have a message."""

    def __init__(self, sockets: Iterable[Socket] = ()) -> None:
        self._poller = zmq.Poller()
        self._sockets: dict[Any, Socket] = {}
        self._locked: list[Socket] = []
        for socket in sockets:
            self.add(socket)

    def add(self, socket: Socket) -> None:
        """Watch one more socket."""
        self._poller.register(socket._socket, zmq.POLLIN)
        self._sockets[socket._socket] = socket
        if socket._lock is not None:
            self._locked.append(socket)

    def wake_by(self, file: HasFileno) -> None:
        """End a wait also when this socket of the system becomes readable; nobody is told that it is."""
        self._poller.register(file.fileno(), zmq.POLLIN)

    def remove(self, socket: Socket) -> None:
        """Watch one socket less; unknown ones are no error."""
        if self._sockets.pop(socket._socket, None) is not None:
            self._poller.unregister(socket._socket)
            if socket._lock is not None:
                self._locked.remove(socket)

    def wait(self, timeout_ms: float) -> set[Socket]:
        """Return the sockets that have a message; empty after ``timeout_ms``."""
        for socket in self._locked:
            socket.look()
        ready = self._poller.poll(max(0, int(timeout_ms)))
        return {self._sockets[one] for one, _ in ready if one in self._sockets}


def opened(
    channel: str, endpoint: str, role: str, *, bind: bool = False, linger_ms: int = 0, patient: bool = False
) -> Socket:
    """Return a socket of the named channel. Arguments and errors as ``Socket``."""
    return Socket(CHANNELS[channel], endpoint, role, bind=bind, linger_ms=linger_ms, patient=patient)


def key_pair() -> tuple[str, str]:
    """Return a new CURVE key: its public and its secret half, 40 characters each (Z85)."""
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


def key_text(public: bytes) -> str:
    """Return a key of 32 bytes as text."""
    return zmq.utils.z85.encode(public).decode()


def forward(front: Socket, back: Socket, *, timeout_ms: int, withheld: bytes = b"") -> int:
    """Move what is waiting from ``back`` to ``front`` and subscriptions the other way; return how many messages moved.

    The heart of the bus: ``back`` is the XSUB that publishers connect to, ``front`` the XPUB of the subscribers.
    Messages whose topic begins with ``withheld`` are left out.
    """
    if timeout_ms:
        Poller((front, back)).wait(timeout_ms)
    for _ in range(_WISHES_A_TURN):
        try:
            frames = _frames(front._socket, _NOBLOCK)
        except zmq.Again:
            break
        if len(frames) == 1 and frames[0].bytes[:1] in (b"\0", b"\1"):  # nothing else should publishers have to look at
            front._heard(frames[0])
            _send(back._socket, frames[0], _NOBLOCK, False)
    moved = 0
    deadline = time.monotonic() + 0.1  # a flood must not keep the stage from its heartbeat
    while time.monotonic() < deadline:
        try:
            frames = _frames(back._socket, _NOBLOCK)
        except zmq.Again:
            break
        if withheld and frames[0].bytes.startswith(withheld):
            continue
        for frame in frames:
            _send(front._socket, frame, _NOBLOCK | _SNDMORE if frame.more else _NOBLOCK, False)
        moved += 1
    return moved


def terminate() -> None:
    """End ZeroMQ in this process, after all its sockets were closed; those still open are closed without lingering."""
    Authenticator.end()
    zmq.Context.instance().destroy(linger=0)


def _frames(socket: zmq.Socket[bytes], flags: int) -> list[Any]:
    """The parts of the next message; zmq.Again where ``flags`` do not wait and there is none."""
    frame: Any = _receive(socket, flags, False)
    frames = [frame]
    while frame.more:  # the rest of a message has come with its first part
        frame = _receive(socket, 0, False)
        frames.append(frame)
    return frames


def _size(part: Any) -> int:
    return memoryview(part).nbytes


def _refuse(error: LockError, channel: Channel, endpoint: str, bind: bool) -> str:
    verb = "listen on" if bind else "connect to"
    return f"cannot {verb} {endpoint} for the channel {channel.name!r}: {error}"


def _explain(error: zmq.ZMQError, channel: Channel, endpoint: str, bind: bool) -> str:
    verb = "listen on" if bind else "connect to"
    advice: dict[int, str] = {
        zmq.EADDRINUSE: "another program, perhaps another Mien, listens there already: end it, or set another endpoint",
        zmq.EADDRNOTAVAIL: "no network interface of this machine has that address",
        zmq.EINVAL: "that is not an endpoint: write ipc://path or tcp://host:port",
        zmq.EPROTONOSUPPORT: "this system has no such transport: write tcp://host:port",
    }
    reason = advice.get(error.errno or 0) or error.strerror or str(error)
    return f"cannot {verb} {endpoint} for the channel {channel.name!r}: {reason} (endpoints.{channel.name})"
