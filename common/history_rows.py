"""How history is kept: a second or a minute of a face in a few bytes, and seconds put together to longer steps.

A second: frames, assessed frames, seven probabilities (255 = 1), then (reason, frames) for what was not assessed. A
minute: the same with quarter seconds in the place of frames, and seven more bytes: quarter seconds by the expression
that showed most. Both are plain bytes, so that a year of them stays small and a day is read at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from common.expressions import EXPRESSIONS
from common.sql import Connection

# Why a face was not assessed. The order is part of the format: add at the end. ``pending``: the answer did not come in
# time; ``other``: a reason that this version does not know.
REASONS = ("other", "small", "cut", "turned", "dark", "bright", "blurred", "covered", "pending")

_SECOND = 2 + len(EXPRESSIONS)  # bytes before the reasons
_MINUTE = 2 + 2 * len(EXPRESSIONS)
_QUARTER = 4  # parts of a second that a minute counts in: 60 s fit a byte

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Distinct first columns of the key, one look-up each, however many rows there are.
_SUBJECTS = """WITH RECURSIVE one(subject) AS (
    SELECT min(subject) FROM history_minute
    UNION ALL SELECT (SELECT min(subject) FROM history_minute WHERE subject > one.subject)
    FROM one WHERE subject IS NOT NULL
) SELECT subject FROM one WHERE subject IS NOT NULL"""


@dataclass(slots=True)
class Tally:
    """What is gathered of one track within one second.

    Attributes:
        summed: (7,), the smoothed probabilities of the assessed frames, summed.
        reasons: frames that were not assessed, by code.
    """

    frames: int = 0
    assessed: int = 0
    summed: Floats = field(default_factory=lambda: np.zeros(len(EXPRESSIONS)))
    reasons: dict[int, int] = field(default_factory=dict)

    def add(self, probabilities: Sequence[float] | None, reason: str | None = None) -> None:
        """Count a frame: seven probabilities, or None and why there are none."""
        self.frames += 1
        if probabilities is not None:
            self.assessed += 1
            self.summed += probabilities
        else:
            code = REASONS.index(reason) if reason in REASONS else 0
            self.reasons[code] = self.reasons.get(code, 0) + 1

    def packed(self) -> bytes:
        """Return the second as it is kept."""
        mean = self.summed / max(1, self.assessed)
        head = [min(255, self.frames), min(255, self.assessed), *np.rint(mean * 255).astype(int).tolist()]
        tail = [byte for code, frames in sorted(self.reasons.items()) for byte in (code, min(255, frames))]
        return bytes([min(255, max(0, byte)) for byte in head + tail])


def together(one: bytes, other: bytes) -> bytes:
    """Return one second that holds what two of one track do: after the clock was set back they are the same."""
    tally = Tally()
    for seen in (one, other):
        tally.frames += seen[0]
        tally.assessed += seen[1]
        tally.summed += np.frombuffer(seen[2:_SECOND], np.uint8) / 255.0 * seen[1]
        for code, frames in zip(seen[_SECOND::2], seen[_SECOND + 1 :: 2], strict=True):
            tally.reasons[code] = tally.reasons.get(code, 0) + frames
    return tally.packed()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Steps:
    """A subject's time in steps of equal length, only those in which something was seen, ascending.

    Attributes:
        at: (N,) int64, unix seconds of the beginnings.
        present_s, assessed_s: (N,) float64; how long a face was in the picture, and could be assessed.
        probabilities: (N, 7) float64, mean over the assessed time; zeros where there is none.
        dominant_s: (N, 7) float64, assessed time by the expression that showed most in each second.
        reasons_s: (N, len(REASONS)) float64, present time that was not assessed, by reason.
    """

    at: Ints
    present_s: Floats
    assessed_s: Floats
    probabilities: Floats
    dominant_s: Floats
    reasons_s: Floats

    def __len__(self) -> int:
        return len(self.at)


def empty() -> Steps:
    """Return no steps."""
    return seconds((), ())


def seconds(at: Sequence[int], seen: Sequence[bytes]) -> Steps:
    """Return seconds as they are kept as steps of one second; of two tracks in one second, the one assessed more."""
    moments = np.asarray(at, np.int64)
    head = np.frombuffer(b"".join(row[:_SECOND] for row in seen), np.uint8).reshape(len(seen), _SECOND)
    frames = np.maximum(head[:, 0], 1)
    share = head[:, 1] / frames
    order = np.lexsort((-share, moments))
    first = order[np.concatenate(([True], np.diff(moments[order]) > 0))] if len(order) else order
    share, probabilities = share[first], head[first, 2:] / 255.0
    dominant = np.zeros_like(probabilities)
    dominant[np.arange(len(first)), probabilities.argmax(axis=1)] = share
    return Steps(
        at=moments[first],
        present_s=np.ones(len(first)),
        assessed_s=share,
        probabilities=probabilities,
        dominant_s=dominant,
        reasons_s=_reasons(seen, _SECOND)[first] / frames[first, None],
    )


def minutes(at: Sequence[int], seen: Sequence[bytes]) -> Steps:
    """Return minutes as they are kept (``at``: unix minutes) as steps of 60 s, one a row."""
    count = len(EXPRESSIONS)
    head = np.frombuffer(b"".join(row[:_MINUTE] for row in seen), np.uint8).reshape(len(seen), _MINUTE)
    return Steps(
        at=np.asarray(at, np.int64) * 60,
        present_s=head[:, 0] / _QUARTER,
        assessed_s=head[:, 1] / _QUARTER,
        probabilities=head[:, 2 : 2 + count] / 255.0,
        dominant_s=head[:, 2 + count :] / _QUARTER,
        reasons_s=_reasons(seen, _MINUTE) / _QUARTER,
    )


def gathered(parts: Iterable[Steps], step_s: int) -> Steps:
    """Return steps of ``step_s`` seconds (aligned to the epoch) that hold what shorter ones hold together."""
    kept = [part for part in parts if len(part)]
    if not kept:
        return empty()
    at = np.concatenate([part.at for part in kept]) // step_s * step_s
    starts, index = np.unique(at, return_inverse=True)
    assessed_s = np.concatenate([part.assessed_s for part in kept])
    weighted = np.concatenate([part.probabilities * part.assessed_s[:, None] for part in kept])
    whole = _sum(assessed_s, index, len(starts))
    # Two cameras may have seen one minute: nobody is present for longer than there was time.
    fits = np.minimum(
        1.0, step_s / np.maximum(_sum(np.concatenate([p.present_s for p in kept]), index, len(starts)), 1)
    )
    return Steps(
        at=starts,
        present_s=_sum(np.concatenate([part.present_s for part in kept]), index, len(starts)) * fits,
        assessed_s=whole * fits,
        probabilities=_sum(weighted, index, len(starts)) / np.maximum(whole, 1e-9)[:, None],
        dominant_s=_sum(np.concatenate([part.dominant_s for part in kept]), index, len(starts)) * fits[:, None],
        reasons_s=_sum(np.concatenate([part.reasons_s for part in kept]), index, len(starts)) * fits[:, None],
    )


def packed_minutes(steps: Steps) -> list[tuple[int, bytes]]:
    """Return steps of 60 s as they are kept: (unix minute, bytes)."""
    quarters = np.column_stack((steps.present_s, steps.assessed_s)) * _QUARTER
    head = np.column_stack((quarters, steps.probabilities * 255, steps.dominant_s * _QUARTER))
    rows = np.clip(np.rint(head), 0, 255).astype(np.uint8)
    reasons = np.clip(np.rint(steps.reasons_s * _QUARTER), 0, 255).astype(int).tolist()
    packed = []
    for row, at in enumerate(steps.at.tolist()):
        tail = bytes(byte for code, value in enumerate(reasons[row]) if value for byte in (code, value))
        packed.append((at // 60, rows[row].tobytes() + tail))
    return packed


def _sum(values: Floats, index: NDArray[np.intp], count: int) -> Floats:
    total = np.zeros((count, *values.shape[1:]))
    np.add.at(total, index, values)
    return total


def _reasons(seen: Sequence[bytes], head: int) -> Floats:
    """Return the counts by reason that follow ``head`` bytes of each row, (N, len(REASONS))."""
    counts = np.zeros((len(seen), len(REASONS)))
    lengths = np.fromiter((len(row) for row in seen), np.int64, len(seen))
    for length in np.unique(lengths[lengths > head]).tolist():
        rows = np.flatnonzero(lengths == length)
        pairs = np.frombuffer(b"".join(seen[row][head:] for row in rows.tolist()), np.uint8).reshape(len(rows), -1, 2)
        # A reason that a newer version has added counts as ``other``.
        codes = np.where(pairs[:, :, 0] < len(REASONS), pairs[:, :, 0], 0)
        for place in range(pairs.shape[1]):
            np.add.at(counts, (rows, codes[:, place]), pairs[:, place, 1])
    return counts


def minute_subjects(connection: Connection) -> list[int]:
    """Return whose minutes the store holds, by number (``Subject.number``)."""
    return [row[0] for row in connection.execute(_SUBJECTS).fetchall()]
