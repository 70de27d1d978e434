"""The preview stage: one JPEG of each picture for everybody who watches, and nothing while nobody does."""

from __future__ import annotations

import time

import cv2

from common import blurring, jpeg
from common.messages import MessageError, Picture, Preview, pack, unpack
from common.news import Complaint
from common.pixels import decode
from common.ring import RingReader
from common.settings import Config
from common.stage import Stage, main
from common.transport import Received, Socket, opened

TOPIC = b"preview."


class PreviewStage(Stage):
    """Encodes pictures and publishes them with their results, while somebody watches."""

    name = "preview"

    def __init__(self, config: Config, *, camera: str | None = None) -> None:
        super().__init__(config, camera=camera)
        self._complaint = Complaint()
        self._wanted: set[bytes] = set()  # topics that viewers subscribed to: prefixes, as ZeroMQ has them
        self._watched: set[str] = set()  # cameras whose pictures are asked for
        self._waiting: dict[bytes, Received] = {}  # the newest picture of each camera; whose turn it is comes first
        self._n = 0
        self._shared = RingReader(config)
        self._pictures: Socket | None = None
        self._viewers: Socket | None = None

    def open(self) -> None:
        cv2.setNumThreads(1)
        self._viewers = opened("previews", self.config.endpoint("previews"), "xpub", bind=True)
        self._pictures = opened("pictures", self.config.endpoint("pictures"), "sub")
        self.poller.add(self._viewers)
        self.poller.add(self._pictures)

    def handle(self, ready: set[Socket]) -> None:
        if self._viewers in ready:
            self._read_wishes()
        if self._pictures in ready or self._waiting:
            self._read_pictures()

    def wait_ms(self) -> float:
        return 0.0 if self._waiting else super().wait_ms()

    def close(self) -> None:
        for socket in (self._pictures, self._viewers):
            if socket is not None:
                self.poller.remove(socket)
                socket.close()

    def detail(self) -> dict[str, float | str]:
        return {"watched": float(len(self._watched))}

    def _read_wishes(self) -> None:
        assert self._viewers is not None and self._pictures is not None
        while (parts := self._viewers.receive()) is not None:
            wish = bytes(parts[0])
            if wish[:1] == b"\x01":
                self._wanted.add(wish[1:])
            elif wish[:1] == b"\x00":
                self._wanted.discard(wish[1:])
        watched = {camera for camera in self.config.cameras if covered(camera, self._wanted)}
        for camera in watched - self._watched:
            self._pictures.subscribe(camera.encode())
        for camera in self._watched - watched:
            self._pictures.unsubscribe(camera.encode())
        self._watched = watched

    def _read_pictures(self) -> None:
        """Publish the newest picture of the camera whose turn it is; one that was not published in time never is."""
        assert self._pictures is not None
        deadline = time.monotonic() + 0.1  # a flood must not keep the stage from its heartbeat
        read, full = 0, self._pictures.channel.receive_queue
        while time.monotonic() < deadline:
            # Where the queue was full, more may lie in the system's buffer: ZeroMQ needs a moment to bring it.
            parts = self._pictures.receive(timeout_ms=1 if read >= full else 0)
            if parts is None:
                break
            read += 1
            camera = bytes(parts[0][:64])
            self.meter.taken += 1
            self.meter.dropped += camera in self._waiting
            self._waiting[camera] = parts  # whoever waits keeps its turn
        if not self._waiting:
            return
        started = time.perf_counter()
        try:
            self._publish(self._waiting.pop(next(iter(self._waiting))))
        except MessageError as error:
            self.meter.bad_messages += 1
            self._complaint(self.log, "pictures", error)
        self.meter.worked((time.perf_counter() - started) * 1e3)

    def _publish(self, parts: Received) -> None:
        assert self._viewers is not None
        if len(parts) < 2:
            raise MessageError(f"{len(parts)} parts came; a camera, a map and a picture were expected")
        picture = unpack(Picture, parts[1])
        if len(parts) != (2 if picture.slot else 3):
            raise MessageError(f"{len(parts)} parts came; a camera, a map and a picture were expected")
        result = picture.result
        if result.camera.encode() != bytes(parts[0][:64]):
            raise MessageError(f"a picture of {result.camera} came under another camera's name")
        if result.camera not in self._watched:
            return  # a camera whose name begins like that of a watched one
        hides = picture.blur_all or bool(picture.blur)
        if picture.encoding == "jpeg" and not hides:
            jpeg.expect(parts[2], result.width, result.height)
            data: bytes | memoryview = parts[2]
        else:
            if picture.slot is not None:
                pixels = self._shared.picture(picture.slot, result.width, result.height)
            else:
                pixels = decode(parts[2], picture.encoding, result.width, result.height)
            data = jpeg.encode(blurring.fit_to_show(pixels, picture), self.config.preview.jpeg_quality)
            if picture.slot is not None:
                self._shared.check(picture.slot, result.width, result.height)
        self._n += 1
        preview = Preview(sender=self.instance, n=self._n, analysed=result.analysed, result=result)
        if self._viewers.send([TOPIC + result.camera.encode(), pack(preview), data]):
            self.meter.given += 1
        else:
            self.meter.dropped += 1


def covered(camera: str, wanted: set[bytes]) -> bool:
    """Whether one of these subscriptions (prefixes of topics) lets the camera's previews through."""
    topic = TOPIC + camera.encode()
    return any(topic.startswith(prefix) for prefix in wanted)


if __name__ == "__main__":
    raise SystemExit(main(PreviewStage))
