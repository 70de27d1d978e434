"""Episodes: when one opens, what keeps it open, whom it follows, and what closes it."""

from __future__ import annotations

import random

import pytest

from common.alert_store import AlertError
from common.alerts.episode import acknowledge, judge, restored, snooze
from common.alerts.register import Known
from common.alerts.rules import Rule
from tests.common.alerts.scripted import (
    ADA,
    BEGIN,
    BEN,
    HAPPY,
    PENDING,
    PEOPLE,
    SAD,
    STRANGER,
    WITHHELD,
    Script,
    camera_is,
    correction,
    face,
)

RULE = Rule(name="negative", min_duration_s=10, leave_s=5, pause_s=60, cooldown_s=30, escalate_after_s=20)
UNSEEN = Rule(name="unseen", about="unseen", min_duration_s=120, leave_s=2, pause_s=90, roles=("patient",))
OFFLINE = Rule(name="offline", about="offline", min_duration_s=30, leave_s=2, cooldown_s=0, escalate_after_s=None)


def test_one_episode_opens_when_it_has_lasted_and_closes_when_it_is_over() -> None:
    script = Script(RULE)
    assert script.play(9.8, face(SAD)) == []
    assert script.play(0.6, face(SAD)) == ["opened"]
    [opened] = script.happened
    assert opened.live.text == "Ada has looked sad for 0:10 – please check"
    assert opened.live.opened_at - opened.live.began_at == pytest.approx(10, abs=0.3)
    assert script.play(8, face(SAD)) == []
    assert script.play(4.6, face(HAPPY)) == []
    assert script.play(0.8, face(HAPPY)) == ["closed"]
    assert opened.live.closed_why == "no longer looks sad"


def test_an_hour_of_flicker_opens_nothing() -> None:
    script, dice = Script(RULE), random.Random(1)
    for _ in range(3600 * 10):
        script.now += 0.1
        # On average half of the time far above the threshold, in spells of a tenth to some tenths of a second.
        look = {"sad": 0.95} if dice.random() < 0.5 else {"happy": 0.9}
        script.desk.result(result_of(script.now, look), script.now)
        script.desk.tick(script.now)
    assert script.events() == []


def test_an_hour_just_below_the_threshold_opens_nothing() -> None:
    script, dice = Script(RULE), random.Random(2)
    for _ in range(3600 * 5):
        script.now += 0.2
        script.desk.result(result_of(script.now, {"sad": min(1.0, max(0.0, dice.gauss(0.5, 0.08)))}), script.now)
    assert script.events() == []


def result_of(at: float, look: dict[str, float]):  # type: ignore[no-untyped-def]
    from tests.common.alerts.scripted import result

    return result(at, face(look))


def test_what_is_summed_are_the_rules_expressions() -> None:
    script = Script(RULE)
    assert script.play(12, face({"sad": 0.35, "fearful": 0.35})) == ["opened"]
    assert script.happened[0].live.text.startswith("Ada has looked sad or fearful for")
    script = Script(RULE.model_copy(update={"expressions": ("sad",)}))
    assert script.play(60, face({"sad": 0.35, "fearful": 0.35})) == []


def test_time_that_cannot_be_assessed_pauses_it_and_is_said() -> None:
    script = Script(RULE)
    assert script.play(6, face(SAD)) == []
    assert script.play(8, face("turned")) == []  # neither counts …
    assert script.play(3, face(SAD)) == []
    assert script.play(2, face(SAD)) == ["opened"]  # … nor starts it anew
    live = script.happened[0].live
    assert live.unassessed_s == pytest.approx(8, abs=0.5)
    assert live.text == "Ada has looked sad for 0:10, and could not be assessed for 0:08 – please check"
    # Open, it stays open through a pause, and closes when the pause is too long: not because she looked neutral.
    assert script.play(15, face("dark")) == []
    assert script.play(2, face(SAD)) == []
    assert "closed" in script.play(61, face("dark"))
    assert live.closed_why == "not seen any more"


def test_an_unassessed_face_is_never_a_reason_to_open_or_calm_down() -> None:
    script = Script(RULE)
    assert script.play(300, face("turned")) == []
    assert script.play(300, face(None, pending=True)) == []


def test_what_had_only_begun_is_dropped_after_a_pause_as_long_as_the_rule() -> None:
    script = Script(RULE)
    script.play(8, face(SAD))
    script.wait(11)
    assert script.play(8, face(SAD)) == []
    assert script.play(3, face(SAD)) == ["opened"]


def test_it_escalates_when_nobody_answers_and_not_when_somebody_does() -> None:
    script = Script(RULE)
    script.play(10.6, face(SAD))
    assert script.play(21, face(SAD)) == ["escalated"]
    assert "nobody has answered" in script.happened[-1].live.text
    assert script.play(60, face(SAD)) == []
    script = Script(RULE)
    script.play(10.6, face(SAD))
    live = script.happened[0].live
    assert acknowledge(live, script.now, "Kim").event == "acknowledged"
    assert script.play(60, face(SAD)) == []
    with pytest.raises(AlertError, match="acknowledged already, by Kim"):
        acknowledge(live, script.now, "Lee")


def test_a_snooze_keeps_it_quiet_and_then_it_escalates() -> None:
    script = Script(RULE)
    script.play(10.6, face(SAD))
    snooze(script.happened[0].live, script.now, "Kim", 1)
    assert script.play(58, face(SAD)) == []
    assert script.play(4, face(SAD)) == ["escalated"]
    with pytest.raises(AlertError, match="at most 1440"):
        snooze(script.happened[0].live, script.now, "Kim", 0)
    acknowledge(script.happened[0].live, script.now, "Lee")
    with pytest.raises(AlertError, match="acknowledged, by Lee: it is quiet already"):
        snooze(script.happened[0].live, script.now, "Kim", 15)


def test_a_judgement_is_one_of_two_and_the_last_one_counts() -> None:
    script = Script(RULE)
    script.play(10.6, face(SAD))
    live = script.happened[0].live
    judge(live, script.now, "Kim", "useful")
    judge(live, script.now, "Lee", "false alarm")
    assert (live.judgement, live.judged_by) == ("false alarm", "Lee")
    with pytest.raises(AlertError, match="'useful' or 'false alarm'"):
        judge(live, script.now, "Kim", "nice")


def test_after_it_closed_the_next_one_waits_for_the_cool_down() -> None:
    script = Script(RULE)
    script.play(12, face(SAD))
    assert script.play(6, face(HAPPY)) == ["closed"]
    assert script.play(28, face(SAD)) == []
    assert script.play(3, face(SAD)) == ["opened"]


# --- whom it is about ---


def test_it_follows_a_person_over_tracks_and_cameras() -> None:
    script = Script(RULE, cameras=("ward", "door"))
    script.play(6, face(SAD, track=17))
    assert script.play(4.8, face(SAD, track=31), camera="door") == ["opened"]
    assert script.play(5, face(SAD, track=44)) == []
    assert script.happened[0].live.camera == "ward"


def test_a_rule_for_one_camera_counts_what_that_one_shows_whatever_another_shows() -> None:
    rule = RULE.model_copy(update={"cameras": ("ward",), "escalate_after_s": None})
    script = Script(rule, cameras=("ward", "door"))
    for _ in range(24):
        assert script.play(0.2, face(SAD, track=17)) + script.play(0.2, face(HAPPY, track=31), camera="door") == []
    assert script.play(0.8, face(SAD, track=17)) == ["opened"]
    assert script.play(15, face(HAPPY, track=31), camera="door") == []
    [live] = script.desk.open.values()
    assert (live.camera, live.looks) == ("ward", ["sad"])
    assert script.play(6, face(HAPPY, track=17)) == ["closed"]


def test_what_was_counted_before_it_was_known_that_a_rule_is_not_for_somebody_counts_no_more() -> None:
    script = Script(RULE.model_copy(update={"not_people": ("Ben",)}))
    script.play(8, face(SAD, STRANGER))
    script.play(1, face(SAD, BEN))
    assert script.play(8, face(SAD, STRANGER)) == []
    assert script.play(3, face(SAD, STRANGER)) == ["opened"]


def test_a_name_found_late_takes_the_episode_along() -> None:
    script = Script(RULE)
    assert script.play(11, face(SAD, PENDING)) == ["opened"]
    live = script.happened[0].live
    assert live.text.startswith("Somebody on ward has looked sad")
    assert script.play(2, face(SAD, STRANGER)) == []
    assert live.party.number == 12
    script.desk.correction(correction(17, STRANGER, ADA), script.now)
    assert script.play(2, face(SAD, ADA)) == []
    assert (live.party.person, live.party.name, live.party.number) == (3, "Ada", None)
    assert len(script.desk.open) == 1


def test_a_correction_moves_the_episode_to_whom_it_is_about() -> None:
    script = Script(RULE)
    script.play(11, face(SAD, BEN))
    script.desk.correction(correction(17, BEN, ADA), script.now)
    assert script.play(3, face(SAD, ADA)) == []
    assert script.happened[0].live.party.name == "Ada"


def test_a_correction_of_another_track_leaves_the_episode_alone() -> None:
    script = Script(RULE)
    script.play(11, face(SAD, ADA, 17), face(HAPPY, PENDING, 18))
    script.play(1, face(SAD, ADA, 17), face(HAPPY, ADA, 18))
    script.desk.correction(correction(18, ADA, BEN), script.now)
    script.play(1, face(SAD, ADA, 17), face(HAPPY, BEN, 18))
    assert [live.party.name for live in script.desk.open.values()] == ["Ada"]


def test_two_episodes_that_turn_out_to_be_one_persons_become_one() -> None:
    script = Script(RULE)
    assert script.play(11, face(SAD, ADA, 17), face(SAD, STRANGER, 18)) == ["opened", "opened"]
    script.desk.correction(correction(18, STRANGER, ADA), script.now)
    assert script.play(1, face(SAD, ADA, 17)) == ["closed"]
    assert script.happened[-1].why == "the same as episode 1"
    assert len(script.desk.open) == 1


@pytest.mark.parametrize(
    ("fields", "who", "opens"),
    [
        ({}, PENDING, True),
        ({"roles": ("patient",)}, ADA, True),
        ({"roles": ("patient",)}, BEN, False),
        ({"roles": ("patient",)}, STRANGER, False),
        ({"roles": ("patient",)}, PENDING, False),
        ({"people": ("ada",)}, ADA, True),
        ({"people": ("#3",)}, ADA, True),
        ({"people": ("ada",)}, BEN, False),
        ({"not_people": ("Ben",)}, BEN, False),
        ({"not_people": ("Ben",)}, ADA, True),
        ({"not_people": ("Ben",)}, STRANGER, True),
        ({"not_people": ("Ben",)}, PENDING, False),
        ({"who": "unknown"}, STRANGER, True),
        ({"who": "unknown"}, ADA, False),
        ({"who": "known"}, ADA, True),
        ({"who": "known"}, STRANGER, False),
        ({"cameras": ("door",)}, ADA, False),
    ],
)
def test_a_rule_is_for_whom_it_says(fields: dict[str, object], who: object, opens: bool) -> None:
    script = Script(Rule.model_validate(RULE.model_dump() | fields))
    assert script.play(15, face(SAD, who)) == (["opened"] if opens else [])  # type: ignore[arg-type]


def test_a_rule_for_patients_has_counted_while_it_was_not_known_who_it_was() -> None:
    script = Script(RULE.model_copy(update={"roles": ("patient",)}))
    assert script.play(15, face(SAD, PENDING)) == []
    assert script.play(0.4, face(SAD, ADA)) == ["opened"]


def test_of_somebody_without_consent_nothing_is_said_or_kept() -> None:
    script = Script(RULE)
    assert script.play(60, face(SAD, WITHHELD)) == []
    script.play(11, face(SAD, PENDING))
    [opened] = script.happened
    assert script.play(0.4, face(SAD, WITHHELD)) == ["closed"]
    assert script.happened[-1].erase
    assert (opened.live.party.person, opened.live.party.track, opened.live.text) == (None, None, "")


def test_consent_taken_back_and_forgetting_end_what_is_open_without_a_name() -> None:
    for people in ({3: Known(name="Ada", role="patient", withheld=True)}, {}):
        script = Script(RULE)
        script.play(11, face(SAD))
        script.desk.refresh(people, script.now)
        assert script.events() == ["closed"]
        assert script.happened[-1].erase
        assert "Ada" not in script.happened[-1].live.text
    withheld = Script(RULE, people={3: Known(name="Ada", role="patient", withheld=True)})
    assert withheld.play(30, face(SAD)) == []  # results that still name her


# --- presence and cameras ---


def test_a_patient_who_is_there_without_a_face_to_be_seen_is_an_alert() -> None:
    script = Script(UNSEEN)
    script.play(10, face(HAPPY))
    assert script.play(115, face("turned")) == []
    assert script.play(10, face("turned")) == ["opened"]
    assert script.happened[0].live.text == "Ada is there, but the face has not been seen for 2:00 – please check"
    assert script.play(1.5, face(HAPPY)) == []
    assert script.play(2, face(HAPPY)) == ["closed"]


def test_a_patient_who_has_left_is_none_unless_followed() -> None:
    script = Script(UNSEEN)
    script.play(10, face(HAPPY))
    assert script.play(600) == []
    script = Script(UNSEEN)
    script.play(10, face(HAPPY), selected=17)
    assert script.play(130, following=True) == ["opened"]
    assert "is followed and the face has not been seen" in script.happened[0].live.text


def test_whom_nobody_follows_any_more_has_left_also_when_that_was_said_while_out_of_view() -> None:
    script = Script(UNSEEN)
    script.play(10, face(HAPPY), selected=17)
    script.play(90, following=True)
    assert script.play(600) == []
    script = Script(UNSEEN)
    script.play(10, face(HAPPY), selected=17)
    assert script.play(130, following=True) == ["opened"]
    assert script.play(5) == ["closed"]
    assert script.happened[0].live.closed_why == "not seen any more"
    assert script.play(600) == []


def test_whoever_is_followed_and_has_left_for_good_is_told_until_somebody_has_seen_to_it() -> None:
    script = Script(UNSEEN)
    script.play(10, face(HAPPY), selected=17)
    assert script.play(130, following=True) == ["opened"]
    assert "closed" not in script.play(1000, following=True)
    acknowledge(script.happened[0].live, by="Eva", at=script.now)
    assert script.play(80, following=True) == []
    assert script.play(20, following=True) == ["closed"]
    assert script.play(1000, following=True) == []


def test_whose_face_is_found_now_and_then_has_not_left_when_somebody_has_seen_to_it() -> None:
    script = Script(UNSEEN.model_copy(update={"pause_s": 20, "cooldown_s": 0}))
    script.play(10, face(HAPPY))
    assert script.play(125, face("turned")) == ["opened"]
    acknowledge(script.happened[0].live, by="Eva", at=script.now)
    for _ in range(10):
        assert script.play(29) == [] and script.play(1, face("turned")) == []


def test_time_without_a_camera_does_not_count_as_unseen() -> None:
    script = Script(UNSEEN)
    script.play(10, face(HAPPY), selected=17)
    script.play(60, following=True)
    assert script.wait(600) == []


def test_time_in_which_the_camera_is_paused_does_not_count_as_unseen() -> None:
    script = Script(UNSEEN)
    script.play(10, face(HAPPY), selected=17)
    script.play(60, following=True)
    script.desk.camera(camera_is("online", script.now, paused=True), script.now)
    assert script.wait(600) == []
    script.desk.camera(camera_is("online", script.now), script.now)
    assert script.play(50, following=True) == []
    assert script.play(15, following=True) == ["opened"]


def test_staff_and_strangers_may_turn_away() -> None:
    script = Script(UNSEEN)
    assert script.play(600, face("turned", BEN), face("turned", STRANGER, 5)) == []


def test_a_camera_that_is_offline_is_an_alert_of_its_own() -> None:
    script = Script(OFFLINE)
    script.play(5, face(HAPPY))
    script.desk.camera(camera_is("offline", script.now), script.now)
    assert script.wait(28) == []
    assert script.wait(4) == ["opened"]
    assert script.happened[0].live.text == "Camera ward has shown nothing for 0:30 – please check"
    script.desk.camera(camera_is("online", script.now), script.now)
    assert script.play(5, face(HAPPY)) == ["closed"]


def test_a_camera_whose_results_stop_without_a_word_is_one_too_and_one_that_has_ended_is_not() -> None:
    script = Script(OFFLINE)
    script.play(5, face(HAPPY))
    assert script.wait(34) == ["opened"]
    script = Script(OFFLINE)
    script.play(5, face(HAPPY))
    script.desk.camera(camera_is("ended", script.now), script.now)
    assert script.wait(600) == []


def test_a_camera_that_somebody_has_paused_is_none_until_it_goes_on_and_shows_nothing() -> None:
    script = Script(OFFLINE)
    script.play(5, face(HAPPY))
    began = script.now
    for _ in range(600):
        script.desk.camera(camera_is("online", began, at=script.now, paused=True), script.now)
        assert script.wait(1) == []
    script.desk.camera(camera_is("online", began, at=script.now), script.now)
    assert script.wait(28) == []
    assert script.wait(4) == ["opened"]
    assert script.happened[0].live.text == "Camera ward has shown nothing for 0:30 – please check"
    script.desk.camera(camera_is("online", began, at=script.now, paused=True), script.now)
    assert script.wait(3) == ["closed"]
    assert script.happened[0].live.text == "Camera ward: paused, after 0:34"


def test_what_is_seen_of_a_quiet_room_is_enough_to_call_its_camera_well() -> None:
    script = Script(OFFLINE)
    script.play(5, face(HAPPY))
    assert script.wait(34) == ["opened"]
    looks = [script.play(0.2) + script.wait(2.0) for _ in range(100)]  # pipeline.still_look_ms at its longest
    assert [event for look in looks for event in look] == ["closed"]


@pytest.mark.parametrize("wrong_by_s", [-3600, 3600])
def test_how_long_a_camera_is_offline_does_not_depend_on_its_machines_clock(wrong_by_s: float) -> None:
    script = Script(OFFLINE)
    script.play(5, face(HAPPY))
    since = script.now + wrong_by_s
    for _ in range(28):
        script.desk.camera(camera_is("offline", since, at=script.now + wrong_by_s), script.now)
        assert script.wait(1) == []
    script.desk.camera(camera_is("offline", since, at=script.now + wrong_by_s), script.now)
    assert script.wait(4) == ["opened"]
    assert script.happened[0].live.text == "Camera ward has shown nothing for 0:30 – please check"


def test_a_camera_that_was_offline_before_anybody_listened_has_been_so_since_it_says() -> None:
    script = Script(OFFLINE)
    script.desk.camera(camera_is("offline", 1000.0, at=1100.0), script.now)
    assert script.wait(1) == ["opened"]
    assert script.happened[0].live.began_at == pytest.approx(BEGIN - 100)


def test_a_camera_that_is_only_starting_is_none() -> None:
    script = Script(OFFLINE)
    assert script.wait(85) == []
    assert script.wait(10) == ["opened"]
    script = Script(OFFLINE)
    for _ in range(58):  # it says so itself, from the first second on
        script.desk.camera(camera_is("offline", BEGIN, at=script.now), script.now)
        assert script.wait(1) == []
    script.desk.camera(camera_is("offline", BEGIN, at=script.now), script.now)
    assert script.wait(4) == ["opened"]


# --- restart, baseline ---


def test_after_a_restart_an_open_episode_goes_on_as_the_same_one() -> None:
    before = Script(RULE)
    before.play(11, face(SAD))
    live = before.happened[0].live
    row = live.columns() | {"id": 7, "name": "Ada", "snapshot": None}
    after = Script(RULE)
    after.desk.restore([restored(row, RULE, "patient")], [], BEGIN)
    assert after.play(31, face(SAD)) == ["escalated"]
    assert after.desk.find(7) is not None
    assert after.play(6, face(HAPPY)) == ["closed"]


def test_of_somebody_whose_consent_ended_meanwhile_nothing_is_said_after_a_restart() -> None:
    before = Script(RULE)
    before.play(11, face(SAD))
    row = before.happened[0].live.columns() | {"name": "Ada", "snapshot": None}
    after = Script(RULE, people={3: Known(name="Ada", role="patient", withheld=True)})
    after.desk.restore([restored(row | {"id": number}, RULE) for number in (7, 8)], [], BEGIN)
    assert after.events() == ["closed", "closed"]
    assert [(one.erase, one.live.party.name, one.live.text) for one in after.happened] == [(True, None, "")] * 2
    assert after.desk.open == {}


def test_time_without_a_face_is_told_while_it_lasts_and_also_that_of_a_restart() -> None:
    script = Script(RULE)
    script.play(12, face(SAD))
    [live] = script.desk.open.values()
    assert live.unassessed_s == 0
    script.play(15, face("turned"))
    assert live.unassessed_s == pytest.approx(15, abs=0.5)
    row = live.columns() | {"id": 7, "name": "Ada", "snapshot": None}
    after = Script(RULE)
    after.now = script.now + 30
    after.desk.restore([restored(row, RULE, "patient")], [], after.now)
    after.play(3, face(SAD))
    [live] = after.desk.open.values()
    assert live.unassessed_s == pytest.approx(45, abs=0.5)
    assert live.assessed_s == pytest.approx(15, abs=0.5)


def test_a_camera_that_is_still_offline_after_a_restart_is_the_same_episode() -> None:
    before = Script(OFFLINE)
    before.play(5, face(HAPPY))
    assert before.wait(35) == ["opened"]
    row = before.happened[0].live.columns() | {"id": 7, "name": None, "snapshot": None}
    after = Script(OFFLINE)
    after.desk.restore([restored(row, OFFLINE)], [], before.now)
    after.now = before.now
    assert after.wait(120) == []
    assert after.desk.find(7) is not None
    assert after.play(3, face(HAPPY)) == ["closed"]
    assert after.happened[0].live.text.startswith("Camera ward shows something again")


def test_the_cool_down_survives_a_restart() -> None:
    script = Script(RULE)
    script.desk.restore([], [("negative", ("person", 3), BEGIN - 5)], BEGIN)
    assert script.play(20, face(SAD)) == []
    assert script.play(10, face(SAD)) == ["opened"]


def test_the_cool_down_of_what_was_closed_while_the_store_was_away_is_kept() -> None:
    script = Script(RULE)
    assert script.play(11, face(SAD)) == ["opened"]
    assert script.play(8, face(HAPPY)) == ["closed"]
    script.desk.restore([], [("negative", ("person", 3), BEGIN - 5)], script.now)
    assert script.play(20, face(SAD)) == []


def test_a_rule_can_fire_on_change() -> None:
    rule = RULE.model_copy(update={"above_usual": 0.3})
    script = Script(rule)
    assert script.play(900, face({"sad": 0.02}), rate=2) == []  # she is usually cheerful …
    assert script.play(12, face({"sad": 0.4})) == ["opened"]  # … so that this is a change
    script = Script(RULE)
    assert script.play(30, face({"sad": 0.4})) == []


def test_constant_sadness_does_not_become_usual() -> None:
    rule = RULE.model_copy(update={"above_usual": 0.3, "cooldown_s": 0})
    script = Script(rule)
    assert "opened" in script.play(4 * 3600, face({"sad": 0.65}), rate=1)
    assert script.desk.usual[3].learned_s < 60  # what a rule counts is not learned
    assert len(script.desk.open) == 1
    # Somebody who always looks a little sad raises the threshold only so far.
    script = Script(rule)
    script.play(3600, face({"sad": 0.44}), rate=1)
    assert script.play(20, face({"sad": 0.7})) == ["opened"]


def test_people_that_are_merged_in_the_store_take_their_episode_along() -> None:
    script = Script(RULE)
    script.play(11, face(SAD, BEN))
    live = script.happened[0].live
    row = {"id": live.number, "person_id": 3, "unknown_id": None}
    script.desk.refresh({3: PEOPLE[3]}, script.now, [row])
    assert script.events() == []
    assert live.party.name == "Ada"
    assert script.play(2, face(SAD, ADA, 99)) == []
    assert len(script.desk.open) == 1


def test_what_counts_for_a_correction_is_the_episode_and_not_the_day_before_it() -> None:
    script = Script(RULE)
    script.play(600, face(HAPPY, ADA, 17))  # she really was here, all day
    script.play(11, face(SAD, ADA, 18))  # this is somebody else, taken for her
    assert [live.party.name for live in script.desk.open.values()] == ["Ada"]
    script.desk.correction(correction(18, ADA, STRANGER), script.now)
    script.play(1, face(SAD, STRANGER, 18))
    assert [live.party.number for live in script.desk.open.values()] == [12]


def test_what_the_store_has_not_heard_yet_is_not_undone_by_it() -> None:
    script = Script(RULE)
    script.play(11, face(SAD, STRANGER))
    live = script.happened[0].live
    live.stored = live.owner
    script.play(1, face(SAD, ADA))  # found out here, not written down yet
    script.desk.refresh(dict(PEOPLE), script.now, [{"id": live.number, "person_id": None, "unknown_id": 12}])
    assert live.party.person == 3
    assert script.play(20, face(SAD, ADA)) == ["escalated"]
    assert len(script.desk.open) == 1
