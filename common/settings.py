"""What can be configured: every section and key with its default, its bounds and what it is for."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import platformdirs
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from common.alerts.rules import AlertsConfig, HistoryConfig, NotificationsConfig, covers
from common.channels import CHANNELS
from common.cluster.settings import ClusterConfig
from common.endpoints import PORTS, Endpoint, is_address, parse, remote
from common.messages import Name
from common.mqtt_config import MqttConfig
from common.place import Place, checked

POOLS = ("detection", "identity", "expression")
_RULES_NEED = 1.0  # pictures a second: time between looks farther apart counts for no rule, and a track breaks in it
_IPC_LIMIT = 100  # bytes; the kernel's limit for a socket's path is 107


def _at_home(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError as error:
        raise ValueError(f"there is no user whose home {path} could be in") from error


HomePath = Annotated[Path, AfterValidator(_at_home)]  # ~ is what the shell takes it for


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class CameraConfig(_Section):
    """One camera: anything that gives pictures."""

    source: str = Field(
        default="demo",
        min_length=1,
        description="demo, demo:crowd, webcam[:N], screen[:X,Y,W,H], a file, a folder, an rtsp:// or http:// address",
    )
    max_rate: float | None = Field(
        default=None, gt=0, le=240, description="frames per second at most; null: all; with alert rules, 1 or more"
    )
    encoding: Literal["auto", "raw", "jpeg"] = Field(
        default="auto", description="on the wire; auto: jpeg between machines, raw on one"
    )
    jpeg_quality: int = Field(default=90, ge=10, le=100)
    frozen_after_s: float = Field(default=5, gt=0, description="a stream that repeats one picture this long is lost")


class EndpointsConfig(_Section):
    """Where each channel is. ``ipc://{run_dir}/…`` unless set; the public ones are on loopback TCP.

    The same on every machine: an endpoint says how others reach a channel; who listens there is in the table of
    channels. What other machines can reach opens with keys only (``python launch.py keys``).
    """

    host: str | None = Field(
        default=None, description="the machine of bus, conductor and preview: puts all channels there, on ports 5560 on"
    )
    listen: str | None = Field(
        default=None, description="address to listen on; null: the endpoint's own, all of them where that is a name"
    )
    frames: str | None = None
    jobs: str | None = None
    findings: str | None = None
    pictures: str | None = None
    archive: str | None = Field(default=None, description="set by commands that keep everything (analyse, --record)")
    news_in: str = "tcp://127.0.0.1:5560"
    news_out: str = "tcp://127.0.0.1:5561"
    previews: str = "tcp://127.0.0.1:5562"
    control: str | None = Field(default=None, description="requests; null: they go in with the news, on one machine")
    news_public: str | None = Field(default=None, description="news without names; null: there are none")

    @model_validator(mode="before")
    @classmethod
    def _all_on_one_host(cls, values: Any) -> Any:
        host = values.get("host") if isinstance(values, dict) else None
        if not isinstance(host, str):
            return values
        place = f"[{host}]" if ":" in host else host
        there = {channel: f"tcp://{place}:{port}" for channel, port in PORTS.items()}
        return there | {key: value for key, value in values.items() if value is not None}

    @field_validator(*CHANNELS)
    @classmethod
    def _known_transport(cls, value: str | None) -> str | None:
        place = parse(value or "")
        if value is not None and not re.fullmatch("ipc://.+", value) and place is None:
            raise ValueError("an endpoint looks like ipc://path or tcp://host:port, with a port from 1 to 65535")
        if place is not None and place[0] in ("*", "0.0.0.0", "::"):
            raise ValueError(
                "an endpoint is where others reach the channel: give the machine's name or address (endpoints.listen "
                "says on which of its addresses it listens)"
            )
        return value

    @field_validator("listen")
    @classmethod
    def _an_address(cls, value: str | None) -> str | None:
        if value is not None and not is_address(value):
            raise ValueError("listen is an address of this machine, such as 192.168.1.5, or 0.0.0.0 for all of them")
        return value

    @model_validator(mode="after")
    def _control_apart(self) -> Self:
        if remote(self.news_in) and self.control is None:
            raise ValueError(
                "control: where the news go in from other machines, requests need an endpoint of their own, so that "
                "whoever may publish cannot control: set endpoints.control, or endpoints.host for all of them"
            )
        return self


class SecurityConfig(_Section):
    """Keys for what other machines can reach; see ``python launch.py keys``."""

    keys_dir: HomePath | None = Field(default=None, description="null: 'keys' in the data directory")
    loopback: bool = Field(
        default=False, description="keys on this machine's TCP endpoints, too: where others work on it"
    )


class WorkersConfig(_Section):
    """How many processes each pool has on this machine."""

    detection: int = Field(default=2, ge=0, le=64)
    identity: int = Field(default=1, ge=0, le=64)
    expression: int = Field(default=1, ge=0, le=64)
    threads: int = Field(default=1, ge=1, le=64, description="threads a worker computes on")


class DetectionConfig(_Section):
    model: HomePath | None = Field(default=None, description="a YuNet ONNX file of your own; null: CenterFace")
    input_long_side: int = Field(
        default=512, ge=64, le=4096, description="pixels of the longer side that the network sees; 40 px faces at 1280"
    )
    adapt_input: bool = Field(
        default=True,
        description="look only around the faces in view between looks at the whole picture; not with privacy.blur",
    )
    score_threshold: float = Field(
        default=0.35, gt=0, lt=1, description="weaker detections do not count; a track begins at 0.5, or here if higher"
    )
    precision: Literal["auto", "f32", "bf16"] = "auto"
    min_face_px: int = Field(default=24, ge=8, description="smaller faces cannot be assessed")


class IdentityConfig(_Section):
    engine: Literal["openvino", "face_recognition"] = "openvino"
    nearer: float | None = Field(
        default=None, gt=0, lt=0.6, description="so much less far than other people names; null: as calibrated"
    )
    lead: float | None = Field(
        default=None, gt=0.3, le=1, description="… at most in parts of the second-best's distance; null: as calibrated"
    )
    remember_unknown: bool = Field(default=True, description="strangers get numbers and sightings are written down")
    most_unknown: int = Field(default=500, ge=1, le=10_000, description="strangers kept; the longest unseen goes first")
    index_above: int = Field(
        default=200_000, ge=1000, description="reference faces from which on an index is asked first (mien[index])"
    )
    intervals_s: tuple[float, ...] = Field(
        default=(1.0, 2.0, 10.0), min_length=1, description="pauses between looks at one track; the last one repeats"
    )

    @field_validator("intervals_s")
    @classmethod
    def _bounded(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0 < seconds <= 10 for seconds in value):
            raise ValueError("each pause is more than 0 and at most 10 seconds")
        return value


class ExpressionConfig(_Section):
    model: HomePath | None = Field(default=None, description="an ONNX file with the contract of docs/models.md")
    precision: Literal["auto", "f32", "bf16", "int8"] = Field(
        default="auto", description="int8: only the network that ships; auto: the quickest of them here"
    )
    batch: int = Field(default=8, ge=1, le=64, description="faces a job at most")
    every_ms: float = Field(
        default=50,
        ge=0,
        le=150,
        description="live, a face's expression is looked at once in this time at most; 0: in every frame",
    )
    settle_ms: float = Field(default=200, ge=0, le=2000, description="time constant of the smoothing")
    margin: float = Field(default=0.08, ge=0, le=0.5, description="a new label leads by this much before it is shown")


class PipelineConfig(_Section):
    deadline_ms: float = Field(default=150, gt=0, description="what is missing this long after detection stays pending")
    stall_ms: float = Field(default=500, gt=0, description="analysis stalled this long: pictures go out without it")
    job_timeout_ms: float = Field(
        default=2000, gt=0, description="a job unanswered this long is given to another worker"
    )
    first_track: int | None = Field(default=None, ge=1, description="null: ids go on from the last run's")
    quiet_look_ms: float = Field(
        default=120,
        ge=0,
        le=1000,
        description="while nobody is in view, the detector looks this often; 0: at every frame, always",
    )
    still_look_ms: float = Field(
        default=500, ge=0, le=2000, description="the same while nothing moves, as far as that can be seen"
    )
    window: int = Field(default=8, ge=1, le=64, description="frames in flight, a camera, in every-frame mode")


class PreviewConfig(_Section):
    jpeg_quality: int = Field(default=80, ge=10, le=100)


class StorageConfig(_Section):
    data_dir: HomePath = Field(default_factory=lambda: Path(platformdirs.user_data_dir("mien", appauthor=False)))
    snapshot_dir: HomePath | None = Field(default=None, description="null: 'snapshots' in the data directory")
    url: str | None = Field(
        default=None, description="postgresql://USER@HOST/DATABASE, shared by machines; null: SQLite in data_dir"
    )

    @field_validator("url")
    @classmethod
    def _safe(cls, value: str | None) -> str | None:
        return value if value is None else checked(value)

    @property
    def place(self) -> Place:
        """Where the store is."""
        return Place(self.data_dir, self.url)


class PrivacyConfig(_Section):
    """Whose faces nobody sees, and how long what is known of people is kept."""

    blur: Literal["none", "no_consent", "unknown"] = Field(
        default="none",
        description="faces made unrecognisable in previews, window and snapshots: of people without consent, also of "
        "unknown people; undecided ones with them",
    )
    unknown_days: float = Field(default=30, gt=0, le=3650, description="unknown people unseen so long are deleted")
    unknown_crop_days: float = Field(default=7, gt=0, le=3650, description="… and their crops")
    sighting_days: float = Field(default=90, gt=0, le=3650, description="sightings older than this are deleted")


class DashboardConfig(_Section):
    """The page in the browser. On this machine alone unless configured, and then only with encryption."""

    enabled: bool = Field(default=True, description="false: no page, and no port for it")
    host: str = Field(default="127.0.0.1", min_length=1, description="address to listen on; 0.0.0.0: all of them")
    port: int = Field(default=8080, ge=1, le=65535)
    names: tuple[str, ...] = Field(default=(), description="names under which browsers may reach this machine besides")
    tls_cert: HomePath | None = Field(default=None, description="certificate with its chain, PEM; with tls_key: https")
    tls_key: HomePath | None = Field(default=None, description="the certificate's private key, PEM")
    session_hours: float = Field(default=12, gt=0, le=24 * 30, description="a log-in ends after this")
    idle_minutes: float = Field(default=30, gt=0, le=24 * 60, description="… or so long after its last page was closed")

    @model_validator(mode="after")
    def _encrypted_beyond_here(self) -> Self:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together: give both files, or neither")
        for key, path in (("tls_cert", self.tls_cert), ("tls_key", self.tls_key)):
            if self.enabled and path is not None and not path.is_file():
                raise ValueError(f"{key}: there is no file {path}")
        if self.enabled and not self.loopback and self.tls_cert is None:
            raise ValueError(
                f"host {self.host} can be reached from other machines, which is allowed with encryption only: set "
                "tls_cert and tls_key to your certificate's files, or host to 127.0.0.1"
            )
        return self

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the page."""
        return self.host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", self.host) is not None


class SupervisionConfig(_Section):
    heartbeat_timeout_s: float = Field(default=5, ge=2, description="a process silent this long is replaced")
    start_timeout_s: float = Field(default=60, gt=1, description="… while it loads its model")
    restarts: int = Field(
        default=8,
        ge=0,
        description="restarts a process may need within the window, or without a minute of work in between, however "
        "long that takes; then it has FAILED",
    )
    window_s: float = Field(default=120, gt=1)
    failed_retry_s: float = Field(
        default=300, ge=0, description="a process that has FAILED is tried again after so long; 0: never"
    )
    worker_memory_mb: float = Field(
        default=1500, ge=100, description="a worker whose own memory grows beyond this is replaced between two frames"
    )
    longest_delay_s: float = Field(default=10, gt=0)


class CellConfig(_Section):
    """One cell of several: a conductor with its cameras and workers. The cells share the store, and their news."""

    cameras: tuple[Name, ...] | None = Field(
        default=None, min_length=1, description="those of 'cameras' that this cell watches; null: all"
    )
    hub_news_in: str | None = Field(default=None, description="of the hub, the cell that all others' news go to")
    hub_news_out: str | None = Field(default=None, description="… and where its requests come from; null: this is it")
    previews: tuple[str, ...] = Field(default=(), description="at the hub: where the other cells' previews are")

    @field_validator("hub_news_in", "hub_news_out")
    @classmethod
    def _reachable(cls, value: str | None) -> str | None:
        return EndpointsConfig._known_transport(value)

    @model_validator(mode="after")
    def _both_ways(self) -> Self:
        if (self.hub_news_in is None) != (self.hub_news_out is None):
            raise ValueError(
                "hub_news_in and hub_news_out belong together: the endpoints news_in and news_out of the hub"
            )
        return self


def _default_run_dir() -> Path:
    session = os.environ.get("XDG_RUNTIME_DIR")
    if session and os.access(session, os.W_OK):
        return Path(session) / "mien"
    # Systems without a session directory: one of this user's own (launch.py makes it, readable by nobody else).
    return Path(tempfile.gettempdir()) / f"mien-{os.getuid() if hasattr(os, 'getuid') else 'user'}"


class Config(_Section):
    """Everything that can be set."""

    cameras: dict[Name, CameraConfig] = Field(default_factory=lambda: {"cam0": CameraConfig()}, min_length=1)
    every_frame: bool = Field(default=False, description="analyse every frame, however long it takes")
    loop: bool = Field(default=True, description="the demo begins again when it ends")
    shared_memory: bool = Field(
        default=True, description="raw pictures reach processes of the same machine through shared memory"
    )
    run_dir: HomePath = Field(default_factory=_default_run_dir, description="sockets of this run")
    recording: Literal["off", "plain", "biometric"] = Field(
        default="off", description="what the conductor writes to the archive; set by --record and --record-biometrics"
    )
    endpoints: EndpointsConfig = EndpointsConfig()
    workers: WorkersConfig = WorkersConfig()
    detection: DetectionConfig = DetectionConfig()
    identity: IdentityConfig = IdentityConfig()
    expression: ExpressionConfig = ExpressionConfig()
    pipeline: PipelineConfig = PipelineConfig()
    preview: PreviewConfig = PreviewConfig()
    storage: StorageConfig = StorageConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    security: SecurityConfig = SecurityConfig()
    alerts: AlertsConfig = AlertsConfig()
    history: HistoryConfig = HistoryConfig()
    notifications: NotificationsConfig = NotificationsConfig()
    supervision: SupervisionConfig = SupervisionConfig()
    cell: CellConfig = CellConfig()
    dashboard: DashboardConfig = DashboardConfig()
    mqtt: MqttConfig = MqttConfig()
    cluster: ClusterConfig = ClusterConfig()

    @model_validator(mode="after")
    def _targets_are_there(self) -> Self:
        there = self.notifications.targets
        for rule in self.alerts.rules:
            for target in set(rule.targets or ()) - set(there):
                known = ", ".join(there) or "none"
                raise ValueError(f"alerts: rule {rule.name!r} tells {target!r}; notifications.targets has: {known}")
        return self

    @model_validator(mode="after")
    def _page_has_its_own_port(self) -> Self:
        # Also where an endpoint is said to be another machine's: one file is for all of them.
        for channel in CHANNELS:
            place = parse(self._address(channel))
            if self.dashboard.enabled and place is not None and place[1] == self.dashboard.port:
                raise ValueError(
                    f"dashboard.port = {self.dashboard.port} is the port of endpoints.{channel} "
                    f"({self._address(channel)}): choose another one for the page"
                )
        return self

    @model_validator(mode="after")
    def _rules_see_enough(self) -> Self:
        for name, camera in self.cameras.items():
            rule = next((rule for rule in self.alerts.rules if covers(rule, name)), None)
            if rule is not None and camera.max_rate is not None and camera.max_rate < _RULES_NEED:
                raise ValueError(
                    f"cameras.{name}.max_rate = {camera.max_rate:g}: too few pictures a second for the alert rule "
                    f"{rule.name!r}; set {_RULES_NEED:g} or more, or say in alerts.rules which cameras each rule is for"
                )
        return self

    @model_validator(mode="after")
    def _paths_fit(self) -> Self:
        if sys.platform != "win32" and len(os.fsencode(self.run_dir)) > _IPC_LIMIT - len("/news_public"):
            raise ValueError(f"run_dir: the path {str(self.run_dir)!r} is too long for a socket: choose a shorter one")
        if self.pipeline.stall_ms <= self.pipeline.deadline_ms:
            raise ValueError("pipeline.stall_ms must be longer than pipeline.deadline_ms")
        return self

    def endpoint(self, channel: str) -> Endpoint:
        """Return the address of a channel (a name of ``CHANNELS``), with what it takes to open it."""
        return self.reached_at(self._address(channel))

    def reached_at(self, address: str) -> Endpoint:
        """Return an address that is not in the table, as another cell's, with what it takes to open it."""
        return Endpoint.of(
            address,
            keys=self.keys_dir,
            listen=self.endpoints.listen,
            everywhere=self.security.loopback,
        )

    @property
    def control_apart(self) -> bool:
        """Whether requests have a way in of their own, beside the news."""
        return self.endpoints.control is not None or self.security.loopback

    @property
    def keys_dir(self) -> Path:
        """Where this machine's keys are."""
        return self.security.keys_dir or self.storage.data_dir / "keys"

    @model_validator(mode="after")
    def _cell_is_one_of_several(self) -> Self:
        for camera in set(self.cell.cameras or ()) - set(self.cameras):
            raise ValueError(f"cell.cameras: there is no camera {camera!r}; there are {', '.join(self.cameras)}")
        if self.cell.hub_news_in is not None and self.cell.hub_news_in == self.endpoints.news_in:
            raise ValueError("cell.hub_news_in is this cell's own: the hub itself has none")
        return self

    @property
    def own_cameras(self) -> tuple[str, ...]:
        """The cameras of this cell."""
        return tuple(self.cameras) if self.cell.cameras is None else self.cell.cameras

    def _address(self, channel: str) -> str:
        value: str | None = getattr(self.endpoints, channel)
        if value is not None:
            return value
        if channel == "control" and not self.control_apart:
            return self._address("news_in")
        if sys.platform == "win32":  # no ipc there: fixed loopback ports below the public ones
            return f"tcp://127.0.0.1:{5550 + list(CHANNELS).index(channel)}"
        return f"ipc://{self.run_dir}/{channel}"
