"""A changed bit in weights is noticed before the network answers, whoever brought the file."""

from __future__ import annotations

import base64
import hashlib
import logging
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

from models import expression, runtime, sums
from models.expression import EIGHT_BITS, WEIGHTS, ExpressionClassifier
from models.runtime import ModelError


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return shutil.copytree(WEIGHTS.parent, tmp_path / "weights")


def flip_a_bit(path: Path) -> None:
    """In the middle, where the weights are: neither ONNX nor OpenVINO notice."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data)


def test_what_ships_is_what_is_listed() -> None:
    listed = sums._lines(WEIGHTS.parent / sums.SUMS)
    assert set(listed) == {WEIGHTS.name, EIGHT_BITS.name, EIGHT_BITS.with_suffix(".bin").name}
    assert not any(sums.damaged(WEIGHTS.with_name(name)) for name in listed)


def test_a_changed_bit_in_the_expression_network_is_refused(weights: Path) -> None:
    path = weights / WEIGHTS.name
    ExpressionClassifier(path, precision="f32")
    flip_a_bit(path)
    with pytest.raises(ModelError, match=rf"{path} is damaged .*SHA256SUMS.*fetch it again"):
        ExpressionClassifier(path, precision="f32")


def test_a_changed_bit_in_the_network_of_eight_bits_is_said_and_the_other_serves(
    weights: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    flip_a_bit(weights / EIGHT_BITS.with_suffix(".bin").name)
    monkeypatch.setattr(expression, "EIGHT_BITS", weights / EIGHT_BITS.name)
    monkeypatch.setattr(runtime, "_processor_words", lambda: frozenset({"avx512_vnni"}))
    with caplog.at_level(logging.WARNING):
        classifier = ExpressionClassifier()
    assert "expression-int8.bin is damaged" in caplog.text
    faces = np.random.default_rng(0).integers(0, 255, (1, classifier.size, classifier.size), np.uint8)
    reference = ExpressionClassifier(precision="f32").classify(faces)
    assert classifier.classify(faces) == pytest.approx(reference, abs=0.02)


def test_of_a_package_pip_s_own_record_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, record = tmp_path / "carrier" / "models" / "face.dat", tmp_path / "carrier-1.0.dist-info"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"weights" * 100)
    digest = base64.urlsafe_b64encode(hashlib.sha256(file.read_bytes()).digest()).rstrip(b"=").decode()
    record.mkdir()
    (record / "METADATA").write_text("Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\n")
    (record / "RECORD").write_text(f"carrier/models/face.dat,sha256={digest},700\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    assert not sums.damaged(file)
    flip_a_bit(file)
    assert sums.damaged(file)


def test_files_that_nobody_has_listed_are_taken(tmp_path: Path) -> None:
    (tmp_path / "own.onnx").write_bytes(b"x")
    assert not sums.damaged(tmp_path / "own.onnx")
    sums.write(tmp_path, ["own.onnx"])
    (tmp_path / "own.onnx").write_bytes(b"y")
    assert sums.damaged(tmp_path / "own.onnx")
    sums.write(tmp_path, ["own.onnx"])  # made anew
    assert not sums.damaged(tmp_path / "own.onnx")
    (tmp_path / "own.onnx").unlink()
    sums.write(tmp_path, [])
    assert (tmp_path / sums.SUMS).read_text() == ""


def test_a_damaged_list_refuses(tmp_path: Path) -> None:
    (tmp_path / "own.onnx").write_bytes(b"x")
    (tmp_path / sums.SUMS).write_text("zz  own.onnx\n")
    assert sums.damaged(tmp_path / "own.onnx")
