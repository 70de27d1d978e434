"""One query against very many references: made-up people whose spread is that of real ones."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from bench.report import Report, median, percentile
from common.gallery import Gallery, Member
from common.index import available
from common.settings import Config

Floats = NDArray[np.float32]
EXACT = (1_000, 10_000, 100_000)
INDEXED = 1_000_000
QUERIES = 200


def scale(report: Report, config: Config, source: Path | None) -> None:
    """The exact gallery, up to a hundred thousand references."""
    for count in EXACT:
        measure(report, count, index_above=None)


def index(report: Report, config: Config, source: Path | None) -> None:
    """A million references, found by an index and judged exactly."""
    if not available():
        report.notes.append("index: left out, pip install 'mien[index]'")
        return
    measure(report, INDEXED, index_above=config.identity.index_above)


def measure(report: Report, count: int, *, index_above: int | None) -> None:
    """Add a row: so many references, exact or by an index from ``index_above`` on."""
    members, queries, known = _crowd(count)
    process, began = psutil.Process(), time.perf_counter()
    before = process.memory_info().rss
    gallery = Gallery(members, index_above=index_above)
    built, memory = time.perf_counter() - began, process.memory_info().rss - before
    times, whole, rows, right = [], [], [], 0
    for query in queries:
        began = time.perf_counter()
        rows.append(gallery.nearest_reference(query)[0])
        times.append(time.perf_counter() - began)
    for number, query in enumerate(queries):
        began = time.perf_counter()
        best = gallery.recognise(query).best
        whole.append(time.perf_counter() - began)
        if number < len(known):
            right += best is not None and best.score >= 0 and best.person == known[number]
    # What is right, only now: the plain way goes through all of the memory, and a query just after it would find none
    # of its own in the caches.
    everything = np.concatenate([member.embeddings for member in members])
    squares = (everything**2).sum(axis=1)
    exact = [
        int(np.argmin(squares - everything @ (2 * query))) == row for query, row in zip(queries, rows, strict=True)
    ]
    report.add(
        "Gallery, one query, one thread",
        references=count,
        way="exact" if index_above is None else "index, then exact",
        nearest_p50_ms=1e3 * median(times),
        nearest_p95_ms=1e3 * percentile(times, 0.95),
        decision_p50_ms=1e3 * median(whole),
        decision_p95_ms=1e3 * percentile(whole, 0.95),
        recall_known=float(np.mean(exact[: len(known)])),
        recall_strangers=float(np.mean(exact[len(known) :])),
        known_named_right=f"{right}/{len(known)}",
        built_s=built,
        memory_mb=memory / 2**20,
    )


def _crowd(references: int) -> tuple[list[Member], list[Floats], list[int]]:
    """Return made-up people with two references each, and queries: the first half people's, whose numbers come last.

    Real embeddings vary along few directions more than along the rest; the spread falls off as theirs does.
    """
    rng = np.random.default_rng(0)
    spread = (np.exp(-np.arange(128) / 40.0)).astype(np.float32)
    spread *= 0.57 / np.linalg.norm(spread)
    turn = np.linalg.qr(rng.normal(size=(128, 128)))[0].astype(np.float32)

    def people(count: int) -> Floats:
        drawn = (rng.standard_normal((count, 128), dtype=np.float32) * spread) @ turn.T
        return np.asarray(drawn + 1.3 * turn[:, 0], np.float32)

    def looks(of: Floats) -> Floats:
        return np.asarray(of + rng.standard_normal(of.shape, dtype=np.float32) * (0.25 / np.sqrt(128)), np.float32)

    everybody = people(references // 2)
    both = np.stack([looks(everybody), looks(everybody)], axis=1)
    members = [Member(person=i, name=str(i), embeddings=own) for i, own in enumerate(both)]
    known = [int(i) for i in rng.integers(0, len(everybody), QUERIES // 2)]
    return members, [*looks(everybody[known]), *looks(people(QUERIES // 2))], known
