"""Messages are made valid or not made: what comes off the wire is checked as a whole, whatever it is."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import schemas
from common.expressions import EXPRESSIONS
from common.messages import (
    BY_KIND,
    INTERNAL,
    MAX_FACES,
    MAX_MAP_BYTES,
    PUBLIC,
    Control,
    DetectionFinding,
    Frame,
    Message,
    MessageError,
    Probabilities,
    Ready,
    Result,
    array_from,
    kind_of,
    pack,
    unpack,
)

FRAME: dict[str, Any] = {
    "from": "capture.h.1", "camera": "cam0", "run": 1, "seq": 2, "captured_at": 1.5, "width": 640, "height": 360,
    "age_ms": 0.4, "clock": {"host": "h", "monotonic_ns": 5}, "media_time_s": 0.1,
}  # fmt: skip
names = st.from_regex(r"\A[A-Za-z0-9_-]{1,64}\Z")
finite = st.floats(allow_nan=False, allow_infinity=False)


@given(
    camera=names, seq=st.integers(0, 2**53), at=finite, width=st.integers(1, 16384), height=st.integers(1, 16384),
    age=st.floats(0, 1e9), name=st.none() | st.text(max_size=100),
)  # fmt: skip
def test_a_frame_comes_back_as_it_was_sent(
    camera: str, seq: int, at: float, width: int, height: int, age: float, name: str | None
) -> None:
    changes = {"camera": camera, "seq": seq, "captured_at": at, "width": width, "height": height, "age_ms": age}
    frame = Frame.model_validate({**FRAME, **changes, "name": name})
    assert unpack(Frame, pack(frame)) == frame


@given(st.binary(max_size=300))
def test_random_bytes_never_do_more_than_be_refused(data: bytes) -> None:
    for kind in (Frame, Result, Ready, Control, DetectionFinding):
        with pytest.raises(MessageError):
            unpack(kind, data)


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(field=st.sampled_from(sorted(FRAME)), value=json_like)
def test_a_frame_with_one_field_replaced_is_valid_or_refused(field: str, value: Any) -> None:
    try:
        frame = unpack(Frame, msgpack.packb({**FRAME, field: value}, use_bin_type=True))
    except MessageError as error:
        assert str(error).startswith("frame: ")
        return
    assert 1 <= frame.width <= 16384 and frame.seq >= 0 and math.isfinite(frame.age_ms)
    assert frame.camera.replace("_", "").replace("-", "").isalnum()


@given(cut=st.integers(0, 500))
def test_a_message_cut_short_is_refused(cut: int) -> None:
    packed = msgpack.packb(schemas.EXAMPLES[Result][1])
    with pytest.raises(MessageError):
        unpack(Result, packed[: min(cut, len(packed) - 1)])


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x81\xa1a" * 1000 + b"\xc0", "nested 1000 deep"),
        (b"\x91" * 1000 + b"\xc0", "lists 1000 deep"),
        (b"\xdf\xff\xff\xff\xff", "a map that claims four thousand million entries"),
        (b"\xc6\xff\xff\xff\xff", "bytes that claim 4 GB"),
        (b"\xdb\xff\xff\xff\xffabc", "text that claims 4 GB"),
        (b"\xdd\xff\xff\xff\xff", "a list that claims four thousand million entries"),
        (b"\xd4\x05x", "an extension type"),
        (b"\xd6\xff\x00\x00\x00\x00", "a timestamp"),
        (b"\x81\x01\x02", "a key that is a number"),
        (b"\xc1", "a byte that msgpack does not use"),
        (b"\xa1\xff", "text that is not UTF-8"),
        (b"\x93\x01\x02\x03", "a list"),
        (b"\x80\x80", "two maps"),
        (b"", "nothing"),
        (b"\x80" + b"\xc0" * MAX_MAP_BYTES, "more than 64 KiB"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damaged_or_hostile_maps_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(MessageError):
        unpack(Control, data)
    with pytest.raises(MessageError):
        unpack(Control, memoryview(data))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("v", 2), ("width", 0), ("width", 16385), ("width", "640"), ("width", 640.0), ("width", True), ("seq", -1),
        ("camera", ""), ("camera", "a b"), ("camera", "../x"), ("camera", "a" * 65), ("age_ms", math.nan),
        ("age_ms", math.inf), ("age_ms", -1.0), ("encoding", "gif"), ("clock", {}), ("clock", None), ("from", "a b"),
        ("captured_at", math.nan), ("still", 1), ("name", "x" * 1025),
    ],
)  # fmt: skip
def test_a_field_out_of_bounds_or_of_another_type_is_refused_and_named(field: str, value: Any) -> None:
    with pytest.raises(MessageError, match=f"^frame: {field}"):
        unpack(Frame, msgpack.packb({**FRAME, field: value}))


@pytest.mark.parametrize("field", list(FRAME))
def test_a_missing_field_is_named(field: str) -> None:
    with pytest.raises(MessageError, match=f"^frame: {field}: Field required"):
        unpack(Frame, msgpack.packb({key: value for key, value in FRAME.items() if key != field}))


def test_fields_of_a_newer_sender_are_ignored() -> None:
    frame = unpack(Frame, msgpack.packb({**FRAME, "tomorrow": [1, {"x": 2}]}))
    assert "tomorrow" not in frame.model_dump()


@pytest.mark.parametrize("kind", schemas.EXAMPLES, ids=lambda kind: kind.kind)
def test_whichever_bit_of_a_map_changes_on_the_way_nothing_else_is_understood(kind: type[Message]) -> None:
    message = kind.model_validate_json(json.dumps(schemas.EXAMPLES[kind][1]))
    packed = pack(message)
    refused = 0
    for bit in range(len(packed) * 8):
        changed = bytearray(packed)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            assert unpack(kind, bytes(changed)) == message
        except MessageError:
            refused += 1
    assert refused >= len(packed) * 8 - 40  # what marks the checksum itself is five bytes


def test_small_parts_are_under_the_checksum_and_pictures_are_not() -> None:
    finding = DetectionFinding.model_validate({"from": "detection.h.1", "job": 3, "work_ms": 5.0, "count": 2})
    boxes, picture = np.zeros((2, 4), np.float32), np.zeros((256, 256), np.uint8)
    packed = pack(finding, [boxes, picture])
    assert unpack(DetectionFinding, packed, [boxes.tobytes(), picture.tobytes()]) == finding
    assert unpack(DetectionFinding, packed, [boxes.tobytes(), (picture + 1).tobytes()]) == finding
    with pytest.raises(MessageError, match="damaged on its way"):
        unpack(DetectionFinding, packed, [(boxes + 1e-9).tobytes(), picture.tobytes()])


def test_a_map_of_another_program_needs_no_checksum() -> None:
    fields = {**FRAME, "at": 2.5}
    frame = unpack(Frame, msgpack.packb(fields))
    assert unpack(Frame, msgpack.packb({**fields, "crc": 5})) == frame == unpack(Frame, memoryview(pack(frame)))


def test_a_map_that_would_be_too_long_is_not_sent() -> None:
    with pytest.raises(MessageError, match="at most 65536 are sent"):
        pack(Control(sender="a.b.1", request="0" * 32, do="x", args=dict.fromkeys(map(str, range(2000)), "y" * 60)))


def test_a_result_full_of_faces_fits() -> None:
    example = json.loads(json.dumps(schemas.EXAMPLES[Result][1]))
    face = example["faces"][0]
    face["identity"]["name"] = "Ä" * 60
    long_numbers = dict.fromkeys(EXPRESSIONS, 1 / 7)
    face["expression"] |= {"probabilities": long_numbers, "smoothed": long_numbers}
    result = Result.model_validate_json(json.dumps(example | {"faces": [face] * MAX_FACES}))
    assert len(unpack(Result, pack(result)).faces) == MAX_FACES
    with pytest.raises(MessageError):
        unpack(Result, msgpack.packb(example | {"faces": [example["faces"][1]] * (MAX_FACES + 1)}))


def test_the_probabilities_are_the_seven_expressions() -> None:
    assert tuple(Probabilities.model_fields) == tuple(EXPRESSIONS)


def test_topics_name_their_kind() -> None:
    assert kind_of(b"results.cam0") is Result
    assert kind_of(b"found.detection") is DetectionFinding
    assert kind_of(b"frame") is Frame
    assert len(BY_KIND) == len(PUBLIC) + len(INTERNAL)
    for topic in (b"", b".", b"nonsense.x", b"\xff\xfe", b"x" * 100_000):
        with pytest.raises(MessageError):
            kind_of(topic)


# --- byte parts ---


def test_a_byte_part_is_looked_at_in_place_and_cannot_be_changed() -> None:
    array = array_from(memoryview(bytes(range(24))), (2, 3, 4), np.uint8, "crop")
    assert array.shape == (2, 3, 4) and array[1, 2, 3] == 23
    assert not array.flags.writeable


@given(data=st.binary(max_size=64), rows=st.integers(0, 8))
def test_a_byte_part_of_another_length_is_refused(data: bytes, rows: int) -> None:
    try:
        array = array_from(data, (rows, 4), np.uint8, "boxes")
    except MessageError as error:
        assert len(data) != 4 * rows and f"{len(data)} came" in str(error)
    else:
        assert array.size == len(data)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(number: float) -> None:
    with pytest.raises(MessageError, match="not finite"):
        array_from(struct.pack("<2f", 1.0, number), (2,), np.float32, "scores")


def test_a_shape_that_overflows_is_refused() -> None:
    with pytest.raises(MessageError):
        array_from(b"", (2**31, 2**31, 4), np.float32, "boxes")


def test_every_message_class_describes_itself() -> None:
    for kind in (*PUBLIC, *INTERNAL):
        assert kind.__doc__ and kind.kind
        assert issubclass(kind, Message)
