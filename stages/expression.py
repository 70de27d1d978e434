"""The expression worker: crops in, seven probabilities each out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np

from common.messages import ExpressionFinding, ExpressionJob, Message, MessageError, array_from
from common.stage import StageError, main
from common.worker import Worker
from models import gpu
from models.expression import START, ExpressionClassifier
from models.runtime import ModelError


class Expression(Worker[ExpressionJob]):
    """Judges how faces look, several at once."""

    name: ClassVar[str] = "expression"
    pool: ClassVar[Literal["expression"]] = "expression"
    job_kind: ClassVar[type[Message]] = ExpressionJob

    @property
    def finding_kind(self) -> type[Message]:
        return ExpressionFinding

    _classifier: ExpressionClassifier | gpu.TorchExpressionClassifier | None = None

    def load(self) -> None:
        settings = self.config.expression
        try:
            self._classifier = self._on_gpu() if settings.model is None and gpu.usable() else None
            if self._classifier is None:
                self._classifier = self._on_cpu()
        except ModelError as error:
            raise StageError(str(error)) from error
        size = self._classifier.size
        self._classifier.classify(np.zeros((1, size, size), np.uint8))  # the first call prepares much: 0.1 s
        self.log.info("ready (%s)", self._classifier.precision)

    def _on_cpu(self) -> ExpressionClassifier:
        settings = self.config.expression
        return ExpressionClassifier(
            settings.model,
            threads=self.config.workers.threads,
            precision=settings.precision,
            cache_dir=self.config.storage.data_dir / "compiled",
        )

    def _on_gpu(self) -> gpu.TorchExpressionClassifier | None:
        try:
            return gpu.TorchExpressionClassifier(START)
        except ModelError as error:
            self.log.warning("the GPU is not used: %s", error)
            return None

    def work(self, job: ExpressionJob, blobs: Sequence[Any]) -> tuple[dict[str, Any], list[Any]]:
        assert self._classifier is not None
        if len(blobs) != 1 or job.size != self._classifier.size:
            raise MessageError(f"{len(blobs)} parts of {job.size} px came, one of {self._classifier.size} was expected")
        crops = array_from(blobs[0], (job.count, job.size, job.size), np.uint8, "crops")
        try:
            probabilities = self._classifier.classify(crops)
        except RuntimeError as error:
            if not isinstance(self._classifier, gpu.TorchExpressionClassifier):
                raise
            why = str(error).strip().splitlines()[0]
            self.log.warning("the GPU failed, going on with the CPU: %s", why)
            self._classifier = self._on_cpu()
            probabilities = self._classifier.classify(crops)
        return {"count": job.count}, [np.ascontiguousarray(probabilities, np.float32)]


if __name__ == "__main__":
    sys.exit(main(Expression))
