"""Watching previews: subscribe to a camera, read its newest picture."""

from __future__ import annotations

from dataclasses import dataclass

from common.messages import MessageError, Preview, unpack
from common.settings import Config
from common.transport import Received, Socket, opened


@dataclass(frozen=True, slots=True)
class Seen:
    """A preview with its picture: ``jpeg`` is not looked at yet."""

    preview: Preview
    jpeg: memoryview


class Viewer:
    """Reads previews of the cameras it subscribed to.

    Attributes:
        socket: to be watched by a ``Poller``.
    """

    def __init__(self, config: Config) -> None:
        self.socket: Socket = opened("previews", config.endpoint("previews"), "sub")
        for endpoint in config.cell.previews:  # of other cells
            self.socket.also(config.reached_at(endpoint))
        self._cameras: set[str] = set()

    def watch(self, *cameras: str) -> None:
        """Receive previews of exactly these cameras from now on."""
        wanted = set(cameras)
        for camera in wanted - self._cameras:
            self.socket.subscribe(_topic(camera))
        for camera in self._cameras - wanted:
            self.socket.unsubscribe(_topic(camera))
        self._cameras = wanted

    def receive(self) -> Received | None:
        """Return the next message of a watched camera, unread, or None if nothing waits."""
        while (parts := self.socket.receive()) is not None:
            # A subscription is a prefix: cam1 lets cam10 through, too.
            if bytes(parts[0][:128]).removeprefix(b"preview.").decode("ascii", "replace") in self._cameras:
                return parts
        return None

    def close(self) -> None:
        self.socket.close()


def read(parts: Received) -> Seen:
    """Return the checked preview in a message.

    Raises:
        MessageError: it is not one.
    """
    if len(parts) != 3:
        raise MessageError(f"{len(parts)} parts came; a topic, a map and a JPEG were expected")
    preview = unpack(Preview, parts[1])
    if bytes(parts[0][:128]) != _topic(preview.result.camera):
        raise MessageError(f"a preview of {preview.result.camera} came under another camera's name")
    return Seen(preview, parts[2])


def _topic(camera: str) -> bytes:
    return b"preview." + camera.encode()
