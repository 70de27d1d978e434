"""What a face shows: grey crops in, calibrated probabilities of the seven expressions out."""

import logging
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from common.expressions import EXPRESSIONS
from models import runtime
from models.runtime import ModelError, Network

log = logging.getLogger(__name__)

Precision = Literal["auto", "f32", "bf16", "int8"]

LABELS: Final = EXPRESSIONS
WEIGHTS: Final = Path(__file__).parent / "weights" / "expression.onnx"
START: Final = WEIGHTS.with_name("expression-start.pt")  # the same network for torch: to train on, or for a GPU
LARGEST_BATCH: Final = 16
WASTED_ROWS: Final = 1  # empty ones computed before the network is run with fewer


def eight_bits(onnx: Path) -> Path:
    """Where the network of an ONNX file is kept in eight bits; its weights lie beside it, as ``.bin``."""
    return onnx.with_name(f"{onnx.stem}-int8.xml")


EIGHT_BITS: Final = eight_bits(WEIGHTS)


class _Rows:
    """How many rows the network is run with: another number costs as much as another face, so it is kept for a moment.

    What the rows say does not depend on how many there are.
    """

    def __init__(self) -> None:
        self._rows = 0
        self._most = 0  # faces, since the last change
        self._wasted = 0

    def for_faces(self, faces: int) -> int:
        """Return with how many rows to classify so many faces."""
        self._most = max(self._most, faces)
        self._wasted += max(0, self._rows - faces)
        if faces > self._rows:
            self._rows, self._most, self._wasted = faces, faces, 0
        elif self._wasted > WASTED_ROWS:
            # Fewer will do, if fewer did all the time.
            self._rows, self._most, self._wasted = max(self._most, faces), 0, 0
        return self._rows


class ExpressionClassifier:
    """Classifies faces with the network of `models.train`, or another ONNX file of the same contract.

    `precision` says, once it is made, what it computes in: "f32", "bf16" or "int8".

    The contract: input ``face`` float32 (N, 1, S, S), grey 0..1; output ``probabilities`` (N, 7) in the order of
    `LABELS`. `path` None is the file that ships; in eight bits where those are the quickest, or where `precision` says
    so. Raises ModelError when the file is missing, damaged or keeps another contract. Not for use by two threads at
    once.
    """

    def __init__(
        self,
        path: Path | None = None,
        *,
        threads: int = 1,
        precision: Precision = "auto",
        device: runtime.Device = "CPU",
        cache_dir: Path | None = None,
    ) -> None:
        self._options: dict[str, Any] = {"threads": threads, "device": device, "cache_dir": cache_dir}
        self.path, self.precision = path or WEIGHTS, str(precision)
        self._network = self._in_eight_bits(path, precision) or self._as_it_is(precision)
        self._rows = _Rows()
        shape, outputs = self._network.input_shape, self._network.output_names
        if len(shape) != 4 or shape[1] != 1 or shape[2] != shape[3] or shape[2] < 1 or outputs != ["probabilities"]:
            raise ModelError(
                f"{self.path} is not an expression network: expected input (N, 1, S, S) and output 'probabilities', "
                f"got {shape} and {outputs}"
            )
        self.size: int = shape[2]

    def _as_it_is(self, precision: Precision) -> Network:
        assert precision != "int8"  # that is a file of its own
        network = runtime.compile_network(
            lambda: runtime.read(self.path),
            key="expression",
            sources=(self.path,),
            precision=precision,
            bf16_allowed=True,  # accuracy stays the same to a tenth of a point: docs/models.md
            **self._options,
        )
        self.precision = network.precision
        return network

    def _in_eight_bits(self, path: Path | None, precision: Precision) -> Network | None:
        """The network that ships, in eight bits; None where it had better compute otherwise."""
        if precision == "int8" and path is not None:
            raise ModelError(f"precision int8 is for the network that ships; {path} says itself how it computes")
        wanted = precision == "int8" or (precision == "auto" and runtime.int8_is_quicker())
        if path is not None or not wanted:
            return None
        try:
            network = runtime.compile_network(
                lambda: runtime.read(EIGHT_BITS),
                key="expression in eight bits",
                sources=(EIGHT_BITS, EIGHT_BITS.with_suffix(".bin")),
                precision="f32",  # of what is not in eight bits
                **self._options,
            )
        except ModelError as error:
            if precision == "int8":
                raise
            log.warning("the expression network runs without eight bits: %s", error)
            return None
        self.path, self.precision = EIGHT_BITS, "int8"
        return network

    def classify(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities (N, 7), rows summing to 1, of grey crops (N, S, S) uint8 as `models.crop.cut` makes them.

        N may be 0. Raises ValueError for another shape or type.
        """
        if faces.ndim != 3 or faces.shape[1:] != (self.size, self.size) or faces.dtype != np.uint8:
            raise ValueError(
                f"expected grey faces (N, {self.size}, {self.size}) uint8, got {faces.shape} {faces.dtype}; "
                f"cut them with models.crop.cut(…, size={self.size})"
            )
        probabilities = np.empty((len(faces), len(LABELS)), dtype=np.float32)
        for first in range(0, len(faces), LARGEST_BATCH):
            part = faces[first : first + LARGEST_BATCH, None]
            rows = np.zeros((self._rows.for_faces(len(part)), 1, self.size, self.size), np.float32)
            np.multiply(part, np.float32(1 / 255), out=rows[: len(part)])
            probabilities[first : first + len(part)] = self._network(rows)[0][: len(part)]
        return probabilities
