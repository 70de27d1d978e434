"""From aligned chips to embeddings: 128 numbers a face, close together for the same person.

Embeddings keep dlib's own scale: they are not of unit length (about 1.2 to 1.5), and two of them closer than 0.6
(Euclidean) count as the same person by dlib's and face_recognition's convention.
"""

import importlib.util
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from models import dlib_weights, files, runtime
from models.dlib_weights import CHIP_SIZE, EMBEDDING_SIZE
from models.runtime import ModelError, Precision

MAX_BATCH = 16  # chips in one inference; more are done in turns, so that memory stays bounded


class Embedder(Protocol):
    """What both engines offer."""

    def embed(self, chips: NDArray[np.uint8], mirrored: bool = True) -> NDArray[np.float32]:
        """(N, 150, 150, 3) uint8 RGB chips to (N, 128) float32 embeddings."""
        ...


def _checked(chips: NDArray[np.uint8]) -> NDArray[np.uint8]:
    if chips.dtype != np.uint8 or chips.ndim != 4 or chips.shape[1:] != (CHIP_SIZE, CHIP_SIZE, 3):
        raise ValueError(
            f"chips must be uint8 of shape (N, {CHIP_SIZE}, {CHIP_SIZE}, 3), got {chips.dtype} of shape {chips.shape}"
        )
    return chips


class FaceEmbedder:
    """The face recognition network of dlib, rebuilt from its weight file and run by OpenVINO.

    f32 by default: thresholds and stored embeddings then hold from one machine to the next (bfloat16 moves embeddings
    by about 3e-3). Raises ModelError when the file is missing or damaged. Not for use by two threads at once.
    """

    def __init__(
        self,
        model: Path | None = None,
        *,
        threads: int = 1,
        precision: Precision = "f32",
        device: runtime.Device = "CPU",
        cache_dir: Path | None = None,
    ) -> None:
        path = files.face_recognition() if model is None else model
        self._network = runtime.compile_network(
            lambda: dlib_weights.build_graph(dlib_weights.read_weights(path), batch=-1),
            key="face_recognition v1",
            sources=[path],
            threads=threads,
            precision=precision,
            device=device,
            cache_dir=cache_dir,
        )
        self.precision = self._network.precision

    def embed(self, chips: NDArray[np.uint8], mirrored: bool = True) -> NDArray[np.float32]:
        """The embeddings of `chips`, (N, 150, 150, 3) uint8 RGB, as (N, 128) float32 in dlib's scale.

        With `mirrored`, the mean of the embeddings of the chip and of its mirror image: twice the work, less sensitive
        to pose and light. Without, dlib's own embedding. Raises ValueError for another shape or type.
        """
        chips = _checked(chips)
        if mirrored:
            both = np.concatenate([chips, chips[:, :, ::-1]])
            embeddings = self._run(both)
            return (embeddings[: len(chips)] + embeddings[len(chips) :]) / np.float32(2)
        return self._run(chips)

    def _run(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        result = np.empty((len(chips), EMBEDDING_SIZE), np.float32)
        for start in range(0, len(chips), MAX_BATCH):
            batch = np.ascontiguousarray(chips[start : start + MAX_BATCH])
            result[start : start + len(batch)] = self._network(batch)[0]
        return result


class ReferenceEmbedder:
    """The same embeddings from the package `face_recognition` (dlib itself): ten times slower, the yardstick.

    Raises ModelError when the package or what it needs is not installed.
    """

    precision = "f32"

    def __init__(self) -> None:
        if importlib.util.find_spec("face_recognition") is None:
            raise ModelError(
                "identity.engine is face_recognition, but that package is not installed: "
                "pip install --no-deps face_recognition"
            )
        if importlib.util.find_spec("pkg_resources") is None:
            raise ModelError("the package face_recognition needs pkg_resources: pip install 'setuptools<81'")
        files.face_recognition()  # face_recognition itself ends the whole process when its models are missing
        try:
            from face_recognition import api
        except ImportError as error:
            raise ModelError(f"the package face_recognition cannot be imported: {error}") from error
        self._encoder: Any = api.face_encoder

    def embed(self, chips: NDArray[np.uint8], mirrored: bool = True) -> NDArray[np.float32]:
        """As `FaceEmbedder.embed`."""
        chips = _checked(chips)
        embeddings = self._run(chips)
        if mirrored:
            embeddings = (embeddings + self._run(chips[:, :, ::-1])) / np.float32(2)
        return embeddings

    def _run(self, chips: NDArray[np.uint8]) -> NDArray[np.float32]:
        result = np.empty((len(chips), EMBEDDING_SIZE), np.float32)
        for index, chip in enumerate(chips):
            result[index] = np.array(self._encoder.compute_face_descriptor(np.ascontiguousarray(chip)))
        return result
