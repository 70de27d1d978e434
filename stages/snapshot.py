"""The snapshot stage: on request, the next picture of a camera, plain and annotated, and its result as JSON."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2

from common import jpeg, snapshots
from common.drawing import annotate
from common.messages import CameraState, Control, Message, MessageError
from common.news import Complaint
from common.settings import Config
from common.snapshots import SnapshotError
from common.stage import Answer, ControlError, Stage, main
from common.transport import Socket
from common.watching import Seen, Viewer, read

DEADLINE_S = 2.0
SPARE_S = 0.4  # so long before the deadline a picture without its analysis is better than none
SWEEP_EVERY_S = 600.0
_ANNOTATED_QUALITY = 92


@dataclass(slots=True)
class _Open:
    """A request that waits for pictures."""

    missing: set[str]
    deadline: float
    alert: bool  # nobody asked: it is for an alert
    spare: dict[str, Seen] = field(default_factory=dict)  # by camera, the newest picture that nobody has looked at
    kept: dict[str, Path] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)


class SnapshotStage(Stage):
    """Keeps snapshots on request."""

    name = "snapshot"

    def __init__(self, config: Config, *, camera: str | None = None) -> None:
        super().__init__(config, camera=camera)
        self._complaint = Complaint()
        self._open: dict[str, _Open] = {}
        self._states: dict[str, CameraState] = {}
        self._viewer: Viewer | None = None
        self._next_sweep = 0.0

    def open(self) -> None:
        cv2.setNumThreads(1)
        self._viewer = Viewer(self.config)
        self.poller.add(self._viewer.socket)

    def topics(self) -> tuple[str, ...]:
        return ("camera.",)

    def wait_ms(self) -> float:
        return 20.0 if self._open else super().wait_ms()

    def close(self) -> None:
        if self._viewer is not None:
            self.poller.remove(self._viewer.socket)
            self._viewer.close()

    def on_news(self, topic: str, message: Message) -> None:
        if isinstance(message, CameraState):
            self._states[message.camera] = message

    def control(self, request: Control) -> Answer | None:
        if request.do != "snapshot":
            return super().control(request)
        camera = request.args.get("camera")
        if camera is None:
            cameras = set(self.config.own_cameras)
        elif isinstance(camera, str) and camera in self.config.cameras:
            cameras = {camera}
        else:
            raise ControlError(f"there is no camera {str(camera)[:64]!r}; configured: {', '.join(self.config.cameras)}")
        alert = request.sender.startswith("alerts.")
        self._open[request.request] = _Open(missing=cameras, deadline=time.monotonic() + DEADLINE_S, alert=alert)
        self._watch()
        return None

    def handle(self, ready: set[Socket]) -> None:
        assert self._viewer is not None
        while self._open and (parts := self._viewer.receive()) is not None:
            self.meter.taken += 1
            with self._checked():
                self._take(read(parts))
        now = time.monotonic()
        for request, waiting in list(self._open.items()):
            if now >= waiting.deadline - SPARE_S:
                for camera in waiting.missing & waiting.spare.keys():
                    with self._checked():
                        self._keep(waiting.spare.pop(camera), [waiting])
            if now >= waiting.deadline:
                waiting.problems += [self._absence(camera) for camera in sorted(waiting.missing)]
                waiting.missing.clear()
            if not waiting.missing:
                self._settle(request, waiting)
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP_EVERY_S
            self._sweep()

    @contextlib.contextmanager
    def _checked(self) -> Iterator[None]:
        try:
            yield
        except MessageError as error:
            self.meter.bad_messages += 1
            self._complaint(self.log, "previews", error)

    def _take(self, seen: Seen) -> None:
        preview, camera = seen.preview, seen.preview.result.camera
        requests = [waiting for waiting in self._open.values() if camera in waiting.missing]
        if preview.analysed or preview.result.quiet:
            self._keep(seen, requests)
            return
        for waiting in requests:  # while the analysis stalls, pictures come without their faces
            waiting.spare[camera] = seen

    def _keep(self, seen: Seen, requests: list[_Open]) -> None:
        result = seen.preview.result
        if not requests:
            return
        pixels = jpeg.decode(seen.jpeg, result.width, result.height)
        started = time.perf_counter()
        try:
            annotated = jpeg.encode(annotate(pixels, result), _ANNOTATED_QUALITY)
            folder, alert = snapshots.folder(self.config), all(waiting.alert for waiting in requests)
            kept = snapshots.write(folder, result, seen.jpeg, annotated, alert=alert)
        except SnapshotError as error:
            self.log.error("%s", error)
            for waiting in requests:
                waiting.problems.append(str(error))
        else:
            self.meter.given += 1
            for waiting in requests:
                waiting.kept[result.camera] = kept
        self.meter.worked((time.perf_counter() - started) * 1e3)
        for waiting in requests:
            waiting.missing.discard(result.camera)
        self._watch()

    def _settle(self, request: str, waiting: _Open) -> None:
        del self._open[request]
        self._watch()
        if waiting.problems:
            saved = [f"saved: {kept}{snapshots.PICTURE}" for kept in waiting.kept.values()]
            self.answer(request, error="; ".join([*waiting.problems, *saved]))
        else:
            self.answer(request, {camera: str(kept) for camera, kept in waiting.kept.items()})

    def _sweep(self) -> None:
        keep_days = self.config.alerts.keep_days
        try:
            gone = snapshots.sweep(snapshots.folder(self.config), time.time() - keep_days * 86400)
        except SnapshotError as error:
            self.log.warning("%s", error)
        else:
            if gone:
                self.log.info("%d files of snapshots for alerts were older than %g days", gone, keep_days)

    def _absence(self, camera: str) -> str:
        state = self._states.get(camera)
        why = "is the preview stage running? (python launch.py status)"
        if state is not None and state.paused:
            why = "the camera is paused"
        elif state is not None and state.state != "online":
            why = f"the camera is {state.state}" + (f" ({state.reason})" if state.reason else "")
        return f"no picture from {camera} for {DEADLINE_S:.0f} s: {why}"

    def _watch(self) -> None:
        """Subscribe to what is missing, and to nothing else: without viewers no picture is encoded."""
        assert self._viewer is not None
        self._viewer.watch(*{camera for waiting in self._open.values() for camera in waiting.missing})


if __name__ == "__main__":
    raise SystemExit(main(SnapshotStage))
