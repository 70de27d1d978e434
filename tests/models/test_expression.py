"""The shipped expression network: its contract, and that it sees what nobody could mistake."""

import itertools
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from bench import expression as bench
from common import media
from common.expressions import EXPRESSIONS
from common.settings import Config
from models import crop, expression, runtime
from models.detector import FaceDetector
from models.expression import EIGHT_BITS, LABELS, LARGEST_BATCH, WEIGHTS, ExpressionClassifier, Precision, _Rows
from models.runtime import ModelError


@pytest.fixture(scope="module", params=["auto", "f32", "int8"])
def classifier(request: pytest.FixtureRequest) -> ExpressionClassifier:
    precision: Precision = request.param
    return ExpressionClassifier(precision=precision)


def faces_of(name: str, size: int) -> NDArray[np.uint8]:
    """The crops of every face in a sample picture, best first."""
    picture = np.asarray(cv2.imread(str(media.sample(name)), cv2.IMREAD_COLOR), dtype=np.uint8)
    found = FaceDetector().detect(picture)
    squares = [crop.face_square(box, points) for box, points in zip(found.boxes, found.landmarks, strict=True)]
    return np.stack([crop.cut(picture, square, size) for square in squares])


@pytest.mark.parametrize("file", [WEIGHTS, EIGHT_BITS], ids=lambda file: file.name)
def test_the_file_keeps_the_contract(file: Path) -> None:
    model = runtime.read(file)
    assert [port.any_name for port in model.inputs] == ["face"]
    assert [port.any_name for port in model.outputs] == ["probabilities"]
    shape = model.inputs[0].get_partial_shape()
    assert shape[0].is_dynamic
    assert shape[1].get_length() == 1
    assert shape[2].get_length() == shape[3].get_length() == crop.SIZE
    assert sum(part.stat().st_size for part in file.parent.glob(f"{file.stem}.*")) <= 8_000_000


def test_labels_are_in_the_order_of_the_contract() -> None:
    assert LABELS == EXPRESSIONS == ("angry", "disgusted", "fearful", "happy", "sad", "surprised", "neutral")


@pytest.mark.parametrize("count", [0, 1, 7, LARGEST_BATCH, LARGEST_BATCH + 3])
def test_every_face_gets_its_own_row_whatever_the_batch(classifier: ExpressionClassifier, count: int) -> None:
    faces = np.random.default_rng(1).integers(0, 255, (count, classifier.size, classifier.size), dtype=np.uint8)
    together = classifier.classify(faces)
    assert together.shape == (count, 7)
    assert together.dtype == np.float32
    assert together.sum(axis=1) == pytest.approx(1, abs=1e-5)
    for face, row in zip(faces, together, strict=True):
        assert classifier.classify(face[None])[0] == pytest.approx(row, abs=1e-4)


def test_answers_are_not_overwritten_by_the_next_call(classifier: ExpressionClassifier) -> None:
    black = np.zeros((1, classifier.size, classifier.size), np.uint8)
    noise = np.random.default_rng(2).integers(0, 255, black.shape, np.uint8)
    first = classifier.classify(black)
    kept = first.copy()
    classifier.classify(noise)
    assert (first == kept).all()


def test_exposure_hardly_changes_the_answer(classifier: ExpressionClassifier) -> None:
    face = faces_of("portrait_happy.jpg", classifier.size)[:1]
    darker = np.asarray(np.rint(face * 0.6), dtype=np.uint8)
    assert classifier.classify(darker)[0] == pytest.approx(classifier.classify(face)[0], abs=0.1)


@pytest.mark.parametrize("name", ["portrait_happy.jpg", "portrait_surprised.jpg"])
def test_plain_portraits_are_seen_for_what_they_show(classifier: ExpressionClassifier, name: str) -> None:
    row = classifier.classify(faces_of(name, classifier.size)[:1])[0]
    assert LABELS[int(row.argmax())] == name.removeprefix("portrait_").removesuffix(".jpg")


def test_nobody_of_the_five_looks_negative(classifier: ExpressionClassifier) -> None:
    labels = [LABELS[k] for k in classifier.classify(faces_of("five_people.jpg", classifier.size)).argmax(axis=1)]
    assert len(labels) == 5
    assert labels.count("happy") >= 4
    assert not {"angry", "disgusted", "fearful", "sad"} & set(labels)


@pytest.mark.parametrize("looks", bench.LOOKS)
def test_the_clip_is_followed_from_tears_to_laughter(classifier: ExpressionClassifier, looks: str) -> None:
    side = Config().detection.input_long_side
    seen = bench.watch(media.sample("woman.mp4"), FaceDetector(input_long_side=side), 1, looks)
    times, probabilities = bench.classify(seen, classifier, crop.SIDE, upright=True)
    leading = {
        part: LABELS[int(probabilities[(times >= begin) & (times < end)].mean(axis=0).argmax())]
        for part, (begin, end) in bench.PARTS_S.items()
    }
    assert leading["cries"] in {"sad", "fearful"}
    assert leading["looks up"] in {"surprised", "neutral"}
    assert leading["laughs"] == "happy"
    labels = bench.shown(times, probabilities, looks)
    assert sum(before != after for before, after in itertools.pairwise(labels)) <= 6
    assert max(bench.delays(times, probabilities, labels)) <= 0.5


def test_a_worker_does_not_load_torch() -> None:
    code = "import sys, models.expression, models.crop; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=WEIGHTS.parents[2]).returncode == 0


def test_wrong_faces_are_refused_with_what_was_expected(classifier: ExpressionClassifier) -> None:
    right = crop.SIZE
    shapes = ((2, right + 1, right + 1), (right, right), (1, 1, right, right))
    for wrong in (*(np.zeros(shape, np.uint8) for shape in shapes), np.zeros((1, right, right), np.float32)):
        with pytest.raises(ValueError, match=rf"expected grey faces \(N, {right}, {right}\) uint8, got"):
            classifier.classify(wrong)  # type: ignore[arg-type]


def test_the_processor_decides_about_eight_bits_and_without_them_it_runs_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for flags, chosen in (("avx2 avx512_vnni", "int8"), ("avx2", "f32")):
        monkeypatch.setattr(runtime, "_processor_words", lambda flags=flags: frozenset(flags.split()))
        assert ExpressionClassifier().precision == chosen
    damaged = tmp_path / EIGHT_BITS.name
    damaged.write_bytes(EIGHT_BITS.read_bytes()[:1000])
    monkeypatch.setattr(expression, "EIGHT_BITS", damaged)
    with pytest.raises(ModelError, match=r"expression-int8\.xml cannot be read"):
        ExpressionClassifier(precision="int8")
    monkeypatch.setattr(runtime, "_processor_words", lambda: frozenset({"avx512_vnni"}))
    assert ExpressionClassifier().precision == "f32"
    assert "runs without eight bits" in caplog.text


def test_eight_bits_are_for_the_network_that_ships() -> None:
    with pytest.raises(ModelError, match="says itself how it computes"):
        ExpressionClassifier(WEIGHTS, precision="int8")


def test_a_missing_a_damaged_and_a_foreign_file_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.onnx"):
        ExpressionClassifier(tmp_path / "nowhere.onnx")
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(WEIGHTS.read_bytes()[:1000])
    with pytest.raises(ModelError, match=r"damaged\.onnx"):
        ExpressionClassifier(damaged)
    from models import files

    with pytest.raises(ModelError, match="is not an expression network"):
        ExpressionClassifier(files.centerface())


@pytest.mark.parametrize(
    ("faces", "changes"),
    [([5] * 50, 1), ([7, 8] * 50, 2), ([8] * 10 + [1] * 50, 2), ([1, 8] * 20, 2), ([1, 2, 3, 4, 5, 6, 7, 8], 8)],
)
def test_the_network_seldom_gets_another_number_of_rows(faces: list[int], changes: int) -> None:
    rows = _Rows()
    run = [rows.for_faces(count) for count in faces]
    assert all(wide >= count for wide, count in zip(run, faces, strict=True))
    assert sum(a != b for a, b in itertools.pairwise([0, *run])) == changes
    assert run[-1] <= max(faces[-20:])
