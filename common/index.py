"""An index over very many references: finds the few that may be nearest, for the gallery to look at closely.

The library is faiss (``pip install 'mien[index]'``), an inverted file of 8-bit vectors of their 64 main directions:
quick to build, an eighth of the memory of the references themselves. Embeddings of faces vary little along the rest.
"""

from __future__ import annotations

import importlib.util
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

KEPT = 64  # directions
LOOKED_AT = 0.2  # of all lists: more find what is nearest more often, and take longer
FEWEST = 32  # … but at least so many
MOST_TRAINED = 64  # vectors a list that the lists are placed by


def available() -> bool:
    """Whether the library is installed."""
    return importlib.util.find_spec("faiss") is not None


class Index:
    """Finds the rows of ``vectors``, (R, 128) float32, that are probably nearest to a query.

    Raises:
        ImportError: faiss is not installed.
    """

    def __init__(self, vectors: NDArray[np.float32]) -> None:
        import faiss

        faiss.omp_set_num_threads(1)
        count, dimensions = vectors.shape
        lists = max(1, min(int(2 * math.sqrt(count)), count // 40))
        kept = min(KEPT, dimensions)
        self._quantizer = faiss.IndexFlatL2(kept)
        self._lists = faiss.IndexIVFScalarQuantizer(
            self._quantizer, kept, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_L2
        )
        self._lists.nprobe = max(FEWEST, math.ceil(LOOKED_AT * lists))
        self._turned = faiss.PCAMatrix(dimensions, kept)
        self._index: Any = faiss.IndexPreTransform(self._turned, self._lists)
        step = max(1, count // (MOST_TRAINED * lists))
        self._index.train(np.ascontiguousarray(vectors[::step]))
        self._index.add(vectors)

    def nearest(self, query: NDArray[np.float32], count: int) -> NDArray[np.intp]:
        """Return at most ``count`` rows, probably the nearest, nearest first."""
        _, rows = self._index.search(query[None], count)
        found: NDArray[np.intp] = rows[0][rows[0] >= 0].astype(np.intp)
        return found
