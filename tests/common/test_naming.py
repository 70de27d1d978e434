"""Names of one camera's tracks: one person is in one place, strangers keep their numbers, also between conductors."""

from __future__ import annotations

import time
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from sqlalchemy import select

from common import forgetting, people
from common.config import load
from common.gallery import Gallery, Member
from common.keeper import Keeper
from common.messages import Frame, Identity
from common.naming import MOST_COVERS, Naming
from common.recall import Enrolment, Recall, Sighting, Snapshot, UnknownLook, Withheld
from common.schema import SIGHTING
from common.settings import Config
from common.store import Store
from common.unknown import Unknown, UnknownPeople
from tests.common.test_blurring import frame
from tests.conftest import wait_until
from tests.people import face_of, reference

CHIP = np.full((150, 150, 3), 120, np.uint8)
Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]
LEFT, RIGHT = (50.0, 50.0, 60.0, 80.0), (400.0, 50.0, 60.0, 80.0)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return load(overrides={"storage": {"data_dir": tmp_path / "data"}}, environment={})


def naming(config: Config) -> Naming:
    recall = Recall()
    ada = Member(person=1, name="Ada", embeddings=face_of(1)[None])
    recall.install(Snapshot(gallery=Gallery([ada]), numbers=(7, 8)))
    return Naming(config, "cam0", recall)


def looked_at(names: Naming, track: int, face: Floats, first: Frame | None = None) -> None:
    identity = names.begin(track, first or frame(0))
    identity.asked(0.0, 0.9)
    assert identity.answered(face, 0.9)


def test_what_was_kept_of_somebody_without_consent_under_anothers_name_goes(config: Config) -> None:
    names = naming(config)
    identity = names.begin(1, frame(0))
    identity.identity = Identity(status="known", person=1, name="Ada", distance=0.3, confidence=0.9)
    names.show(frame(1), [(1, LEFT)], [], 0.1)
    assert isinstance(names._recall.events()[-1], Sighting)
    identity._held, identity.withheld, identity.identity = 2, True, Identity(status="unknown", withheld=True)
    names.show(frame(2), [(1, LEFT)], [], 0.2)
    names.show(frame(3), [(1, LEFT)], [], 0.3)
    assert [(e.track, e.person, e.number) for e in names._recall.events() if isinstance(e, Withheld)] == [(1, 2, None)]


def test_a_sighting_goes_on_when_the_clock_is_set_back(config: Config) -> None:
    names = naming(config)
    looked_at(names, 1, face_of(1))
    for second in range(60):
        set_back = 3600 if second >= 30 else 0
        picture = frame(second).model_copy(update={"captured_at": 1000.0 + second - set_back})
        names.show(picture, [(1, LEFT)], [], float(second))
    noted = [event for event in names._recall.events() if isinstance(event, Sighting)]
    assert 50 <= noted[-1].end_at - noted[-1].begin_at <= 60


def test_one_person_is_not_in_two_places_of_a_picture(config: Config) -> None:
    names = naming(config)
    near, far = face_of(1, 0), face_of(1, 1)  # her picture on the wall is not quite like herself
    looked_at(names, 1, far)
    looked_at(names, 2, near)
    alone = names.show(frame(1), [(1, LEFT)], [], 0.1).identities
    assert alone[1].name == "Ada"
    both = names.show(frame(2), [(1, LEFT), (2, RIGHT)], [], 0.2).identities
    assert (both[1].status, both[1].name) == ("unknown", None)
    assert (both[2].status, both[2].name) == ("known", "Ada")
    # Who said otherwise is corrected, and the other one has the name again when she has gone.
    told = [(c["track"], c["was"].name, c["now"].name) for c in names.corrections]
    assert told == [(1, "Ada", None)]
    names.end(2)
    assert names.show(frame(3), [(1, LEFT)], [], 0.3).identities[1].name == "Ada"


def test_whoever_resembles_her_does_not_have_her_name_while_she_is_missed(config: Config) -> None:
    names = naming(config)
    looked_at(names, 1, face_of(1, 0))
    looked_at(names, 2, face_of(1, 1))
    said = []
    for seq in range(1, 40):
        there = [(2, RIGHT)] if seq in (5, 10) or 15 <= seq < 30 else [(1, LEFT), (2, RIGHT)]
        identities = names.show(frame(seq), there, [], seq / 10).identities
        said.append(identities[2].name)
        assert 1 not in identities or identities[1].name == "Ada"
    assert said == [None] * 39 and not names.corrections


def test_she_has_her_name_at_once_on_a_new_track_though_the_old_one_was_nearer(config: Config) -> None:
    names = naming(config)
    looked_at(names, 1, face_of(1, 0))
    names.show(frame(1), [(1, LEFT)], [], 0.1)
    looked_at(names, 2, face_of(1, 1))  # she turned round, and was found again beside where she was
    assert names.show(frame(2), [(2, RIGHT)], [], 0.2).identities[2].name == "Ada"


def stranger(names: Naming, track: int, face: Floats, seq: int, beside: Collection[int] = ()) -> None:
    looked_at(names, track, face, frame(seq))
    names.looked(track, face, CHIP, 0.9, 0.0, frame(seq), beside)


def test_whoever_a_followed_face_was_taken_for_first_is_not_followed_in_its_place(config: Config) -> None:
    ada = Identity(status="known", person=1, name="Ada", distance=0.3, confidence=0.9)
    for said, other in ((ada, Identity(status="unknown")), (Identity(status="unknown"), ada)):
        names = naming(config)
        first = names.begin(1, frame(0))
        assert names.select(1)
        for seq, now in enumerate((said, Identity(status="pending"), other)):
            first.identity = now
            names._known[1].number = 7
            assert names.show(frame(seq), [(1, LEFT)], [], seq / 10).selected == 1
        names.end(1)
        for track, who in ((2, said), (3, other)):
            names.begin(track, frame(4)).identity = who
            names._known[track].number = 7
        shown = names.show(frame(4), [(2, LEFT), (3, RIGHT)], [], 0.4)
        assert shown.selected == 3


def test_a_followed_face_that_is_in_doubt_when_it_goes_is_still_found_again(config: Config) -> None:
    names = naming(config)
    first = names.begin(1, frame(0))
    first.identity = Identity(status="known", person=1, name="Ada", distance=0.3, confidence=0.9)
    assert names.select(1)
    names.show(frame(1), [(1, LEFT)], [], 0.1)
    first.identity = Identity(status="pending")
    names.show(frame(2), [(1, LEFT)], [], 0.2)
    names.end(1)
    looked_at(names, 2, face_of(1))
    assert names.show(frame(3), [(2, LEFT)], [], 0.3).selected == 2


@pytest.mark.parametrize("faces", [MOST_COVERS, MOST_COVERS + 1])
def test_more_covers_than_a_picture_can_tell_of_blur_it_whole(config: Config, faces: int) -> None:
    names = naming(config.model_copy(update={"privacy": config.privacy.model_copy(update={"blur": "unknown"})}))
    shown = names.show(frame(1), [], [LEFT] * faces, 0.1)
    assert (len(shown.blur), shown.blur_all) == ((faces, False) if faces <= MOST_COVERS else (0, True))


def test_when_the_pictures_have_another_size_a_cover_goes_where_the_face_is(config: Config) -> None:
    names = naming(config.model_copy(update={"privacy": config.privacy.model_copy(update={"blur": "unknown"})}))
    names.begin(1, frame(0))
    [before] = names.show(frame(1), [(1, LEFT)], [], 0.1).blur
    [missed] = names.show(frame(2), [], [], 0.2).blur
    names.rescale(2.0, 0.5)
    [cover] = names.show(frame(3), [], [], 0.3).blur
    assert before[2] < missed[2]
    assert (cover[0] + cover[2] / 2, cover[1] + cover[3] / 2) == (2 * (50 + 30), 0.5 * (50 + 40))


def test_with_a_full_list_a_camera_whose_clock_is_behind_does_not_burn_numbers() -> None:
    strangers = UnknownPeople(2)
    strangers.reserve(range(1, 20))
    for person in (1, 2):
        assert strangers.see(face_of(person), 0.9, 1000.0 + person) is not None
    seen = [strangers.see(face_of(3, look), 0.9, 400.0) for look in range(5)]
    assert {one and one.number for one in seen} == {3}
    assert 1 not in strangers and {2, 3} == {number for number in range(20) if number in strangers}


def test_a_stranger_who_is_found_again_on_a_new_track_has_the_same_number(config: Config) -> None:
    names = naming(config)
    stranger(names, 1, face_of(9, 0), 0, beside=[1])
    assert names.show(frame(1), [(1, LEFT)], [], 0.1).identities[1].number == 7
    stranger(names, 2, face_of(9, 1), 12, beside=[2])  # the first track is out of sight, and kept for a while
    assert names.show(frame(13), [(2, LEFT)], [], 1.3).identities[2].number == 7


def test_two_strangers_who_are_alike_have_two_numbers_in_one_picture(config: Config) -> None:
    names = naming(config)
    stranger(names, 1, face_of(9, 0), 0, beside=[1, 2])
    stranger(names, 2, face_of(9, 1), 0, beside=[1, 2])
    both = names.show(frame(1), [(2, RIGHT), (1, LEFT)], [], 0.1).identities
    assert (both[1].number, both[2].number) == (7, 8)


def test_who_turns_out_to_be_another_than_the_stranger_with_that_number_gets_another_number(config: Config) -> None:
    names = naming(config)
    stranger(names, 1, face_of(9, 0), 0)
    names.show(frame(1), [(1, LEFT)], [], 0.1)
    stranger(names, 2, face_of(9, 1), 2)
    assert names.show(frame(2), [(2, RIGHT)], [], 0.2).identities[2].number == 7
    both = names.show(frame(3), [(2, RIGHT), (1, LEFT)], [], 0.3).identities  # so they are two
    assert (both[1].number, both[2].number) == (7, None)
    names.looked(2, face_of(9, 1), CHIP, 0.9, 0.0, frame(4), beside=[1, 2])
    both = names.show(frame(5), [(2, RIGHT), (1, LEFT)], [], 0.5).identities
    assert (both[1].number, both[2].number) == (7, 8)
    assert [(c["track"], c["was"].number, c["now"].number) for c in names.corrections] == [(2, 7, None), (2, None, 8)]


@pytest.mark.parametrize("ends_as", ["unknown", "known"])
def test_a_name_that_was_in_doubt_first_is_taken_back_all_the_same(
    config: Config, ends_as: Literal["unknown", "known"]
) -> None:
    names = naming(config)
    ada = Identity(status="known", person=1, name="Ada", distance=0.3, confidence=0.9)
    after = ada if ends_as == "known" else Identity(status="unknown")
    identity = names.begin(1, frame(0))
    for seq, said in enumerate([ada, Identity(status="pending"), Identity(status="pending"), after, after]):
        identity.identity = said
        names.show(frame(seq), [(1, LEFT)], [], seq / 10)
    told = [(c["was"].name, c["now"].status) for c in names.corrections]
    assert told == ([] if ends_as == "known" else [("Ada", "unknown")])


def test_a_name_that_is_found_late_is_told(config: Config) -> None:
    names = naming(config)
    identity = names.begin(1, frame(0))
    names.show(frame(0), [(1, LEFT)], [], 0.0)
    identity.asked(0.1, 0.9)
    assert identity.answered(face_of(1), 0.9)
    names.show(frame(2), [(1, LEFT)], [], 0.2)
    assert [(c["was"].status, c["now"].name) for c in names.corrections] == [("pending", "Ada")]


def test_she_is_not_written_down_in_two_places_either(config: Config) -> None:
    names = naming(config)
    looked_at(names, 1, face_of(1, 1))
    looked_at(names, 2, face_of(1, 0))
    names.show(frame(2), [(1, LEFT), (2, RIGHT)], [], 0.2)
    for track in (1, 2):
        names.end(track)
    seen = [event for event in names._recall.events() if isinstance(event, Sighting)]
    assert {(event.track, event.person) for event in seen if event.person is not None} == {(2, 1)}


def test_two_cameras_may_both_see_her(config: Config) -> None:
    for _ in range(2):
        names = naming(config)
        looked_at(names, 1, face_of(1, 0))
        assert names.show(frame(1), [(1, LEFT)], [], 0.1).identities[1].name == "Ada"


def test_a_face_that_is_enrolled_is_no_stranger_any_more(config: Config) -> None:
    names = naming(config)
    for track in (3, 4):
        looked_at(names, track, face_of(9))
    names.looked(3, face_of(9), CHIP, 0.9, 0.0, frame(1))
    assert names.enrol(Enrolment(request="r", name="Zoe", fields={}), 3, 1.0)
    assert names.enrol(Enrolment(request="s", name="Yan", fields={}), 4, 1.0)
    for track in (3, 4):
        names.collector.looked(track, face_of(9), CHIP, 0.9, 0.0)
        names.end(track)
    orders = [event for event in names._recall.events() if isinstance(event, Enrolment)]
    assert [(order.name, order.number) for order in orders] == [("Zoe", 7), ("Yan", None)]


@pytest.mark.parametrize("ends", [False, True], ids=["still there", "ended"])
def test_of_somebody_without_consent_who_was_a_stranger_at_first_nothing_stays(config: Config, ends: bool) -> None:
    cell = Cell(config, "cell")
    cell.recall.unknown.reserve([70])
    names = Naming(config, "cam0", cell.recall)
    now, later = (frame(seq).model_copy(update={"captured_at": time.time() + seq / 10}) for seq in (1, 2))
    with Store(config.storage.place) as store:
        for track, person in ((3, 9), (4, 8)):
            looked_at(names, track, face_of(person), now)
            names.looked(track, face_of(person), CHIP, 0.9, 0.0, now)
        names.show(now, [(3, LEFT), (4, RIGHT)], [], 0.1)
        cell.keeper.write(cell.recall.events())
        wait_until(lambda: len(people.unknown_people(store)) == 2, 10, "both are strangers")
        other = cell.recall.unknown.see(face_of(8), 0.9, now.captured_at)
        people.add(store, "Zoe", [reference(9)], consent="refused")
        wait_until(lambda: changed(cell, names), 10, "the conductor hears of her")
        if ends:
            names.end(3)
        else:
            names.show(later, [(3, LEFT), (4, RIGHT)], [], 0.2)
        cell.keeper.write(cell.recall.events())
        cell.keeper.close()
        assert other is not None
        assert [(one.number, one.crops) for one in people.unknown_people(store)] == [(other.number, 1)]
        with store.read() as connection:
            assert connection.execute(select(SIGHTING.c.track)).scalars().all() == [4]


def changed(cell: Cell, names: Naming) -> bool:
    if (news := cell.keeper.news()) is None:
        return False
    gone = cell.recall.install(news)
    names.changed(gone)
    return gone is not None


# --- two conductors with one store ---


def look_of(seen: Unknown, at: float) -> UnknownLook:
    return UnknownLook(
        number=seen.number, embedding=seen.embedding.copy(), weight=seen.weight, first_at=seen.first_at,
        last_at=at, looks=seen.looks, chip=CHIP, own=seen.embedding.copy(), quality=0.8,
    )  # fmt: skip


class Cell:
    """A conductor's memory and its keeper."""

    def __init__(self, config: Config, name: str) -> None:
        self.recall = Recall()
        self.keeper = Keeper(config, name)
        self.keeper.numbers_low = lambda: self.recall.unknown.free_numbers < 50
        self.recall.install(self.keeper.open())

    def sees(self, person: int, look: int = 0) -> int:
        """Look at a stranger, have it written down, and return the number."""
        at = time.time()
        seen = self.recall.unknown.see(face_of(person, look), 0.9, at)
        assert seen is not None
        self.keeper.write([look_of(seen, at)])
        return seen.number

    def turn(self) -> None:
        if (news := self.keeper.news()) is not None:
            self.recall.install(news)


def test_two_conductors_on_one_store_give_a_stranger_one_number(config: Config) -> None:
    first, second = Cell(config, "first"), Cell(config, "second")
    try:
        number = first.sees(5)
        wait_until(lambda: second.turn() or number in second.recall.unknown, 10, "the other conductor hears of them")
        assert second.sees(5, 1) == number
        assert second.sees(6) != number
        # Both go on writing of the same and of new strangers, at the same time.
        for person in range(5, 25):
            for cell in (first, second):
                cell.turn()
                cell.sees(person, 2)
    finally:
        first.keeper.close()
        second.keeper.close()
    assert first.keeper.lost == second.keeper.lost == 0
    with Store(config.storage.place) as store:
        kept = [stranger.number for stranger in people.unknown_people(store)]
        assert number in kept and len(kept) == len(set(kept)) and 20 <= len(kept) <= 40


def test_a_stranger_in_view_does_not_come_back_when_just_named_or_forgotten(config: Config) -> None:
    cell = Cell(config, "cell")
    with Store(config.storage.place) as store:
        forgotten, named = cell.sees(5), cell.sees(6)
        wait_until(lambda: len(people.unknown_people(store)) == 2, 10, "both are written down")
        note(cell, 11, named)
        wait_until(lambda: people.sightings_of(store, unknown=named), 10, "where the second was seen")
        forgetting.forget_unknown(store, config, forgotten)
        ada = people.from_unknown(store, named, "Ada")
        # The conductor has not heard of it, and goes on with both.
        for person in (5, 6):
            cell.sees(person, 1)
        note(cell, 11, named)
        note(cell, 12, forgotten)
        cell.keeper.close()
        assert people.unknown_people(store) == []
        assert people.sightings_of(store, unknown=forgotten) == []
        assert [seen.track for seen in people.sightings_of(store, ada.id)] == [11]


def note(cell: Cell, track: int, number: int) -> None:
    times = {"begin_at": time.time(), "end_at": time.time()}
    cell.keeper.write([Sighting(track=track, camera="cam0", person=None, unknown=number, **times)])


def test_strangers_that_are_not_written_down_yet_survive_a_look_at_the_store_and_deleted_ones_do_not() -> None:
    strangers = UnknownPeople(10)
    strangers.reserve([1, 2])
    old, new = strangers.see(face_of(1), 0.9, 100.0), strangers.see(face_of(2), 0.9, 101.0)
    assert old is not None and new is not None
    stored = Unknown(number=1, embedding=face_of(1), weight=1.0, first_at=100.0, last_at=100.0)
    strangers.load([stored])
    assert 1 in strangers and 2 in strangers
    strangers.load([])  # number 1 was named or forgotten; number 2 has never been in the store
    assert 1 not in strangers and 2 in strangers


def test_a_new_stranger_elsewhere_changes_no_name_here(config: Config) -> None:
    with Store(config.storage.place) as store:
        people.add(store, "Ada", [reference(1)])
    first, second = Cell(config, "first"), Cell(config, "second")
    try:
        before = second.recall.gallery
        number = first.sees(5)
        gone: list[frozenset[int] | None] = []

        def heard() -> bool:
            if (news := second.keeper.news()) is not None:
                gone.append(second.recall.install(news))
            return number in second.recall.unknown

        wait_until(heard, 10, "the other conductor hears of them")
        assert gone[-1] is None and second.recall.gallery is before
    finally:
        first.keeper.close()
        second.keeper.close()
