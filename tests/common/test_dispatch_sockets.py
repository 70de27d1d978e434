"""Why work is pulled: over real sockets, a slow worker does not make frames old."""

from __future__ import annotations

from bench import cameras, dispatch

UNEVEN_MS = (10.0, 100.0)


def test_a_slow_worker_gets_no_stale_frames_when_work_is_pulled() -> None:
    pulled = dispatch.measure("pulled", UNEVEN_MS, seconds=3.0)
    pushed = dispatch.measure("push, default queue", UNEVEN_MS, seconds=3.0)
    assert pulled.per_s > 20  # both workers got work
    assert pulled.p99_ms * 3 < pushed.p99_ms


def test_pulled_work_is_the_newest_also_in_overload() -> None:
    pulled = dispatch.measure("pulled", (40.0, 40.0), seconds=2.0)
    pushed = dispatch.measure("push, default queue", (40.0, 40.0), seconds=2.0)
    assert pulled.p99_ms * 2 < pushed.p99_ms
    assert pulled.per_s > 0.5 * pushed.per_s


def test_four_cameras_share_one_slow_worker_fairly() -> None:
    found = cameras.measure(4, rate=20, seconds=4.0, wait_ms=50, workers=1)
    assert found.per_s < 25  # it is the worker that is short: the cameras gave 80 a second
    assert found.evenness > 0.6 and min(found.results.values()) >= 4
