"""The identity worker: patches in, embeddings out. It knows no names."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import cv2
import numpy as np

from common.messages import IdentityFinding, IdentityJob, Message, MessageError, array_from
from common.stage import StageError, main
from common.worker import Worker
from models.chips import Aligner, Patch
from models.embedder import Embedder, FaceEmbedder, ReferenceEmbedder
from models.runtime import ModelError


class Identity(Worker[IdentityJob]):
    """Embeds faces, so that the conductor can compare them with people it knows."""

    name: ClassVar[str] = "identity"
    pool: ClassVar[Literal["identity"]] = "identity"
    job_kind: ClassVar[type[Message]] = IdentityJob

    @property
    def finding_kind(self) -> type[Message]:
        return IdentityFinding

    def load(self) -> None:
        cv2.setNumThreads(self.config.workers.threads)
        try:
            self._aligner = Aligner()
            self._embedder: Embedder = (
                ReferenceEmbedder()
                if self.config.identity.engine == "face_recognition"
                else FaceEmbedder(
                    threads=self.config.workers.threads, cache_dir=self.config.storage.data_dir / "compiled"
                )
            )
        except ModelError as error:
            raise StageError(str(error)) from error
        self.log.info("ready (%s)", self.config.identity.engine)

    def work(self, job: IdentityJob, blobs: Sequence[Any]) -> tuple[dict[str, Any], list[Any]]:
        if not len(job.shapes) == len(job.boxes) == len(blobs):
            raise MessageError(f"{len(job.shapes)} shapes, {len(job.boxes)} boxes and {len(blobs)} patches came")
        aligned = []
        for (height, width), box, blob in zip(job.shapes, job.boxes, blobs, strict=True):
            pixels = array_from(blob, (height, width, 3), np.uint8, "patch")
            aligned.append(self._aligner.chip(Patch(pixels=pixels, box=np.array(box, np.float32))))
        faces = np.stack(aligned) if aligned else np.zeros((0, 150, 150, 3), np.uint8)
        embeddings = self._embedder.embed(faces) if aligned else np.zeros((0, 128), np.float32)
        return {"count": len(aligned)}, [np.ascontiguousarray(embeddings, np.float32), faces]


if __name__ == "__main__":
    sys.exit(main(Identity))
