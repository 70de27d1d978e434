"""The soak sees what grows, what is gone, and what has fallen silent."""

from __future__ import annotations

import pytest

from bench.report import Report
from bench.soak import Course, Watched, judged


def course(looks: int, *, growth_mb: float = 0.0) -> Course:
    made = Course(1)
    for look in range(looks):
        made.at_s.append(10.0 * look)
        made.memory_mb.append(100.0 + growth_mb * look)
        made.descriptors.append(20)
        made.threads.append(5)
    return made


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, None),
        ({"courses": {"detection.1": course(20)}}, "detection.1 was gone at the end"),
        ({"courses": {"detection.1": course(100, growth_mb=0.5)}}, "detection.1 grows by"),
        ({"silent_s": [0.0, 400.0, 410.0]}, "no result came before 2 looks, the first of them after 400 s"),
        ({"replaced": ["identity.1"]}, "identity.1 was replaced"),
    ],
    ids=["well", "gone", "grows", "silent", "replaced"],
)
def test_what_is_wrong_is_named(change: dict[str, object], expected: str | None) -> None:
    latency = [(10.0 * look, 20.0, 30.0) for look in range(100)]
    watched = Watched(courses={"conductor": course(100)}, latency=latency, results=3000, until_s=990.0)
    for name, value in change.items():
        setattr(watched, name, value)
    wrong = judged(Report("soak", "test"), watched, warm_up_s=50.0)
    assert [expected in one for one in wrong] == [True] if expected else wrong == []
