"""Every message that crosses a process border: one class each, made valid or not made.

A message on the wire is a list of parts: a topic (or worker id), one msgpack map of at most 64 KiB, then raw byte
parts (pixels, JPEG, crops, embeddings). The map is checked as a whole when it arrives: types, bounds, finite numbers.
Byte parts are checked by whoever reads them, with ``array_from``.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import msgpack
import numpy as np
from numpy.typing import DTypeLike, NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from common.expressions import ExpressionName

VERSION: Literal[1] = 1
MAX_MAP_BYTES = 64 * 1024
MAX_SIDE = 16384  # pixels; twice the width of an 8K picture
RING_SLOTS = 12  # pictures of one camera in shared memory
MAX_FACES = 64  # a result of 64 faces still fits the 64 KiB map
CHECKED_BELOW = 64 * 1024  # bytes; larger parts are pictures: a damaged pixel names nobody

Part = bytes | memoryview | NDArray[np.uint8] | NDArray[np.float32]


class MessageError(ValueError):
    """A message that cannot be trusted; the text says what was expected and what came."""


Name = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
Instance = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_.:-]+$")]
Side = Annotated[int, Field(ge=1, le=MAX_SIDE)]
Count = Annotated[int, Field(ge=0)]
Milliseconds = Annotated[float, Field(ge=0)]
Unit = Annotated[float, Field(ge=0, le=1)]
Box = tuple[float, float, float, float]  # x, y, width, height; float pixels of the picture
Point = tuple[float, float]
Text = Annotated[str, Field(max_length=1024)]


class _Checked(BaseModel):
    """Frozen and strict: no coercion, no NaN or infinity; unknown fields are ignored, for newer senders add some."""

    model_config = ConfigDict(frozen=True, strict=True, extra="ignore", allow_inf_nan=False, populate_by_name=True)


class Message(_Checked):
    """What every message carries: protocol version, when, from whom, and the sender's own sequence (gaps = losses)."""

    kind: ClassVar[str] = ""

    v: Literal[1] = Field(default=VERSION, description="protocol version")
    at: float = Field(default_factory=time.time, description="when it was sent; unix seconds of the sender's clock")
    sender: Instance = Field(alias="from", description="stage and instance that sent it")
    n: Count = Field(default=0, description="the sender's own sequence under this topic; a gap is a loss")


class Clock(_Checked):
    """A monotonic clock's reading and the machine it belongs to; two readings of one host may be subtracted."""

    host: Annotated[str, Field(max_length=64)]
    monotonic_ns: Count


class Slot(_Checked):
    """Where a raw picture is in memory that the processes of one machine share (``common/ring.py``)."""

    ring: Annotated[str, Field(max_length=128, pattern=r"^[A-Za-z0-9_-]+$")]
    number: Annotated[int, Field(ge=0, lt=RING_SLOTS)]
    generation: Annotated[int, Field(ge=1)]


class _OfFrame(Message):
    camera: Name = Field(description="the camera's name in the configuration")
    run: Count = Field(description="start of this capture, unix milliseconds; numbers of another run do not compare")
    seq: Count = Field(description="the frame's number within the run, from 0")
    captured_at: float = Field(description="when the picture was taken; unix seconds of the capturing machine's clock")


# --- inside a cell ---------------------------------------------------------------------------------------------------


class Frame(_OfFrame):
    """A picture on its way to the conductor. Blob: the pixels, (height, width, 3) uint8 BGR, or a JPEG; none with
    ``slot``.
    """

    kind: ClassVar[str] = "frame"

    width: Side
    height: Side
    encoding: Literal["raw", "jpeg"] = "raw"
    age_ms: Milliseconds = Field(description="time from capture to sending, on the camera's clock")
    clock: Clock = Field(description="the capturing machine's monotonic clock at capture")
    media_time_s: float = Field(ge=0, description="seconds since the source began, by its own clock")
    still: bool = Field(default=False, description="an independent picture: nothing carries over to the next")
    every_frame: bool = Field(default=False, description="nothing may be dropped; decisions in media time")
    name: Text | None = Field(default=None, description="file name, for pictures of a folder")
    scene: Count = Field(default=0, description="another number: another source; nothing carries over")
    slot: Slot | None = Field(default=None, description="the pixels are there, raw, instead of in a blob")
    moving: bool | None = Field(default=None, description="the conductor's own note: whether the picture has changed")


class EndOfSource(Message):
    """The source has no more pictures; its last frame had ``seq`` = ``frames`` - 1."""

    kind: ClassVar[str] = "end"

    camera: Name
    run: Count
    frames: Count


class Ready(Message):
    """A worker that has its model loaded and waits. Repeated while it waits, so that a new conductor learns of it."""

    kind: ClassVar[str] = "ready"

    pool: Literal["detection", "identity", "expression"]
    last_job: int = Field(ge=-1, description="the last job it received, -1 if none: what was lost shows")


class _Job(_OfFrame):
    job: Count = Field(description="never used twice by one conductor")


class DetectionJob(_Job):
    """Find the faces. Blob: the frame's own; none with ``slot``."""

    kind: ClassVar[str] = "detection"

    width: Side
    height: Side
    encoding: Literal["raw", "jpeg"]
    slot: Slot | None = None
    near: Annotated[tuple[Box, ...], Field(max_length=MAX_FACES)] | None = Field(
        default=None, description="look only around these boxes; null: at the whole picture"
    )
    known: tuple[Box, ...] | None = Field(
        default=None, description="faces near these boxes need no identity patch; null: patches of all faces"
    )


class IdentityJob(_Job):
    """Embed faces. Blobs: one patch a face, (height, width, 3) uint8 BGR."""

    kind: ClassVar[str] = "identity"

    shapes: Annotated[tuple[tuple[Side, Side], ...], Field(max_length=MAX_FACES)]
    boxes: Annotated[tuple[Box, ...], Field(max_length=MAX_FACES)]


class ExpressionJob(_Job):
    """Judge expressions. Blob: (count, size, size) uint8 grey crops."""

    kind: ClassVar[str] = "expression"

    count: Annotated[int, Field(ge=1, le=MAX_FACES)]
    size: Annotated[int, Field(ge=16, le=512)]


class _Finding(Message):
    pool: str
    job: Count
    work_ms: Milliseconds = Field(description="time the worker computed")
    error: Text | None = Field(default=None, description="why there is no answer; blobs are missing then")


class DetectionFinding(_Finding):
    """Faces found. Blobs: boxes (N, 4), scores (N,), landmarks (N, 5, 2), qualities (N, 7), appearances (N, 48), all
    float32; crops (A, size, size) uint8 of the assessable faces; then one patch, (h, w, 3) uint8, per ``patch_faces``.
    """

    kind: ClassVar[str] = "found.detection"

    pool: Literal["detection"] = "detection"
    count: Annotated[int, Field(ge=0, le=MAX_FACES)] = 0
    more: Count = Field(default=0, description="faces found beyond those: too many to be told of")
    crop_size: Annotated[int, Field(ge=16, le=512)] = 64
    reasons: Annotated[tuple[Annotated[str, Field(max_length=32)] | None, ...], Field(max_length=MAX_FACES)] = ()
    patch_faces: Annotated[tuple[Count, ...], Field(max_length=MAX_FACES)] = ()
    patch_shapes: Annotated[tuple[tuple[Side, Side], ...], Field(max_length=MAX_FACES)] = ()
    patch_boxes: Annotated[tuple[Box, ...], Field(max_length=MAX_FACES)] = ()


class IdentityFinding(_Finding):
    """Embeddings. Blobs: (N, 128) float32, then the aligned chips (N, 150, 150, 3) uint8 RGB they were made from."""

    kind: ClassVar[str] = "found.identity"

    pool: Literal["identity"] = "identity"
    count: Annotated[int, Field(ge=0, le=MAX_FACES)] = 0


class ExpressionFinding(_Finding):
    """Probabilities. Blob: (N, 7) float32, rows sum to 1, in the order of ``EXPRESSIONS``."""

    kind: ClassVar[str] = "found.expression"

    pool: Literal["expression"] = "expression"
    count: Annotated[int, Field(ge=0, le=MAX_FACES)] = 0


# --- the public protocol ---------------------------------------------------------------------------------------------


class Probabilities(_Checked):
    """One probability per expression; they sum to 1."""

    angry: Unit = Field(description="probability")
    disgusted: Unit = Field(description="probability")
    fearful: Unit = Field(description="probability")
    happy: Unit = Field(description="probability")
    sad: Unit = Field(description="probability")
    surprised: Unit = Field(description="probability")
    neutral: Unit = Field(description="probability")


class Identity(_Checked):
    """Who a face is. ``pending``: not sure yet; ``unknown``: sure that it is nobody enrolled."""

    status: Literal["known", "unknown", "pending"] = Field(
        default="pending", description="pending: not sure yet; unknown: sure that it is nobody enrolled"
    )
    person: Count | None = Field(default=None, description="the person's number in the store")
    name: Text | None = Field(default=None, description="of a known person")
    number: Count | None = Field(default=None, description="of an unknown person: the same whenever seen again")
    distance: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="to the nearest person, Euclidean; 0.6 = apart"
    )
    confidence: Unit | None = Field(default=None, description="probability that it is this person")
    withheld: bool = Field(default=False, description="nothing may be kept of this face: consent is refused or over")


class Expression(_Checked):
    """How a face looks. ``label`` and ``smoothed`` follow the track; ``probabilities`` are this frame's own."""

    status: Literal["ok", "cannot_assess", "pending"] = Field(
        default="pending", description="pending: not judged in time; neither this nor cannot_assess means neutral"
    )
    reason: Annotated[str, Field(max_length=32)] | None = Field(default=None, description="why it cannot be assessed")
    label: ExpressionName | None = Field(default=None, description="how the face looks, smoothed over the track")
    confidence: Unit | None = Field(default=None, description="smoothed probability of the label")
    probabilities: Probabilities | None = Field(
        default=None,
        description="of this frame; they sum to 1; live, only some frames have them: smoothed bridges the others",
    )
    smoothed: Probabilities | None = Field(default=None, description="over the track; they sum to 1")


class Face(_Checked):
    """One face of one analysed frame."""

    track: Count = Field(description="lasting id of this face; never used twice, not after a restart either")
    box: Box = Field(description="x, y, width, height in float pixels, inside the picture")
    score: Unit = Field(description="how sure the detector is")
    landmarks: tuple[Point, Point, Point, Point, Point] = Field(
        description="eyes, nose, mouth's corners, left in the picture first: x, y in float pixels, may be outside of it"
    )
    identity: Identity = Field(description="who it is")
    expression: Expression = Field(description="how it looks")


class Enrolling(_Checked):
    """How far the enrolment of a face in view is."""

    track: Count = Field(description="whose face it is")
    pictures: Count = Field(description="good crops so far")
    wanted: Count = Field(description="… of so many")
    turn: Literal["front", "left", "right"] | None = Field(
        default=None, description="where the head should turn, as the person says left and right; null: all is there"
    )


class Result(_OfFrame):
    """``results.<camera>``: what was seen in one frame."""

    kind: ClassVar[str] = "results"

    width: Side = Field(description="of the picture, pixels")
    height: Side = Field(description="of the picture, pixels")
    analysed: bool = Field(
        description="the detector ran on this very frame; false: a picture shown without an analysis"
    )
    quiet: bool = Field(
        default=False,
        description="not analysed on purpose: nobody has been in view for a while, and a look every so often is enough",
    )
    latency_ms: Milliseconds = Field(
        description="from capture to publication, milliseconds; never mixes two machines' clocks"
    )
    timings_ms: dict[Annotated[str, Field(max_length=32)], Milliseconds] = Field(description="by stage, milliseconds")
    media_time_s: float = Field(ge=0, description="seconds since the source began, by its own clock")
    name: Text | None = Field(default=None, description="file name, for pictures of a folder")
    selected: Count | None = Field(default=None, description="the track that somebody follows, if it is in the picture")
    following: bool = Field(default=False, description="somebody is followed, in the picture or not")
    enrolling: Enrolling | None = Field(default=None, description="somebody in view is being enrolled")
    faces: Annotated[tuple[Face, ...], Field(max_length=MAX_FACES)] = Field(default=(), description="in no order")


class Sample(Result):
    """``samples.<camera>``: a result, of each camera at most ten a second: for whoever need not know every frame."""

    kind: ClassVar[str] = "samples"

    @classmethod
    def of(cls, result: Result) -> Sample:
        """The same, to be published as a sample."""
        return cls.model_construct(_fields_set=result.model_fields_set, **result.__dict__)


class Picture(Message):
    """Conductor to preview: a result and its picture. Blob: raw pixels or JPEG, as ``encoding`` says; none with
    ``slot``.
    """

    kind: ClassVar[str] = "picture"

    encoding: Literal["raw", "jpeg"]
    slot: Slot | None = None
    result: Result
    blur: Annotated[tuple[Box, ...], Field(max_length=4 * MAX_FACES)] = Field(
        default=(), description="what nobody may see; boxes may reach beyond the picture"
    )
    blur_all: bool = Field(
        default=False, description="not all of its faces are known, and somebody may be in it whom nobody may see"
    )


class Preview(Message):
    """``preview.<camera>``: a result and its picture. Blob: one JPEG."""

    kind: ClassVar[str] = "preview"

    analysed: bool = Field(description="as in the result")
    result: Result = Field(description="of this very picture")


class PublicFace(_Checked):
    """One face, and not whose."""

    track: Count = Field(description="id of this face while it is in view")
    box: Box = Field(description="x, y, width, height in float pixels, inside the picture")
    score: Unit = Field(description="how sure the detector is")
    expression: Expression = Field(description="how it looks")


class PublicResult(_OfFrame):
    """``public.<camera>``: what was seen in one frame without a word on who it was; on the endpoint ``news_public``."""

    kind: ClassVar[str] = "public"

    width: Side = Field(description="of the picture, pixels")
    height: Side = Field(description="of the picture, pixels")
    analysed: bool = Field(description="the detector ran on this very frame")
    latency_ms: Milliseconds = Field(description="from capture to publication, milliseconds")
    faces: Annotated[tuple[PublicFace, ...], Field(max_length=MAX_FACES)] = Field(default=(), description="in no order")


class Correction(Message):
    """``corrections.<camera>``: what was said of a track from frame ``from_seq`` on was somebody else."""

    kind: ClassVar[str] = "corrections"

    camera: Name = Field(description="the camera's name in the configuration")
    run: Count = Field(description="start of the capture, unix milliseconds")
    track: Count = Field(description="whose identity was said wrongly, or not yet")
    from_seq: Count = Field(description="the first frame that it is true of")
    was: Identity = Field(description="what was said")
    now: Identity = Field(description="what is true as far as is known")


class CameraState(Message):
    """``camera.<camera>``: whether pictures come."""

    kind: ClassVar[str] = "camera"

    camera: Name = Field(description="the camera's name in the configuration")
    state: Literal["online", "offline", "stalled", "ended"] = Field(
        description="stalled: connected, and no new picture comes; ended: a file is over"
    )
    since: float = Field(description="unix seconds")
    reason: Text | None = Field(default=None, description="why it is so, for people")
    source: Text = Field(default="", description="what is being read, without credentials")
    paused: bool = Field(default=False, description="nothing is shown or analysed, because somebody asked for that")


class Alert(Message):
    """``alerts.<camera>``: a step in the life of an episode."""

    kind: ClassVar[str] = "alerts"

    serial: Count = Field(
        default=0, description="lasting number of this step, one more each time: ask for what you missed (`events`)"
    )
    camera: Name = Field(description="the camera's name in the configuration")
    episode: Count = Field(description="the episode's number; never used twice")
    event: Literal["opened", "escalated", "acknowledged", "snoozed", "judged", "closed"] = Field(
        description="what has happened to the episode"
    )
    rule: Text = Field(description="the rule's name in the configuration")
    about: Literal["expression", "unseen", "offline"] = Field(
        default="expression", description="unseen: present, but no face to be seen; offline: the camera gives nothing"
    )
    person: Count | None = Field(default=None, description="whom it is about, by number in the store …")
    name: Text | None = Field(default=None, description="… whose name this is …")
    number: Count | None = Field(default=None, description="… or the number of an unknown person …")
    track: Count | None = Field(default=None, description="… or this track; none of them: the camera itself")
    label: Text | None = Field(default=None, description="the expression that weighs most")
    since: float = Field(description="when what the rule looks for began; unix seconds")
    text: Text = Field(description="for people; says what is seen and asks to check, never more")
    by: Annotated[str, Field(max_length=128)] | None = Field(default=None, description="who did it, if somebody did")
    until: float | None = Field(default=None, description="of `snoozed`: unix seconds")
    judgement: Literal["useful", "false alarm"] | None = Field(default=None, description="of `judged`")
    why: Text | None = Field(default=None, description="of `closed`")


class Stats(Message):
    """``stats.<stage>``: once a second from every process that works, every two seconds from one with nothing to do."""

    kind: ClassVar[str] = "stats"

    stage: Name = Field(description="row of the table of stages")
    in_s: Annotated[float, Field(ge=0)] = Field(description="taken in, per second")
    out_s: Annotated[float, Field(ge=0)] = Field(description="given out, per second")
    dropped: Count = Field(description="since the process started")
    p50_ms: Milliseconds = Field(description="work time, median of the last seconds; milliseconds")
    p95_ms: Milliseconds = Field(description="work time, 95th percentile; milliseconds")
    rss_mb: Annotated[float, Field(ge=0)] = Field(description="resident memory, MiB")
    cpu: Annotated[float, Field(ge=0)] = Field(description="cores used: 1.0 is one core fully")
    state: Annotated[str, Field(max_length=64)] = Field(description="loading, running, or a word of the stage's own")
    bad_messages: Count = Field(default=0, description="that came and could not be trusted, since the process started")
    detail: dict[Annotated[str, Field(max_length=128)], float | str] = Field(
        default_factory=dict, description="figures of the stage's own; keys may come and go"
    )


class Control(Message):
    """``control.<stage>``: a request. Repeated until answered, done once: ``request`` says which are the same."""

    kind: ClassVar[str] = "control"

    request: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] = Field(description="the sender's own, random")
    do: Name = Field(description="what is asked")
    args: dict[
        Annotated[str, Field(max_length=64)], str | int | float | bool | tuple[str | int | float, ...] | None
    ] = Field(default_factory=dict, description="of what is asked; `camera` where it is for one")


class Reply(Message):
    """``reply.<request>``: the answer to a control message."""

    kind: ClassVar[str] = "reply"

    request: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] = Field(description="which one is answered")
    ok: bool = Field(description="whether it was done")
    result: dict[Annotated[str, Field(max_length=64)], str | int | float | bool | None] = Field(
        default_factory=dict, description="what came of it"
    )
    error: Text | None = Field(default=None, description="why it was not done, for people")


PUBLIC: tuple[type[Message], ...] = (
    Result,
    Sample,
    PublicResult,
    Correction,
    CameraState,
    Alert,
    Preview,
    Stats,
    Control,
    Reply,
)
INTERNAL: tuple[type[Message], ...] = (
    Frame,
    EndOfSource,
    Ready,
    DetectionJob,
    IdentityJob,
    ExpressionJob,
    DetectionFinding,
    IdentityFinding,
    ExpressionFinding,
    Picture,
)
BY_KIND: dict[str, type[Message]] = {message.kind: message for message in (*PUBLIC, *INTERNAL)}

M = TypeVar("M", bound=Message)


_CRC = msgpack.packb("crc") + b"\xce"  # the map's last key, and that an unsigned number of four bytes follows


def pack(message: Message, blobs: Iterable[Any] = ()) -> bytes:
    """Return the message's msgpack map. Its last field, ``crc``, is the CRC-32 of the bytes before that number.

    Small ``blobs`` (byte parts of the same message) go into the checksum first, where their receiver gives them to
    ``unpack``, too.

    Raises:
        MessageError: the map would be larger than 64 KiB.
    """
    # The number's place is kept by one that takes four bytes.
    packed: bytes = msgpack.packb(message.model_dump(by_alias=True) | {"crc": 0xFFFF_FFFF}, use_bin_type=True)
    if len(packed) > MAX_MAP_BYTES:
        raise MessageError(f"{message.kind}: the map has {len(packed)} bytes, at most {MAX_MAP_BYTES} are sent")
    said = packed[:-4]
    return said + _checksum(said, blobs).to_bytes(4, "big")


def unpack(kind: type[M], data: bytes | memoryview, blobs: Iterable[Any] = ()) -> M:
    """Return the checked message in a msgpack map. A map without ``crc`` is taken: other programs need not send one.

    Raises:
        MessageError: too long, damaged on its way, not msgpack, not a map, or a field that is missing, of the wrong
            type or out of bounds.
    """
    if len(data) > MAX_MAP_BYTES:
        raise MessageError(f"{kind.kind}: a map of {len(data)} bytes came, at most {MAX_MAP_BYTES} are read")
    if data[-9:-4] == _CRC and _checksum(data[:-4], blobs) != int.from_bytes(data[-4:], "big"):
        raise MessageError(f"{kind.kind}: damaged on its way (its checksum does not fit)")
    try:
        fields = msgpack.unpackb(data, raw=False, use_list=False, strict_map_key=True, ext_hook=_no_extension)
    except MessageError:
        raise
    # msgpack raises its own classes for some damage and plain ones for other; all of them mean the same here.
    except (ValueError, TypeError, msgpack.exceptions.UnpackException, RecursionError, MemoryError) as error:
        raise MessageError(f"{kind.kind}: not a msgpack map ({type(error).__name__}: {error})") from error
    if not isinstance(fields, dict):
        raise MessageError(f"{kind.kind}: a map was expected, {type(fields).__name__} came")
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(step) for step in first["loc"])
        raise MessageError(f"{kind.kind}: {where}: {first['msg']}") from error


def _checksum(said: bytes | memoryview, blobs: Iterable[Any]) -> int:
    crc = 0
    for blob in blobs:
        if memoryview(blob).nbytes < CHECKED_BELOW:
            crc = zlib.crc32(blob, crc)
    return zlib.crc32(said, crc)


def kind_of(topic: bytes) -> type[Message]:
    """Return the class of the message whose first part is ``topic``: a kind, or ``kind.<something>``.

    Raises:
        MessageError: no such kind.
    """
    try:
        text = topic.decode("ascii")
    except UnicodeDecodeError as error:
        raise MessageError("a topic that is not ASCII came") from error
    found = BY_KIND.get(text) or BY_KIND.get(text.split(".", 1)[0])
    if found is None:
        raise MessageError(f"unknown kind of message {text[:64]!r}")
    return found


def array_from(part: Any, shape: Sequence[int], dtype: DTypeLike, what: str) -> NDArray[Any]:
    """Return a read-only view of a byte part as an array of exactly this shape and type.

    Raises:
        MessageError: the length does not fit, or a float is not finite.
    """
    expected = math.prod(shape) * np.dtype(dtype).itemsize
    size = memoryview(part).nbytes
    if size != expected:
        raise MessageError(f"{what}: {expected} bytes were expected for shape {tuple(shape)}, {size} came")
    array = np.frombuffer(part, dtype=dtype).reshape(shape)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise MessageError(f"{what}: a number is not finite")
    return array


def _no_extension(code: int, data: bytes) -> Any:
    raise MessageError(f"a msgpack extension (code {code}, {len(data)} bytes) came; none is used here")
