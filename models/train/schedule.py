"""How far a run has come, and what follows from it: input size and learning rate.

Progress runs from 0 to 1 and counts computation, not steps: a small input size makes cheap steps, not a short
phase.
With a deadline, the share that a step takes follows from the measured speed instead: a run that is paused, or slowed by
neighbours, still comes to its end in time, only with fewer passes.
"""

import math
import time
from dataclasses import dataclass

from models.train.config import RunConfig


@dataclass(slots=True)
class Schedule:
    """Progress of one run; ``deadline`` is in seconds of `time.time`, None for a run of the configured length."""

    config: RunConfig
    images: int
    deadline: float | None = None
    progress: float = 0.0
    _step_s: float | None = None
    _stepped_size: int = 0

    @property
    def size(self) -> int:
        """Side of the network's input now, in pixels."""
        return next(phase.size for phase in self.config.phases if self.progress < phase.until or phase.until == 1.0)

    @property
    def learning_rate(self) -> float:
        """Linear warm-up, then a cosine to zero."""
        config = self.config
        if self.progress < config.warm_up:
            return config.learning_rate * (0.05 + 0.95 * self.progress / config.warm_up)
        share = (self.progress - config.warm_up) / (1 - config.warm_up)
        return config.learning_rate * 0.5 * (1 + math.cos(math.pi * min(1.0, share)))

    @property
    def done(self) -> bool:
        """Whether the run has come to its end."""
        return self.progress >= 1.0

    def step(self, images: int, seconds: float) -> None:
        """Count a step of that many images that took so long."""
        if self.deadline is None:
            cost = images * (self.size / self.config.size) ** 2
            self.progress = min(1.0, self.progress + cost / (self.config.passes * self.images))
            return
        size = self.size
        if self._step_s is None or size != self._stepped_size:
            # The first step at a size also prepares kernels, and says too little about those that follow.
            self._step_s, self._stepped_size = min(seconds, self._step_s or 0.5), size
        # One step in fifty: short enough to notice a busy neighbour, long enough not to follow every hiccup.
        self._step_s += (seconds - self._step_s) / 50
        left_s = self.deadline - time.time()
        share = 1.0 if left_s <= self._step_s else self._step_s / left_s
        self.progress = min(1.0, self.progress + (1 - self.progress) * share)
        if 1 - self.progress < 1e-6:
            self.progress = 1.0
