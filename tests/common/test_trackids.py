"""Track ids: never twice, not after a restart, not in two conductors that share a store."""

from __future__ import annotations

import logging

import pytest

from common.place import Place
from common.store import Store
from common.trackids import LOW, RESERVED, TrackIds, reserve


def test_two_conductors_never_give_one_id_and_older_numbers_are_gone_on_from(place: Place) -> None:
    place.data_dir.mkdir()
    (place.data_dir / "tracks.next").write_text("5001")  # as earlier versions left it
    given: list[int] = []
    with Store(place) as one, Store(place) as other:
        for store in (one, other, one):
            ids = TrackIds()
            ids.add(reserve(store))
            given += [ids() for _ in range(RESERVED)]
    assert len(set(given)) == 3 * RESERVED and min(given) == 5001


def test_more_are_asked_for_in_time_and_a_store_that_is_away_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    ids = TrackIds()
    assert ids.low
    ids.add(range(1, 1 + RESERVED))
    assert [ids() for _ in range(RESERVED - LOW - 1)][-1] == RESERVED - LOW - 1 and not ids.low
    ids()
    assert ids.low
    with caplog.at_level(logging.WARNING):
        late = [ids() for _ in range(LOW + 2 * RESERVED)]
    assert len(set(late)) == len(late) and late[-1] > 10**15 and len(caplog.messages) == 1
    assert late[-1] < 2**53  # whole in JavaScript, too
