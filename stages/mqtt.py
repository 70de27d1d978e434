"""The mqtt stage: tells an MQTT broker, and through it Home Assistant, who is here, how they look, and what is open."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Mapping
from typing import Any

from common import alert_store
from common.alert_store import Episode
from common.expressions import EXPRESSIONS
from common.late import LateLedger
from common.ledger import LedgerError
from common.messages import Alert, CameraState, Message, Result
from common.mqtt_sender import Sender
from common.mqtt_view import CameraView, alert_state, as_json, discovery, ended, is_state
from common.settings import Config
from common.stage import Stage, StageError, main
from common.transport import Socket
from common.withholding import nameless

CAMERAS = 256  # more are not told of; names come from outside
ALERTS_EVERY_S = 15.0  # the store is looked at now and then, should a step have been missed
OPENED_S = 1.0  # … and so often while it could not be opened yet
BUSY_MS = 200
LOOK_S = 0.05  # what has changed is looked for so often, however many results come


class MqttStage(Stage):
    """The bridge to MQTT."""

    name = "mqtt"

    def __init__(self, config: Config, *, camera: str | None = None) -> None:
        super().__init__(config, camera=camera)
        self._settings = config.mqtt
        self._sender: Sender | None = None
        self._late: LateLedger | None = None
        self._views: dict[str, CameraView] = {}
        self._episodes: list[Episode] | None = None  # not known yet
        self._alerts_due = 0.0
        self._next_look = 0.0
        self._next_result: dict[str, float] = {}

    def open(self) -> None:
        if self._settings.url is None:
            raise StageError("there is no broker to tell: set mqtt.url, as in mqtt://user:password@host:1883")
        try:
            self._late = LateLedger(self.config.storage.place, busy_ms=BUSY_MS)
            state = f"{self._settings.topic}/+/state"
            self._sender = Sender(self._settings, f"mien-{self.instance}", look_for=state)
        except LedgerError as error:
            raise StageError(str(error)) from error
        except OSError as error:
            raise StageError(f"the certificates of mqtt.ca, cert and key cannot be used: {error}") from error
        if self._late.problem is not None:
            self.log.error("%s; until it can be used, the broker is not told what is open", self._late.problem)
        for camera in self.config.cameras:
            self._view(camera)
        self._sender.open()

    def close(self) -> None:
        if self._sender is not None:
            for view in self._views.values():
                # Nobody is here any more as far as the broker knows, and nothing is open: neither name must stay there.
                empty = CameraView(view.camera, names=False, changes_per_s=1)
                self._tell(view.camera, "people", as_json(empty.people(time.monotonic())))
                self._tell(view.camera, "alert", as_json(alert_state(view.camera, (), names=False)))
                self._tell(view.camera, "state", as_json(ended()))
            self._sender.close()
        if self._late is not None:
            self._late.close()

    def topics(self) -> tuple[str, ...]:
        return ("results.", "camera.", "alerts.")

    def sampled(self) -> Mapping[str, float]:
        fastest = max(self.config.mqtt.changes_per_s, self.config.mqtt.results_per_s)
        return {"results.": min(0.1, 0.5 / fastest)}

    def detail(self) -> dict[str, float | str]:
        if self._sender is None:
            return {}
        return {"broker": "connected" if self._sender.connected else "away", "sent": float(self._sender.sent)}

    def on_news(self, topic: str, message: Message) -> None:
        started, now = time.perf_counter(), time.monotonic()
        self.meter.taken += 1
        told = message if self._settings.names else nameless(message)
        if isinstance(told, Result):
            view = self._view(told.camera)
            if view is not None:
                view.result(told, now)
                self._pass_on(told, now)
        elif isinstance(told, CameraState):
            view = self._view(told.camera)
            if view is not None:
                view.state(told, now)
        elif isinstance(told, Alert) and self._sender is not None:
            self._sender.event(f"{self._settings.topic}/{told.camera}/alerts", told.model_dump_json(by_alias=True))
            self._alerts_due = 0.0
        self.meter.worked((time.perf_counter() - started) * 1e3)

    def handle(self, ready: set[Socket]) -> None:
        assert self._sender is not None
        now = time.monotonic()
        for topic, payload in self._sender.left():
            camera = topic.removeprefix(f"{self._settings.topic}/").removesuffix("/state")
            if camera not in self._views and is_state(payload):
                self._forget(camera)
        if now >= self._next_look:
            self._next_look = now + LOOK_S
            self._look(now)
        self._sender.turn()
        self.meter.given, self.meter.dropped = self._sender.sent, self._sender.dropped

    # --- inside ---

    def _look(self, now: float) -> None:
        if now >= self._alerts_due:
            self._alerts_due = now + (ALERTS_EVERY_S if self._read_alerts() else OPENED_S)
        for camera, view in self._views.items():
            people = view.due(now)
            if people is not None:
                self._tell(camera, "people", as_json(people))
            self._tell(camera, "state", as_json(view.online(now)))
            if self._episodes is not None:
                self._tell(camera, "alert", as_json(alert_state(camera, self._episodes, names=self._settings.names)))

    def _forget(self, camera: str) -> None:
        """Have the broker keep nothing of a camera that an earlier run has told of, and that is not there any more."""
        assert self._sender is not None
        self.log.info("%s is not there any more: the broker forgets it", camera)
        topics = [f"{self._settings.topic}/{camera}/{what}" for what in ("people", "alert", "state")]
        if self._settings.discovery:
            topics = [*self._discovery(camera), *topics]
        for topic in topics:
            if topic not in self._sender.states():  # Home Assistant's topics have a camera's name without its signs
                self._sender.state(topic, "")

    def _discovery(self, camera: str) -> dict[str, dict[str, Any]]:
        settings = self._settings
        return discovery(
            camera, topic=settings.topic, prefix=settings.discovery, version=_version(), expressions=EXPRESSIONS
        )

    def _tell(self, camera: str, what: str, payload: str) -> None:
        assert self._sender is not None
        self._sender.state(f"{self._settings.topic}/{camera}/{what}", payload)

    def _pass_on(self, result: Result, now: float) -> None:
        assert self._sender is not None
        if not self._settings.results_per_s or now < self._next_result.get(result.camera, 0.0):
            return
        self._next_result[result.camera] = now + 1 / self._settings.results_per_s
        self._sender.passing(f"{self._settings.topic}/{result.camera}/results", result.model_dump_json(by_alias=True))

    def _view(self, camera: str) -> CameraView | None:
        view = self._views.get(camera)
        if view is None and len(self._views) < CAMERAS and self._sender is not None:
            settings = self._settings
            view = CameraView(camera, names=settings.names, changes_per_s=settings.changes_per_s)
            self._views[camera] = view
            if settings.discovery:
                for topic, message in self._discovery(camera).items():
                    self._sender.state(topic, as_json(message))
        return view

    def _read_alerts(self) -> bool:
        """Read what is open; return whether there is a store to read by now."""
        assert self._late is not None
        try:
            ledger = self._late.get()
            if ledger is None:
                return False
            self._episodes = alert_store.episodes(ledger, is_open=True, consent_at=time.time())
        except LedgerError as error:
            self.log.warning("what is open cannot be read at the moment: %s", error)
        return True


def _version() -> str:
    try:
        return importlib.metadata.version("mien")
    except importlib.metadata.PackageNotFoundError:
        return "0"  # a copy that was not installed


if __name__ == "__main__":
    raise SystemExit(main(MqttStage))
