"""Enrolling, changing, merging, splitting, naming, moving and forgetting people; and what is refused."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import update

from common import exports, forgetting, jpeg, kept_recordings, people, retention, snapshots, strangers, transfer
from common.config import load
from common.encryption import Cipher, new_key
from common.keeper import Keeper
from common.people import PeopleError
from common.people_arguments import CONSENTS, ROLES
from common.place import Place
from common.recall import Enrolment, Event, Sighting, UnknownLook, Withheld
from common.rundir import RunDir
from common.schema import UNKNOWN
from common.settings import Config
from common.store import Store, StoreError, StoreUnavailable
from common.tables import create_table
from tests.conftest import wait_until
from tests.people import damage, face_of, reference


@pytest.fixture
def config(place: Place) -> Config:
    return load(overrides={"storage": {"data_dir": place.data_dir, "url": place.url}}, environment={})


@pytest.fixture
def store(config: Config) -> Store:
    with Store(config.storage.place) as made:
        yield made


CHIP = np.full((150, 150, 3), 120, np.uint8)
GREY = jpeg.encode(np.full((360, 640, 3), 120, np.uint8), 80)


def look(number: int, at: float = 1000.0, person: int = 7) -> UnknownLook:
    face = face_of(person, int(at) % 97)
    return UnknownLook(
        number=number, embedding=face, weight=1.0, first_at=at, last_at=at, looks=1, chip=CHIP, own=face, quality=0.8
    )


def written(config: Config, *events: object) -> None:
    kept = Keeper(config, "test")
    kept.open()
    kept.write(list(events))  # type: ignore[arg-type]
    kept.close()


def sighting(track: int, person: int | None = None, unknown: int | None = None, end_at: float = 1010.0) -> Sighting:
    return Sighting(track=track, camera="cam0", person=person, unknown=unknown, begin_at=1000.0, end_at=end_at)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("x" * 10_240, "at most 100"),
        ("Ada\nLovelace", "control"),
        ("Ada\x1b[31m", "control"),
        ("Ada\x00", "control"),
        ("\u202eadA", "control"),
    ],
)
def test_what_cannot_be_a_name_is_refused(store: Store, name: str, why: str) -> None:
    with pytest.raises(PeopleError, match=why):
        people.add(store, name, [reference(1)])
    assert people.everybody(store) == []
    assert store.generation() == 0


@pytest.mark.parametrize("name", ["Zoë", "李小龍", "O'Neil-Smith Jr.", "محمد", "Robert'); DROP TABLE person;--"])
def test_names_of_all_kinds_are_kept_as_they_are(store: Store, name: str) -> None:
    people.add(store, name, [reference(1)])
    assert people.find(store, name).name == name


@pytest.mark.parametrize("again", ["ada", "ADA", " Ada ", "\uff21da"])
def test_a_name_that_is_taken_is_refused_however_it_is_written(store: Store, again: str) -> None:
    people.add(store, "Ada", [reference(1)])
    with pytest.raises(PeopleError, match="enrolled already"):
        people.add(store, again, [reference(2)])
    assert len(people.everybody(store)) == 1


def test_numbers_are_never_used_twice(store: Store, config: Config) -> None:
    first = people.add(store, "Ada", [reference(1)]).id
    forgetting.forget(store, config, "Ada")
    assert people.add(store, "Ben", [reference(2)]).id > first


def test_the_best_references_are_kept(store: Store) -> None:
    people.add(store, "Ada", [reference(1, look, quality=look / 30) for look in range(30)])
    kept = people.references_of(store, "Ada")
    assert len(kept) == people.MAX_REFERENCES
    assert min(one.quality for _, one in kept) == pytest.approx(10 / 30)


def test_a_person_is_renamed_and_another_ones_name_is_refused(store: Store) -> None:
    people.add(store, "Ada", [reference(1)])
    people.add(store, "Ben", [reference(2)])
    assert people.change(store, "Ada", name="Ada L.", role="staff").role == "staff"
    with pytest.raises(PeopleError, match="somebody else"):
        people.change(store, "Ada L.", name="BEN")
    assert {person.name for person in people.everybody(store)} == {"Ada L.", "Ben"}
    for wrong in ({"role": "boss"}, {"consent": "maybe"}, {"notes": "x" * 20_000}):
        with pytest.raises(PeopleError):
            people.change(store, "Ben", **wrong)  # type: ignore[arg-type]


def test_two_become_one_and_one_becomes_two(store: Store, config: Config) -> None:
    ada, ben = people.add(store, "Ada", [reference(1)]), people.add(store, "Ben", [reference(2), reference(2, 1)])
    written(config, sighting(5, person=ben.id))
    merged = people.merge(store, "Ben", "Ada")
    assert (merged.id, merged.references) == (ada.id, 3)
    assert [seen.track for seen in people.sightings_of(store, ada.id)] == [5]
    numbers = [number for number, _ in people.references_of(store, "Ada")]
    with pytest.raises(PeopleError, match="some, but not all"):
        people.split(store, "Ada", "Ben", numbers)
    assert people.split(store, "Ada", "Ben", numbers[:2]).references == 2
    assert people.find(store, "Ada").references == 1


def test_nobody_is_merged_out_of_a_refusal(store: Store) -> None:
    people.add(store, "Ada", [reference(1)])
    people.add(store, "Ben", [reference(2)], consent="refused")
    with pytest.raises(PeopleError, match="refused"):
        people.merge(store, "Ben", "Ada")


def test_a_consent_that_has_run_out_gets_no_new_life_by_merging(store: Store) -> None:
    people.add(store, "Ada", [reference(1)])
    people.add(store, "Ben", [reference(2)], consent_until=time.time() - 1)
    with pytest.raises(PeopleError, match="'Ben': consent has run out"):
        people.merge(store, "Ben", "Ada")
    merged = people.merge(store, "Ada", "Ben")
    assert merged.withheld(time.time())
    people.add(store, "Cy", [reference(3)], consent="refused")
    assert people.merge(store, "Ben", "Cy").consent == "refused"


@pytest.mark.parametrize(("kept", "gone"), [(None, 50), (50, None), (70, 50), (50, 70)])
def test_of_two_who_become_one_the_earlier_end_of_consent_counts(
    store: Store, kept: int | None, gone: int | None
) -> None:
    now = time.time()
    for name, days in (("Ada", kept), ("Ben", gone)):
        end = None if days is None else now + days * 86400
        people.add(store, name, [reference(len(name))], consent_until=end)
    assert people.merge(store, "Ben", "Ada").consent_until == now + 50 * 86400


@pytest.mark.parametrize("until", [1e300, -1e300, -1.0, 253402318800.0, float("nan"), float("inf")])
def test_a_consent_cannot_end_beyond_the_calendar(store: Store, until: float) -> None:
    with pytest.raises(PeopleError, match="years 1970 to 9998"):
        people.add(store, "Ada", [reference(1)], consent_until=until)
    people.add(store, "Ada", [reference(1)])
    with pytest.raises(PeopleError, match="years 1970 to 9998"):
        people.change(store, "Ada", consent_until=until)
    assert people.find(store, "Ada").consent_until is None


def test_with_more_pictures_of_somebody_comes_what_is_said_of_them(store: Store, config: Config) -> None:
    people.add(store, "Ada", [reference(1)], role="staff", notes="left-handed", consent_until=5e9)
    more = people.add_references(store, "Ada", [reference(1, 1)])
    assert (more.role, more.notes, more.consent_until) == ("staff", "left-handed", 5e9)
    with pytest.raises(PeopleError, match="a role is"):
        people.add_references(store, "Ada", [reference(1, 2)], role="boss")
    written(config, look(4))
    named = people.from_unknown(store, 4, "Ada", again=True, alike=True, consent="refused", forever=True)
    assert (named.references, named.role, named.consent, named.consent_until) == (3, "staff", "refused", None)


def test_consent_is_judged_when_it_matters(store: Store) -> None:
    people.add(store, "Ada", [reference(1)], consent_until=1000.0)
    assert not people.gallery(store, at=999.0).members[0].withheld
    assert people.gallery(store, at=1000.0).members[0].withheld
    people.change(store, "Ada", forever=True)
    assert not people.gallery(store, at=1e12).members[0].withheld


def test_a_damaged_reference_takes_nobody_elses_name(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    people.add(store, "Ada", [reference(1)])
    damage(store, people.add(store, "Ben", [reference(2)]).id)
    assert [member.name for member in people.gallery(store).members] == ["Ada"]
    assert "references of #2 are damaged" in caplog.text


def test_an_unknown_person_is_named_with_crops_and_history(store: Store, config: Config) -> None:
    events = [look(4, 1000.0 + 3 * i) for i in range(8)]
    written(config, *events, sighting(11, unknown=4), sighting(12, unknown=4), sighting(13, unknown=5))
    [stranger] = people.unknown_people(store)
    assert (stranger.number, stranger.crops) == (4, strangers.CROPS)
    ada = people.from_unknown(store, 4, "Ada")
    assert ada.references == strangers.CROPS
    assert {seen.track for seen in people.sightings_of(store, ada.id)} == {11, 12}
    assert people.unknown_people(store) == []
    with pytest.raises(PeopleError, match="number 4"):
        people.from_unknown(store, 4, "Ben")


def test_a_name_that_is_taken_leaves_the_unknown_person(store: Store, config: Config) -> None:
    now = time.time()
    written(config, look(4, now), sighting(21, unknown=4, end_at=now))
    people.add(store, "Ada", [reference(1)])
    with pytest.raises(PeopleError, match="already"):
        people.from_unknown(store, 4, "Ada")
    assert len(people.unknown_people(store)) == 1
    # … unless it is said that they are one: a stranger may have two numbers.
    with pytest.raises(PeopleError, match="unknown person 4 is somebody else: --alike"):
        people.from_unknown(store, 4, "ada", again=True)
    assert len(people.unknown_people(store)) == 1
    ada = people.from_unknown(store, 4, "ada", again=True, alike=True)
    assert (ada.id, ada.name, ada.references) == (1, "Ada", 2)
    assert people.unknown_people(store) == [] and len(people.sightings_of(store, ada.id)) == 1


def test_what_is_noticed_of_somebody_who_was_just_forgotten_is_not_kept(store: Store, config: Config) -> None:
    ada = people.add(store, "Ada", [reference(1)])
    forgetting.forget(store, config, "Ada")
    written(config, sighting(5, person=ada.id), sighting(6, unknown=2))
    assert people.sightings_of(store, ada.id) == []
    assert [seen.track for seen in people.sightings_of(store, unknown=2)] == [6]


def test_late_names_reach_what_was_seen_before(store: Store, config: Config) -> None:
    ada = people.add(store, "Ada", [reference(1)])
    written(config, sighting(5, unknown=3, end_at=1005.0), sighting(5, person=ada.id, end_at=1012.0))
    [seen] = people.sightings_of(store, ada.id)
    assert (seen.begin_at, seen.end_at) == (1000.0, 1012.0)


def test_the_keeper_hands_over_what_changes_and_enrols(store: Store, config: Config) -> None:
    kept = Keeper(config, "test")
    first = kept.open()
    try:
        assert first.gallery.references == 0
        people.add(store, "Ada", [reference(1)])
        fresh = wait_until(kept.news, 5, "the keeper notices")
        assert [member.name for member in fresh.gallery.members] == ["Ada"]
        order = Enrolment(request="r", name="Ada", fields={}, looks=[(face_of(2), CHIP, 0.9)])
        kept.write([order])
        [(request, result, why)] = wait_until(kept.answers, 5, "an answer")
        assert (request, result) == ("r", {"there": "name"}) and why is not None and "already" in why
        kept.write([Enrolment(request="s", name="Ben", fields={"role": "staff"}, looks=order.looks)])
        [(_, result, why)] = wait_until(kept.answers, 5, "an answer")
        assert result["person"].startswith("#2 Ben") and why is None
        assert people.find(store, "Ben").role == "staff"
    finally:
        kept.close()


def enrolled(kept: Keeper, name: str, *faces: int, **order: Any) -> tuple[str | None, str | None]:
    """Have somebody in view enrolled; return who it is, or why not."""
    result, why = answered(kept, name, *faces, **order)
    return result.get("person"), why


def answered(kept: Keeper, name: str, *faces: int, **order: Any) -> tuple[dict[str, Any], str | None]:
    """The same with all that is answered."""
    looks = [(face_of(face, 10 + i), CHIP, 0.9) for i, face in enumerate(faces)]
    kept.write([Enrolment(request="r", name=name, looks=looks, **({"fields": {}} | order))])
    [(_, result, why)] = wait_until(kept.answers, 10, "an answer")
    return result, why


def test_nobody_in_view_is_enrolled_under_two_names_unawares(store: Store, config: Config) -> None:
    people.add(store, "Ada", [reference(1), reference(1, 1)])
    people.add(store, "Ben", [reference(2), reference(2, 1)], consent="refused")
    kept = Keeper(config, "test")
    kept.open()
    try:
        result, why = answered(kept, "Zoe", 1, 1, 3)
        assert result == {"there": "look", "other": "Ada"} and why is not None and "looks like 'Ada'" in why
        assert "--" not in why  # who asked knows how to ask once more
        result, why = answered(kept, "Zoe", 2, 2)
        assert result == {"there": "look", "other": None}
        assert why is not None and "somebody without consent" in why and "Ben" not in why
        person, why = enrolled(kept, "ADA", 2, 2, alike=True)
        assert person is None and why is not None and "enrolled already" in why
        person, why = enrolled(kept, "Yan", 2, 2, alike=True)
        assert person is not None and "Yan" in person and why is None
        person, why = enrolled(kept, "Zoe", 1, 1, again=True)
        assert person is not None and "Zoe" in person and why is None
        person, why = enrolled(kept, "ada", 1, again=True)  # by now it looks like Zoe as well
        assert person is None and why is not None and "'Zoe'" in why
        person, why = enrolled(kept, "ada", 1, again=True, alike=True)
        assert person is not None and "#1 Ada" in person and people.find(store, "Ada").references == 3
    finally:
        kept.close()


@pytest.mark.parametrize(
    "fields", [{"consent_until": "soon"}, {"notes": 5}, {"role": 5}, {"consent": True}], ids=lambda one: str(*one)
)
def test_an_order_that_makes_no_sense_is_answered(store: Store, config: Config, fields: dict[str, object]) -> None:
    kept = Keeper(config, "test")
    kept.open()
    try:
        person, why = enrolled(kept, "Ada", 1, fields=fields)
        assert person is None and why is not None and str(*fields.values()) in why
        assert people.everybody(store) == []
    finally:
        kept.close()


def test_a_stranger_who_is_enrolled_in_view_keeps_what_they_were_seen_doing(store: Store, config: Config) -> None:
    ben = people.add(store, "Ben", [reference(2)])
    now = time.time()
    seen = [sighting(track, unknown=5 if track == 13 else 4, end_at=now) for track in (11, 12, 13, 14)]
    written(config, look(4, now), *seen)
    written(config, sighting(14, person=ben.id, end_at=now))  # that was somebody else after all
    kept = Keeper(config, "test")
    kept.open()
    enrolled(kept, "Ada", 7, 7, number=4)
    kept.close()
    assert {seen.track for seen in people.sightings_of(store, people.find(store, "Ada").id)} == {11, 12}
    assert [seen.track for seen in people.sightings_of(store, ben.id)] == [14]
    assert people.unknown_people(store) == []


@pytest.fixture
def impatient(config: Config, monkeypatch: pytest.MonkeyPatch) -> Keeper:
    """A keeper that soon gives up on a store that somebody else is writing to."""
    monkeypatch.setattr("common.backend.BUSY_MS", 50)
    keeper = Keeper(config, "test")
    keeper.open()
    return keeper


def test_a_stranger_whose_row_is_damaged_takes_nobody_elses_name(
    store: Store, config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    now = time.time()
    written(config, look(4, now), look(5, now))
    people.add(store, "Ada", [reference(1)])
    with store.write() as connection:
        connection.execute(update(UNKNOWN).where(UNKNOWN.c.id == 4).values(embedding=b"damaged"))
        store.changed(connection)
    kept = Keeper(config, "test")
    first = kept.open()
    kept.close()
    assert [member.name for member in first.gallery.members] == ["Ada"]
    assert first.unknown is not None and [person.number for person in first.unknown] == [5]
    assert "unknown 4 is damaged" in caplog.text


def test_what_could_not_be_read_once_is_read_again(
    store: Store, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Keeper(config, "test")
    kept.open()
    real, failed = strangers.load, threading.Event()

    def fails_once(*given: Any) -> Any:
        if failed.is_set():
            return real(*given)
        failed.set()
        raise StoreUnavailable("the server went away")

    monkeypatch.setattr(strangers, "load", fails_once)
    try:
        people.add(store, "Ada", [reference(1)])
        wait_until(lambda: (news := kept.news()) is not None and news.gallery.members, 20, "it reads again")
        assert failed.is_set()
    finally:
        kept.close()


def test_an_enrolment_that_was_refused_is_not_made_up_for_later(store: Store, impatient: Keeper) -> None:
    with store.write() as connection:
        store.changed(connection)
        impatient.write([sighting(9, unknown=1)])
        person, why = enrolled(impatient, "Ada", 1)
        assert person is None and why is not None
    wait_until(lambda: people.sightings_of(store, unknown=1), 5, "the sighting is written after all")
    impatient.close()
    assert people.everybody(store) == [] and impatient.answers() == []


def test_a_keeper_that_cannot_write_keeps_what_it_has(store: Store, impatient: Keeper) -> None:
    with store.write() as connection:
        store.changed(connection)
        impatient.write([sighting(9, unknown=1)])
        wait_until(lambda: impatient._complained > 0, 5, "it says that it cannot write")
    wait_until(lambda: people.sightings_of(store, unknown=1), 5, "it is written after all")
    impatient.close()


def test_a_consent_ends_also_while_nothing_can_be_written(store: Store, impatient: Keeper) -> None:
    people.add(store, "Ada", [reference(1)], consent_until=time.time() + 3)
    impatient.hint()
    newest: list[bool] = []

    def withheld() -> bool:
        impatient.write([sighting(9, unknown=1)])  # somebody in view: there is always something to be written
        if (news := impatient.news()) is not None and news.gallery.members:
            newest.append(news.gallery.members[0].withheld)
        return bool(newest) and newest[-1]

    wait_until(lambda: withheld() or newest == [False], 5, "her consent is known")
    with store.write() as connection:
        store.changed(connection)
        wait_until(withheld, 10, "her consent has ended")
    impatient.close()
    assert newest[0] is False


def test_what_was_kept_under_anothers_name_goes_and_what_was_kept_with_consent_stays(
    store: Store, config: Config
) -> None:
    ada, ben = (people.add(store, name, [reference(n)]).id for n, name in enumerate(("Ada", "Ben"), 1))
    now = time.time()
    written(config, *(sighting(track, person=who, end_at=now) for track, who in ((8, ada), (9, ada), (10, ben))))
    away = [Withheld(track=track, person=ben, number=None, since=0.0) for track in (9, 10)]
    written(config, *away)
    assert len(people.sightings_of(store, person=ada)) == 1  # of the track that was hers
    assert len(people.sightings_of(store, person=ben)) == 1


def test_what_waits_for_the_disk_stays_small(impatient: Keeper) -> None:
    waiting: list[Event] = [look(number) for number in range(1000)]
    impatient._bound(waiting)
    kept = [event.number for event in waiting if isinstance(event, UnknownLook) and event.chip is not None]
    assert kept == list(range(800, 1000))
    assert len(waiting) == 1000
    impatient.close()


def test_what_is_too_old_is_swept(store: Store, config: Config) -> None:
    now = time.time()
    day = 86400.0
    written(
        config,
        look(1, now - 40 * day), look(2, now - 10 * day), look(3, now - day),
        sighting(1, unknown=1, end_at=now - 100 * day), sighting(2, unknown=2, end_at=now),
    )  # fmt: skip
    retention.sweep(store, config)
    left = {stranger.number: stranger.crops for stranger in people.unknown_people(store)}
    assert left == {2: 0, 3: 1}
    assert people.sightings_of(store, unknown=1) == [] and people.sightings_of(store, unknown=2)


def test_forgetting_reaches_snapshots_exports_and_the_audit_log(store: Store, config: Config) -> None:
    ada = people.add(store, "Ada", [reference(1)])
    people.add(store, "Ben", [reference(2)])
    folder = snapshots.folder(config)
    her = {"person": ada.id, "name": "Ada", "status": "known"}
    him = {"person": 2, "name": "Ben", "status": "known"}
    snapshot_of(config, "hers", her)
    snapshot_of(config, "both", her, him)
    snapshot_of(config, "his", him)
    export = transfer.default_path(config.storage.data_dir)
    transfer.write(store, export)
    done = forgetting.forget(store, config, "ada")
    assert (done.references, done.snapshots, done.redacted, done.exports) == (1, 1, 1, 1)
    assert sorted(path.name for path in folder.iterdir()) == [
        "both.jpg", "both.json", "his.annotated.jpg", "his.jpg", "his.json",
    ]  # fmt: skip
    assert "Ada" not in (folder / "both.json").read_text()
    assert (folder / "both.jpg").read_bytes() != GREY  # her face is blurred
    assert (folder / "his.jpg").read_bytes() == GREY
    assert [entry["name"] for entry in transfer.read_entries(store.cipher, export)] == ["Ben"]
    assert not any("Ada" in line.about for line in people.audit_log(store))
    assert people.audit_log(store)[-1].did == "forgot"
    with pytest.raises(PeopleError, match="nobody called"):
        forgetting.forget(store, config, "ada")


def snapshot_of(config: Config, name: str, *identities: dict[str, object]) -> None:
    folder = snapshots.folder(config)
    folder.mkdir(parents=True, exist_ok=True)
    faces = [{"box": [20.0 + 120 * at, 20.0, 60.0, 80.0], "identity": one} for at, one in enumerate(identities)]
    (folder / f"{name}.json").write_text(json.dumps({"width": 640, "height": 360, "faces": faces}))
    for suffix in (snapshots.PICTURE, snapshots.ANNOTATED):
        (folder / f"{name}{suffix}").write_bytes(GREY)


def history_export(config: Config, name: str, *rows: dict[str, object]) -> Path:
    path = config.storage.data_dir / transfer.FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    table = create_table(path, exports.COLUMNS)
    table.write([dict.fromkeys(exports.COLUMNS) | row for row in rows])
    table.close()
    return path


def test_forgetting_reaches_what_was_kept_under_earlier_names_and_numbers(store: Store, config: Config) -> None:
    written(config, look(4))
    annie = people.from_unknown(store, 4, "Annie")
    twice = people.add(store, "Miss L", [reference(3)])
    first = transfer.default_path(config.storage.data_dir).with_name("first.mien")
    transfer.write(store, first)
    people.change(store, "Annie", name="Ada")
    people.change(store, "Ada", name="Ada Lovelace")
    people.merge(store, "Miss L", "Ada Lovelace")
    people.add(store, "Annie", [reference(5)])  # somebody else, who is to be left alone
    second = first.with_name("second.mien")
    transfer.write(store, second)
    snapshot_of(config, "stranger", {"status": "unknown", "number": 4})
    snapshot_of(config, "merged", {"status": "known", "person": twice.id, "name": "Miss L"})
    snapshot_of(config, "another", {"status": "unknown", "number": 5})
    table = history_export(config, "week.csv", {"at": 1, "unknown": 4}, {"at": 2, "person": twice.id}, {"at": 3})
    done = forgetting.forget(store, config, "Ada Lovelace")
    assert (done.snapshots, done.exports) == (2, 3)
    assert {path.name.split(".")[0] for path in snapshots.folder(config).iterdir()} == {"another"}
    assert [row.split(",")[1] for row in table.read_text().split()[1:]] == ["3"]
    assert transfer.read_entries(store.cipher, first) == []
    assert [entry["name"] for entry in transfer.read_entries(store.cipher, second)] == ["Annie"]
    about = [line.about for line in people.audit_log(store)]
    assert not any(name in line for line in about for name in ("Ada", "Lovelace", "Miss L", f"#{annie.id} Annie"))
    assert store.setting(f"earlier.{annie.id}") is None


def test_whoever_is_split_off_again_takes_back_what_they_were(store: Store, config: Config) -> None:
    written(config, look(4))
    bob = people.from_unknown(store, 4, "Bob")
    cy, dan = people.add(store, "Cy", [reference(2)]), people.add(store, "Dan", [reference(3)])
    written(config, sighting(11, person=bob.id, unknown=6), sighting(12, person=cy.id))
    people.merge(store, "Dan", "Cy")
    people.merge(store, "Bob", "Cy")
    theirs = {"bob": bob.id, "cy": cy.id, "dan": dan.id}
    for name, person in theirs.items():
        snapshot_of(config, name, {"status": "known", "person": person, "name": name})
    for number in (4, 6):
        snapshot_of(config, f"stranger{number}", {"status": "unknown", "number": number})
    [his] = [n for n, one in people.references_of(store, "Cy") if one.source == "unknown person 4"]
    again = people.split(store, "Cy", "Bob", [his])
    assert [seen.track for seen in people.sightings_of(store, again.id)] == [11]
    assert forgetting.forget(store, config, "Cy").snapshots == 2
    assert {path.name.split(".")[0] for path in snapshots.folder(config).iterdir()} == {"bob", "stranger4", "stranger6"}
    assert forgetting.forget(store, config, "Bob").snapshots == 3
    assert not any(name in line.about for line in people.audit_log(store) for name in ("Bob", "Cy", "Dan"))
    assert [store.setting(f"earlier.{number}") for number in range(1, again.id + 1)] == [None] * again.id


def test_somebody_is_merged_and_split_off_through_others_and_back(store: Store, config: Config) -> None:
    ada, ben, cy = (people.add(store, name, [reference(n)]).id for n, name in enumerate(("Ada", "Ben", "Cy")))
    people.merge(store, "Ada", "Ben")
    people.merge(store, "Ben", "Cy")
    numbers = [number for number, _ in people.references_of(store, "Cy")]
    for name, person in (("ada", ada), ("ben", ben), ("cy", cy)):
        snapshot_of(config, name, {"status": "known", "person": person, "name": name})
    once = people.split(store, "Cy", "ADA", numbers[:1])
    people.merge(store, "Ada", "Cy")
    twice = people.split(store, "Cy", "Ada", numbers[:1])
    snapshot_of(config, "once", {"status": "known", "person": once.id, "name": "ADA"})
    assert forgetting.forget(store, config, f"#{twice.id}").snapshots == 2
    assert {path.name.split(".")[0] for path in snapshots.folder(config).iterdir()} == {"ben", "cy"}
    assert forgetting.forget(store, config, "Cy").snapshots == 2


def test_somebody_split_off_under_a_new_name_takes_nothing_that_may_be_anothers(store: Store, config: Config) -> None:
    people.add(store, "Cy", [reference(2), reference(2, 1)])
    ben = people.add(store, "Ben", [reference(1)])
    people.merge(store, "Ben", "Cy")
    snapshot_of(config, "ben", {"status": "known", "person": ben.id, "name": "Ben"})
    people.split(store, "Cy", "Zoe", [people.references_of(store, "Cy")[0][0]])
    assert forgetting.forget(store, config, "Zoe").snapshots == 0
    assert forgetting.forget(store, config, "Cy").snapshots == 1


Hers = dict[str, object]


@pytest.fixture
def hers(store: Store, config: Config) -> Hers:
    """Ada, whose name a snapshot says."""
    ada = people.add(store, "Ada", [reference(1)])
    return {"status": "known", "person": ada.id, "name": "Ada"}


def after(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, happens: Callable[[], object]) -> None:
    """Have something happen once, just after a function has done its work."""
    real = getattr(owner, name)

    def function(*args: Any, **kwargs: Any) -> Any:
        done = real(*args, **kwargs)
        monkeypatch.setattr(owner, name, real)
        happens()
        return done

    monkeypatch.setattr(owner, name, function)


@pytest.mark.parametrize("moment", ["recordings", "scrub"])
def test_a_snapshot_that_is_taken_during_forgetting_goes_too(
    store: Store, config: Config, hers: Hers, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def taken() -> None:
        snapshot_of(config, "hers", hers)
        snapshot_of(config, "both", hers, {"status": "unknown", "number": 5})

    owner, name = (kept_recordings, "forget") if moment == "recordings" else (store, "scrub")
    after(monkeypatch, owner, name, taken)
    done = forgetting.forget(store, config, "Ada")
    assert (done.snapshots, done.redacted) == (1, 1)
    assert sorted(path.name for path in snapshots.folder(config).iterdir()) == ["both.jpg", "both.json"]
    assert "Ada" not in (snapshots.folder(config) / "both.json").read_text()


def test_a_snapshot_of_a_stranger_that_is_taken_during_forgetting_goes_too(
    store: Store, config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(config, look(4))
    after(monkeypatch, store, "scrub", lambda: snapshot_of(config, "theirs", {"status": "unknown", "number": 4}))
    forgetting.forget_unknown(store, config, 4)
    assert list(snapshots.folder(config).iterdir()) == []


def test_what_a_running_mien_writes_before_it_has_noticed_is_waited_for(
    store: Store, config: Config, hers: Hers, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forgetting, "NOTICED_S", 60.0)  # the run ends before
    running = config.model_copy(update={"run_dir": tmp_path / "run"})
    with ThreadPoolExecutor(1) as pool:
        with RunDir(running):
            waiting = pool.submit(forgetting.forget, store, running, "Ada")
            with Store(config.storage.place) as other:
                wait_until(lambda: not people.everybody(other), 30, "she is out of the store")
            snapshot_of(config, "hers", hers)
            export = history_export(config, "week.csv", {"at": 1, "person": hers["person"]}, {"at": 2})
            assert not waiting.done()
        done = waiting.result(60)
    assert (done.snapshots, done.exports) == (1, 1)
    assert list(snapshots.folder(config).iterdir()) == []
    assert len(export.read_text().split()) == 2


def test_a_late_file_that_cannot_be_cleaned_is_told_of(
    store: Store, config: Config, hers: Hers, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = transfer.default_path(config.storage.data_dir)
    after(monkeypatch, store, "scrub", lambda: transfer.write_entries(Cipher(new_key()), path, []))
    with pytest.raises(PeopleError, match=r"has forgotten them, but .* by hand: .*\.mien"):
        forgetting.forget(store, config, "Ada")
    assert people.everybody(store) == []


def test_a_stranger_is_forgotten_in_snapshots_and_exports(store: Store, config: Config) -> None:
    written(config, look(4))
    snapshot_of(config, "alone", {"status": "unknown", "number": 4})
    snapshot_of(config, "both", {"status": "unknown", "number": 4}, {"status": "unknown", "number": 5})
    table = history_export(config, "week.jsonl", {"at": 1, "unknown": 4}, {"at": 2, "unknown": 5})
    forgetting.forget_unknown(store, config, 4)
    kept = sorted(path.name for path in snapshots.folder(config).iterdir())
    assert kept == ["both.jpg", "both.json"]
    assert '"number": 4' not in (snapshots.folder(config) / "both.json").read_text()
    assert [json.loads(line)["unknown"] for line in table.read_text().splitlines()] == [5]


def test_a_snapshot_older_than_the_name_is_known_by_its_track(store: Store, config: Config) -> None:
    ada = people.add(store, "Ada", [reference(1)])
    written(config, sighting(17, person=ada.id))
    nobody = {"status": "pending", "person": None, "number": None}
    for name, track in (("hers", 17), ("another", 18)):
        snapshot_of(config, name, nobody)
        told = snapshots.folder(config) / f"{name}.json"
        told.write_text(json.dumps({"faces": [{"track": track, "identity": nobody}]}))
    assert forgetting.forget(store, config, "Ada").snapshots == 1
    assert {path.name.split(".")[0] for path in snapshots.folder(config).iterdir()} == {"another"}


REFUSED: Hers = {"status": "unknown", "person": None, "number": None, "withheld": True}


def test_snapshots_of_a_time_without_consent_go_with_whoever_may_be_on_them(
    store: Store, config: Config, hers: Hers
) -> None:
    written(config, look(4))
    people.change(store, "Ada", consent="refused")
    snapshot_of(config, "refused", REFUSED)
    snapshot_of(config, "before", hers, REFUSED)
    snapshot_of(config, "others", REFUSED, {"status": "unknown", "number": 5})
    folder = snapshots.folder(config)
    forgetting.forget_unknown(store, config, 4)  # a stranger was never asked for consent: it is none of theirs
    assert len(list(folder.iterdir())) == 9
    done = forgetting.forget(store, config, "Ada")
    assert (done.snapshots, done.redacted) == (2, 1)
    assert sorted(path.name for path in folder.iterdir()) == ["others.jpg", "others.json"]
    assert [face["identity"]["number"] for face in json.loads((folder / "others.json").read_text())["faces"]] == [5]


def test_of_a_snapshot_with_others_a_face_is_taken_out_once(store: Store, config: Config, hers: Hers) -> None:
    written(config, sighting(17, person=int(str(hers["person"]))))
    snapshot_of(config, "both", hers, {"status": "unknown", "number": 5})
    told = snapshots.folder(config) / "both.json"
    result = json.loads(told.read_text())
    result["faces"][0]["track"] = 17
    told.write_text(json.dumps(result))
    assert forgetting.forget(store, config, "Ada").redacted == 1


def test_what_a_killed_process_left_unfinished_goes_with_the_next_who_is_forgotten(
    store: Store, config: Config
) -> None:
    people.add(store, "Ada", [reference(1)])
    exported, kept = config.storage.data_dir / transfer.FOLDER, snapshots.folder(config)
    old = [
        exported / ".people.mien.99.part",
        exported / "week.part.jsonl",
        kept / "cam1.annotated.jpg.0123abcd.part",
        kept / "cam1.json.part",
    ]
    fresh = kept / "cam0.jpg.0123abcd.part"  # it may be a snapshot that is being taken
    others = kept / "debian.iso.part"  # the folder may be somebody's downloads
    for path in (*old, fresh, others):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"whom it shows nobody knows")
    for path in (*old, others):
        os.utime(path, (time.time() - 600,) * 2)
    forgetting.forget(store, config, "Ada")
    assert [path for path in old if path.exists()] == []
    assert fresh.exists() and others.exists()


def test_an_export_that_cannot_be_read_is_in_the_way_of_forgetting(store: Store, config: Config) -> None:
    people.add(store, "Ada", [reference(1)])
    path = transfer.default_path(config.storage.data_dir)
    transfer.write_entries(Cipher(new_key()), path, [])
    with pytest.raises(PeopleError, match=r"not all was forgotten.*Move or delete it"):
        forgetting.forget(store, config, "Ada")
    path.unlink()
    forgetting.forget(store, config, "Ada")


def test_an_export_comes_back_the_same_in_another_store(store: Store, tmp_path: Path) -> None:
    people.add(store, "Ada", [reference(1), reference(1, 1)], role="staff", notes="left-handed", consent="refused")
    path = tmp_path / "people.mien"
    assert transfer.write(store, path) == 1
    assert reference(1).embedding.tobytes()[:12] not in path.read_bytes() and b"Ada" not in path.read_bytes()
    key = (store.place.data_dir / "mien.key").read_text()
    with Store(tmp_path / "other") as other:
        with pytest.raises(PeopleError, match="cannot be opened with this key"):
            transfer.read(other, path)
        report = transfer.read(other, path, key=key)
        assert report.added == 1
        back = people.find(other, "Ada")
        assert (back.role, back.notes, back.consent, back.references) == ("staff", "left-handed", "refused", 2)
        assert transfer.read(other, path, key=key).left_out == ["Ada"]


def test_imports_that_cannot_be_read_change_nothing(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "people.mien"
    transfer.write(store, path)
    good = path.read_bytes()
    cases = {
        "newer Mien": good.replace(b"\n1\n", b"\n2\n", 1),
        "no export": b"PK something else",
        "cannot be opened": good[:-3],
    }
    for why, content in cases.items():
        path.write_bytes(content)
        with pytest.raises(PeopleError, match=why):
            transfer.read(store, path)
    with pytest.raises(PeopleError, match="cannot be read"):
        transfer.read(store, tmp_path / "nowhere.mien")
    transfer.write_entries(store.cipher, path, [{"name": "Ada"}])
    with pytest.raises(PeopleError, match="damaged"):
        transfer.read(store, path)
    assert people.everybody(store) == []


def test_a_store_without_its_key_stops_the_keeper_with_a_reason(config: Config) -> None:
    Store(config.storage.place).close()
    (config.storage.data_dir / "mien.key").unlink()
    with pytest.raises(StoreError, match="key file"):
        Keeper(config, "test").open()


def test_the_command_line_knows_the_same_roles() -> None:
    assert people.Role.__args__ == ROLES and people.Consent.__args__ == CONSENTS  # type: ignore[attr-defined]
