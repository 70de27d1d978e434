"""Whose subscriptions are how many: each subscriber's own count."""

from __future__ import annotations

from common.wishes import MOST_BYTES, Wishes


def test_who_asks_for_too_much_is_told_apart_from_the_others() -> None:
    wishes = Wishes()
    many = MOST_BYTES // 100
    asked = [wishes.heard(b"\1results.%d" % number, "greedy") for number in range(many)]
    assert not wishes.heard(b"\1alerts.", "modest")
    assert asked[0] is False
    while not wishes.heard(b"\1results.%d" % many, "greedy"):
        many += 1
    assert not wishes.heard(b"\1corrections.", "modest")
    wishes.clear()
    assert not wishes.heard(b"\1results.", "greedy")


def test_what_is_taken_back_counts_no_more_whoever_takes_it_back_last() -> None:
    wishes = Wishes()
    for number in range(MOST_BYTES):
        assert not wishes.heard(b"\1reply.%d" % number, "one")
        assert not wishes.heard(b"\0reply.%d" % number, "another")
    assert not wishes.heard(b"\0never heard of", "one")
