"""A recording: read back as it was written, up to where it was cut; damage and newer files are refused in words."""

from __future__ import annotations

import os
import stat
import struct
import zlib
from pathlib import Path

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.encryption import Cipher, KeyProblem, new_key
from common.recording import MAGIC, Recording, RecordingError, Writer

BLOCKS = [[["begin", {"a": 1}], ["tick", 1.5]], [["frame", 2.0, b"\0\xff"]], [["tick", 2.5]]]


def no_key() -> Cipher:
    raise KeyProblem("there is no key here")


def written(path: Path, cipher: Cipher | None = None, *, whole: bool = True) -> bytes:
    path.unlink(missing_ok=True)
    writer = Writer(path, cipher)
    for block in BLOCKS:
        writer.add(b"".join(msgpack.packb(entry) for entry in block))
    writer.close(whole=whole)
    return path.read_bytes()


def read(path: Path, cipher: Cipher | None = None) -> tuple[list[object], bool]:
    with Recording(path, no_key if cipher is None else lambda: cipher) as recording:
        entries = list(recording.entries())
        return entries, recording.whole


ALL = [entry for block in BLOCKS for entry in block]


def test_what_was_written_is_read_and_is_nobody_elses_business(tmp_path: Path) -> None:
    path = tmp_path / "new" / "one"
    written(path)
    assert read(path) == (ALL, True)
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(RecordingError, match="there already"):
        Writer(path)


@given(share=st.floats(0, 1))
def test_cut_anywhere_it_reads_up_to_there(tmp_path_factory: pytest.TempPathFactory, share: float) -> None:
    path = tmp_path_factory.getbasetemp() / "cut"
    data = written(path)
    path.write_bytes(data[: int(share * (len(data) - 1))])
    try:
        entries, whole = read(path)
    except RecordingError as error:
        assert "cut off" in str(error) or "not a recording" in str(error)
        assert share < 0.5
    else:
        assert not whole and entries == ALL[: len(entries)]


@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_changed_bit_is_damage_and_never_another_recording(
    tmp_path_factory: pytest.TempPathFactory, place: float, bit: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged"
    data = bytearray(written(path))
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(data)
    with pytest.raises(RecordingError, match=r"damaged|not a recording"):
        read(path)


def test_a_newer_file_is_refused_by_its_number(tmp_path: Path) -> None:
    content = msgpack.packb({"version": 2, "who": "knows"})
    start = struct.pack("<II", len(content), zlib.crc32(content))
    path = tmp_path / "newer"
    path.write_bytes(MAGIC + start + struct.pack("<I", zlib.crc32(start)) + content)
    with pytest.raises(RecordingError, match=r"newer Mien .format 2"):
        read(path)


def test_sealed_it_opens_with_its_key_alone_and_blocks_cannot_change_places(tmp_path: Path) -> None:
    path, cipher = tmp_path / "sealed", Cipher(new_key())
    data = written(path, cipher)
    assert b"begin" not in data
    assert read(path, cipher) == (ALL, True)
    with pytest.raises(RecordingError, match="encrypted: there is no key"):
        read(path)
    with pytest.raises(RecordingError, match="block 1 does not open"):
        read(path, Cipher(new_key()))
    starts, at = [], len(MAGIC)
    while at < len(data):
        starts.append(at)
        at += 12 + struct.unpack_from("<I", data, at)[0]
    first, second, third, fourth = (data[a:b] for a, b in zip(starts[1:], [*starts[2:], len(data)], strict=True))
    path.write_bytes(data[: starts[1]] + second + first + third + fourth)
    with pytest.raises(RecordingError, match="block 1 does not open"):
        read(path, cipher)
