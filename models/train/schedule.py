"""How far a run has come, and what follows from it: input size and learning rate.

Progress runs from 0 to 1 and counts computation, not steps: a small input size makes cheap steps, not a short phase.
With a deadline it follows the clock instead: a run that is paused, or slowed by neighbours, still comes to its end in
time, with a low learning rate, only after fewer passes.
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
    _began: tuple[float, float] | None = None  # clock and progress at the first step since the start

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

    def step(self, images: int) -> None:
        """Count a step of that many images."""
        if self.deadline is None:
            cost = images * (self.size / self.config.size) ** 2
            self.progress = min(1.0, self.progress + cost / (self.config.passes * self.images))
            return
        now = time.time()
        if self._began is None:
            self._began = (now, self.progress)
        clock, progress = self._began
        share = 1.0 if now >= self.deadline else (now - clock) / (self.deadline - clock)
        self.progress = progress + (1 - progress) * share
