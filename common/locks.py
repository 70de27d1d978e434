"""Locks: what makes a socket open with keys only, and the authenticator that judges who comes.

A socket that listens has the server's key and asks the authenticator about everybody; without an authenticator nobody
gets in. It looks at the list of keys a few times a second: when a key has lost its right, the socket hangs up on
everybody and listens anew, upon which all come back within a moment and are judged again.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import ABC, abstractmethod
from typing import Final

from common.channels import CHANNELS, SMALL, Channel
from common.endpoints import Endpoint
from common.keys import ALLOWED_FILE, OWN_FILE, SERVER_FILE, Allowed, Key, KeyRing, KeysError

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 0.25
OUT_S: Final = 60.0  # for whom a socket had to hang up on everybody
SILENT_S: Final = 5.0  # an authenticator that has not turned for so long counts as dead
ZAP: Final = Channel(
    name="authenticator", kind="push-pull", binds="every process that listens", send_queue=100, receive_queue=100,
    max_bytes=SMALL, when_full="nobody gets in",
)  # fmt: skip
ZAP_ENDPOINT: Final = "inproc://zeromq.zap.01"
_FILES = 16384
_PAUSE_S = 2.0  # between two lines of the log about the same key

Options = dict[str, int | bytes]


class LockError(OSError):
    """A socket that cannot be locked or unlocked, and so is not opened; the text says why and what to type."""


class Lock(ABC):
    """One socket's side of the keys."""

    def __init__(self, channel: str, ring: KeyRing) -> None:
        self.channel = channel
        self.ring = ring
        self.look_at = time.monotonic() + LOOK_EVERY_S

    @abstractmethod
    def options(self) -> Options:
        """Return socket options by ZeroMQ's names. Raises LockError: there is no key for this."""

    @abstractmethod
    def changed(self) -> bool:
        """Whether the socket must open anew. Raises LockError: it must not be open at all."""

    def due(self) -> bool:
        """Whether it is time to ask ``changed`` again; costs next to nothing."""
        now = time.monotonic()
        if now < self.look_at:
            return False
        self.look_at = now + LOOK_EVERY_S
        return True


class KeyLock(Lock):
    """The side that connects: it shows this machine's key, and talks to nobody but the server."""

    def __init__(self, channel: str, ring: KeyRing) -> None:
        super().__init__(channel, ring)
        self._stamp = ring.stamp(SERVER_FILE, OWN_FILE)
        self._key = self._read()

    def options(self) -> Options:
        key = self._key
        return {
            "CURVE_SERVERKEY": key.server.encode(),
            "CURVE_PUBLICKEY": key.public.encode(),
            "CURVE_SECRETKEY": key.secret.encode(),
        }

    def changed(self) -> bool:
        stamp = self.ring.stamp(SERVER_FILE, OWN_FILE)
        if stamp == self._stamp:
            return False
        self._stamp, before = stamp, self._key
        try:
            self._key = self._read()
        except LockError as error:
            # The server decides who is let in; until a whole file is there again this key is as good as it was.
            log.warning("%s", error)
        return self._key != before

    def _read(self) -> Key:
        key = _own(self.ring, f"the channel {self.channel!r} is on another machine")
        if not key.opens(self.channel):
            raise LockError(
                f"the key {key.name!r} of this machine is for {', '.join(key.roles)} and does not open the channel "
                f"{self.channel!r}: make one with that role, too, where the bus runs (python launch.py keys make), or "
                "start fewer stages here (--only, --without)"
            )
        return key


class ServerLock(Lock):
    """The side that listens."""

    def __init__(self, channel: str, ring: KeyRing) -> None:
        super().__init__(channel, ring)
        self._key = self._read()
        self._allowed = allowed_or_none(ring)
        self._stamp = self._files()
        self._silent = 0  # looks in a row at which the authenticator had not turned
        _allow_many_connections()
        self.authenticator = Authenticator.running()
        self.domain = self.authenticator.register(channel, ring)

    def options(self) -> Options:
        return {
            "CURVE_SERVER": 1,
            "CURVE_SECRETKEY": self._key.secret.encode(),
            "ZAP_DOMAIN": self.domain.encode(),
            "ZAP_ENFORCE_DOMAIN": 1,  # without it, ZeroMQ lets everybody in whom no authenticator can be asked about
        }

    def changed(self) -> bool:
        # A process that was stopped for a while finds its authenticator silent, too: that gets a turn to say something.
        self._silent = 0 if self.authenticator.alive() else self._silent + 1
        if not self.authenticator.is_alive() or self._silent > 1:
            raise LockError(f"the authenticator has ended: the channel {self.channel!r} serves nobody any more")
        stamp = self._files()
        if stamp == self._stamp:
            return False
        self._stamp = stamp
        before, self._allowed = self._allowed, allowed_or_none(self.ring)
        key, self._key = self._key, self._read()
        gone = before.rights(self.channel) - self._allowed.rights(self.channel)
        for public in sorted(gone):
            log.info("%s: the key %r opens this no more", self.channel, before.name_of(public))
        return bool(gone) or key != self._key

    def shut_out(self, name: str) -> None:
        """Let a key in no more for a while."""
        self.authenticator.shut_out(self.domain, name)

    def _files(self) -> tuple[object, ...]:
        return self.ring.stamp(SERVER_FILE, ALLOWED_FILE)

    def _read(self) -> Key:
        key = _own(self.ring, f"the channel {self.channel!r} listens for other machines")
        if not self.ring.listens():
            raise LockError(
                f"the channel {self.channel!r} is opened by the machine that has the server's key; this one has "
                f"{key.name!r}, for {', '.join(key.roles)}: start that stage "
                f"({CHANNELS[self.channel].binds}) there, and leave it out here (--without)"
            )
        return key


class Authenticator(threading.Thread):
    """Answers ZeroMQ's question, for each connection that comes to this process, whether its key is let in (RFC 27).

    It ends with its first own error: then ZeroMQ gets no answer and lets nobody in, and the sockets close.
    """

    _one: Authenticator | None = None
    _making = threading.Lock()

    def __init__(self) -> None:
        super().__init__(name="authenticator", daemon=True)
        self._rings: dict[str, tuple[str, KeyRing]] = {}
        self._known: dict[str, tuple[tuple[object, ...], Allowed, str]] = {}
        self._ending = threading.Event()
        self._ready = threading.Event()
        self._turned = time.monotonic()
        self._complained: dict[tuple[str, str], float] = {}
        self._out: dict[tuple[str, str], float] = {}  # domain and name: until when

    @classmethod
    def running(cls) -> Authenticator:
        """Return this process's authenticator, started if need be."""
        with cls._making:
            if cls._one is None or not cls._one.is_alive():
                cls._one = cls()
                cls._one.start()
                cls._one._ready.wait(5)
            return cls._one

    @classmethod
    def end(cls) -> None:
        """End it, when all sockets that it serves are closed."""
        with cls._making:
            if cls._one is not None:
                cls._one._ending.set()
                cls._one.join(5)
                cls._one = None

    def alive(self) -> bool:
        """Whether it answers."""
        return self.is_alive() and time.monotonic() - self._turned < SILENT_S

    def register(self, channel: str, ring: KeyRing) -> str:
        """Judge who comes to a channel by these keys; return the name under which ZeroMQ asks about it."""
        domain = f"{channel}@{ring.folder.absolute()}"
        self._rings[domain] = (channel, ring)
        return domain

    def run(self) -> None:
        from common.transport import Socket  # which imports this module

        try:
            with Socket(ZAP, ZAP_ENDPOINT, "rep", bind=True) as socket:
                self._ready.set()
                while not self._ending.is_set():
                    self._turned = time.monotonic()
                    if socket.wait(200) and (parts := socket.receive()) is not None:
                        socket.send(self.answer([bytes(part) for part in parts]), timeout_ms=1000)
        except Exception:
            if not self._ending.is_set():
                log.exception("the authenticator has ended: nobody is let in any more")

    def answer(self, parts: list[bytes]) -> list[bytes]:
        """Return the reply to one request."""
        version, request, domain, address, _, mechanism, *credentials = parts
        name = None
        if version == b"1.0" and mechanism == b"CURVE" and len(credentials) == 1 and len(credentials[0]) == 32:
            name = self.judge(domain.decode(), credentials[0])
        if name is None:
            self._complain(domain.decode().partition("@")[0], address.decode("ascii", "replace"))
            # "Not now": the other side tries again. With "never" (400) it would stay out after its key was let in.
            return [b"1.0", request, b"300", b"this key is not let in", b"", b""]
        return [b"1.0", request, b"200", b"", name.encode(), b""]

    def judge(self, domain: str, public: bytes) -> str | None:
        """Return the name of the key if it may open this channel, else None."""
        from common.transport import key_text

        channel, ring = self._rings[domain]
        stamp = ring.stamp(SERVER_FILE, ALLOWED_FILE)
        known = self._known.get(domain)
        if known is None or known[0] != stamp:
            key = ring.own() if ring.listens() else None
            known = self._known[domain] = (stamp, allowed_or_none(ring), key.public if key else "")
        text = key_text(public)
        if text == known[2]:
            return "server"
        if text not in known[1].rights(channel):
            return None
        name = known[1].name_of(text)
        return name if time.monotonic() >= self._out.get((domain, name), 0.0) else None

    def shut_out(self, domain: str, name: str) -> None:
        """Let a key in no more for a minute; it keeps its right."""
        self._out[domain, name] = time.monotonic() + OUT_S

    def _complain(self, channel: str, address: str) -> None:
        now = time.monotonic()
        if now < self._complained.get((channel, address), 0.0):
            return
        if len(self._complained) > 256:
            self._complained.clear()
        self._complained[channel, address] = now + _PAUSE_S
        log.warning("%s: somebody at %s came with a key that opens nothing here", channel, address)


def lock_for(channel: str, endpoint: str, *, bind: bool) -> Lock:
    """Return the lock of a socket whose endpoint opens with keys only.

    Raises:
        LockError: there is no key; the text says what to type.
    """
    if not isinstance(endpoint, Endpoint) or endpoint.keys is None:
        raise LockError("other machines can reach it, and it was given without keys")
    ring = KeyRing(endpoint.keys)
    return (ServerLock if bind else KeyLock)(channel, ring)


def _allow_many_connections() -> None:
    """Connections that say nothing stay open for a moment each: they must not use up what the others need."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def allowed_or_none(ring: KeyRing) -> Allowed:
    """Return the list of keys; nobody is on it when it cannot be read, which is said."""
    try:
        return ring.allowed()
    except KeysError as error:
        log.error("%s", error)
        return Allowed()


def _own(ring: KeyRing, why: str) -> Key:
    try:
        key = ring.own()
    except KeysError as error:
        raise LockError(str(error)) from error
    if key is None:
        raise LockError(
            f"{why}, which is done with keys only, and there are none in {ring.folder}. On the machine that runs bus "
            "and conductor type 'python launch.py keys make server'; for each other machine, there, 'python launch.py "
            "keys make NAME --role worker' (or camera, …), copy the file that it names, and type 'python launch.py "
            "keys import FILE' on the other machine. Or keep to one machine: endpoints on 127.0.0.1 need no keys"
        )
    return key
