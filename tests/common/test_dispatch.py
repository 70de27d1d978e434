"""Who gets which job: newest first for the camera that waited longest, nothing given twice, nothing kept is lost."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from common.dispatch import MOST_STRANGERS, Dispatcher, Job


def a_job(job_id: int, camera: str = "cam0", **options: object) -> Job[str]:
    return Job(id=job_id, pool="detection", camera=camera, payload=f"{camera}#{job_id}", **options)  # type: ignore[arg-type]


def a_dispatcher(*workers: str) -> Dispatcher[str]:
    dispatcher: Dispatcher[str] = Dispatcher(timeout_s=1.0)
    for worker in workers:
        dispatcher.subscribed(worker)
        dispatcher.ready(worker, "detection", -1, 0.0)
    return dispatcher


def given_ids(dispatcher: Dispatcher[str], now: float = 0.0) -> list[tuple[str, int]]:
    return [(worker, job.id) for worker, job in dispatcher.assign(now)]


def test_only_the_newest_frame_of_a_camera_waits_and_the_others_are_counted() -> None:
    dispatcher = a_dispatcher()
    assert dispatcher.put(a_job(1, newest_only=True)) == []
    assert [job.id for job in dispatcher.put(a_job(2, newest_only=True))] == [1]
    assert dispatcher.waiting("detection") == 1


def test_a_job_goes_only_to_a_worker_that_asked_and_whose_subscription_is_seen() -> None:
    dispatcher = a_dispatcher()
    dispatcher.put(a_job(1))
    dispatcher.ready("w", "detection", -1, 0.0)
    assert given_ids(dispatcher) == []  # a job published now would reach nobody
    dispatcher.subscribed("w")
    assert given_ids(dispatcher) == [("w", 1)]
    dispatcher.put(a_job(2))
    assert given_ids(dispatcher) == []  # it has not asked again
    assert dispatcher.done("w", 1) is not None
    assert given_ids(dispatcher) == [("w", 2)]


def test_the_camera_that_was_served_longest_ago_comes_first() -> None:
    dispatcher = a_dispatcher("w")
    served = []
    for turn in range(6):
        for number, camera in enumerate(("a", "b", "c")):
            dispatcher.put(a_job(10 * turn + number, camera, newest_only=True))
        [(worker, job)] = dispatcher.assign(float(turn))
        served.append(job.camera)
        dispatcher.done(worker, job.id)
    assert served == ["a", "b", "c", "a", "b", "c"]


def test_a_kept_job_of_a_worker_that_vanished_is_given_to_another_before_all_others() -> None:
    dispatcher = a_dispatcher("first")
    dispatcher.put(a_job(1, keep=True))
    dispatcher.put(a_job(2, keep=True))
    assert given_ids(dispatcher) == [("first", 1)]
    assert dispatcher.gone("first") == []
    dispatcher.subscribed("second")
    dispatcher.ready("second", "detection", -1, 1.0)
    assert given_ids(dispatcher, 1.0) == [("second", 1)]
    assert dispatcher.done("first", 1) is None  # its late answer is not wanted any more


def test_a_job_that_need_not_be_kept_is_reported_lost() -> None:
    dispatcher = a_dispatcher("w")
    dispatcher.put(a_job(1))
    dispatcher.assign(0.0)
    assert [job.id for job in dispatcher.gone("w")] == [1]
    assert dispatcher.waiting("detection") == 0


def test_a_silent_worker_loses_its_job_and_gets_nothing_until_it_speaks() -> None:
    dispatcher = a_dispatcher("w")
    dispatcher.put(a_job(1, keep=True))
    dispatcher.assign(0.0)
    assert dispatcher.sweep(0.9) == []
    assert dispatcher.sweep(1.1) == []  # kept: it waits again
    assert given_ids(dispatcher, 1.1) == []
    assert dispatcher.ready("w", "detection", 1, 1.2) == []  # its answer did not get through
    assert given_ids(dispatcher, 1.2) == [("w", 1)]


def test_a_late_answer_settles_a_kept_job_that_waits_again() -> None:
    dispatcher = a_dispatcher("w")
    job = a_job(1, keep=True)
    dispatcher.put(job)
    dispatcher.assign(0.0)
    assert dispatcher.sweep(1.1) == [] and dispatcher.waiting("detection") == 1
    assert dispatcher.done("w", 1, 1.2) is job
    assert dispatcher.done("w", 1, 1.2) is None
    assert given_ids(dispatcher, 1.3) == []


def test_of_two_workers_that_have_the_same_kept_job_the_quicker_one_settles_it() -> None:
    dispatcher = a_dispatcher("slow", "other")
    job = a_job(1, keep=True)
    dispatcher.put(job)
    assert given_ids(dispatcher, 0.0) == [("slow", 1)]
    dispatcher.sweep(1.1)
    assert given_ids(dispatcher, 1.1) == [("other", 1)]
    assert dispatcher.done("slow", 1, 1.2) is job
    assert dispatcher.done("other", 1, 1.3) is None
    assert dispatcher.sweep(9.0) == [] and dispatcher.waiting("detection") == 0


def test_a_kept_job_is_given_up_for_workers_that_it_kills_but_never_for_slow_ones() -> None:
    dispatcher = a_dispatcher("w")
    dispatcher.put(a_job(1, keep=True))
    for turn in range(20):
        assert given_ids(dispatcher, 30.0 * turn) == [("w", 1)]
        assert dispatcher.sweep(30.0 * turn + 29) == []
        dispatcher.ready("w", "detection", 1, 30.0 * turn + 29)
    for turn in range(2):  # whoever hangs over it is killed in the end
        assert len(given_ids(dispatcher, 900.0 + 30 * turn)) == 1
        assert dispatcher.sweep(929.0 + 30 * turn) == []
        assert dispatcher.gone("w" if not turn else f"w{turn}") == []
        dispatcher.subscribed(f"w{turn + 1}")
        dispatcher.ready(f"w{turn + 1}", "detection", -1, 929.0 + 30 * turn)
    assert given_ids(dispatcher, 990.0) == [("w2", 1)]
    assert [job.id for job in dispatcher.gone("w2")] == [1]


def test_a_kept_job_at_which_a_slow_worker_always_fails_is_given_up() -> None:
    dispatcher = a_dispatcher("w")
    job = a_job(1, keep=True)
    dispatcher.put(job)
    given_up = []
    for turn in range(3):
        assert given_ids(dispatcher, 30.0 * turn) == [("w", 1)]
        assert dispatcher.sweep(30.0 * turn + 29) == []
        assert dispatcher.done("w", 1, 30.0 * turn + 29.5) is job
        given_up += dispatcher.again(job)
    assert given_up == [job] and dispatcher.waiting("detection") == 0


def test_the_late_answer_to_a_lost_job_is_given_to_its_owner_unless_its_camera_has_begun_anew() -> None:
    for begins in (False, True):
        dispatcher = a_dispatcher("w")
        job = a_job(1)
        dispatcher.put(job)
        dispatcher.assign(0.0)
        assert dispatcher.sweep(1.1) == [job]
        if begins:
            dispatcher.forget("cam0")
        assert dispatcher.done("w", 1, 1.2) is (None if begins else job)


def test_who_takes_long_is_waited_for_longer_until_it_is_quick_again() -> None:
    dispatcher = a_dispatcher("w")

    def is_lost(job_id: int, takes_s: float) -> bool:
        dispatcher.put(a_job(job_id))
        assert given_ids(dispatcher, 100.0 * job_id) == [("w", job_id)]
        lost = bool(dispatcher.sweep(100.0 * job_id + takes_s - 0.01))
        dispatcher.done("w", job_id, 100.0 * job_id + takes_s)
        return lost

    assert is_lost(1, 1.5)
    assert not is_lost(2, 1.5) and not is_lost(3, 2.8)
    assert not any(is_lost(number, 0.1) for number in range(4, 10))
    assert is_lost(10, 1.5)
    assert is_lost(11, 1000.0) and is_lost(12, 21.0)  # but nobody is waited for for ever


def test_what_a_worker_had_from_a_conductor_before_says_nothing_of_the_jobs_of_this_one() -> None:
    dispatcher = a_dispatcher()
    dispatcher.subscribed("w")
    dispatcher.ready("w", "detection", 4711, 0.0)
    dispatcher.put(a_job(1))
    assert given_ids(dispatcher) == [("w", 1)]
    assert dispatcher.ready("w", "detection", 4711, 0.1) == []  # said before the job reached it, perhaps
    assert [job.id for job in dispatcher.ready("w", "detection", 4711, 0.8)] == [1]


def test_a_worker_whose_answer_is_not_waited_for_gets_nothing_until_it_speaks() -> None:
    dispatcher = a_dispatcher("w")
    dispatcher.put(a_job(1))
    dispatcher.put(a_job(2))
    assert given_ids(dispatcher) == [("w", 1)]
    withdrawn = dispatcher.withdraw(1)
    assert withdrawn is not None and withdrawn.id == 1
    assert dispatcher.withdraw(1) is None
    assert given_ids(dispatcher, 0.1) == []
    assert dispatcher.sweep(5.0) == []  # it is not lost a second time
    assert dispatcher.done("w", 1) is None
    assert given_ids(dispatcher, 5.1) == [("w", 2)]


def test_a_job_that_never_arrived_shows_in_the_workers_next_word() -> None:
    dispatcher = a_dispatcher("w")
    dispatcher.put(a_job(7))
    dispatcher.assign(0.0)
    assert dispatcher.ready("w", "detection", -1, 0.1) == []  # said before the job reached it, perhaps
    assert [job.id for job in dispatcher.ready("w", "detection", -1, 0.8)] == [7]


def test_a_job_that_kills_its_workers_is_given_up() -> None:
    dispatcher = a_dispatcher()
    dispatcher.put(a_job(1, keep=True))
    lost = []
    for turn in range(5):
        worker = f"w{turn}"
        dispatcher.subscribed(worker)
        dispatcher.ready(worker, "detection", -1, float(turn))
        if not dispatcher.assign(float(turn)):
            break
        lost += dispatcher.gone(worker)
    assert [job.id for job in lost] == [1]
    assert lost[0].tries == 3


def test_a_waiting_job_past_its_deadline_is_reported() -> None:
    dispatcher = a_dispatcher()
    dispatcher.put(a_job(1, deadline=5.0))
    assert dispatcher.sweep(4.9) == []
    assert [job.id for job in dispatcher.sweep(5.1)] == [1]


def test_forgetting_a_camera_leaves_the_others_alone() -> None:
    dispatcher = a_dispatcher("w")
    dispatcher.put(a_job(1, "a"))
    dispatcher.assign(0.0)
    dispatcher.put(a_job(2, "a"))
    dispatcher.put(a_job(3, "b"))
    assert [job.id for job in dispatcher.forget("a")] == [2, 1]
    assert dispatcher.done("w", 1) is None
    assert given_ids(dispatcher) == [("w", 3)]


def test_who_only_claims_to_be_a_worker_is_not_remembered_for_ever() -> None:
    dispatcher = a_dispatcher("real")
    for number in range(10_000):
        dispatcher.ready(f"ghost{number}", "detection", -1, 0.0)
    assert len(dispatcher._workers) <= MOST_STRANGERS + 1
    dispatcher.put(a_job(1))
    assert given_ids(dispatcher) == [("real", 1)]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(["put", "assign", "done", "gone", "ready", "sweep"]), max_size=60), st.randoms())
def test_whatever_happens_a_kept_job_is_done_once_given_up_or_still_there(steps: list[str], random: object) -> None:
    dispatcher: Dispatcher[str] = Dispatcher(timeout_s=3.0, most_tries=3)
    put, settled, out = 0, [], {}
    for now, step in enumerate(steps):
        worker = f"w{random.randrange(3)}"  # type: ignore[attr-defined]
        if step == "put":
            put += 1
            dispatcher.put(a_job(put, keep=True))
        elif step == "assign":
            given_before = {job for state in dispatcher._workers.values() for job in state.jobs}
            for name, job in dispatcher.assign(float(now)):
                assert job.id not in given_before  # what was lost may come again, also to the same worker
                out[name] = job.id
        elif step == "done" and worker in out:
            job = dispatcher.done(worker, out.pop(worker))
            settled += [job.id] if job else []
        elif step == "gone":
            out.pop(worker, None)
            settled += [job.id for job in dispatcher.gone(worker)]
        elif step == "ready":
            dispatcher.subscribed(worker)
            settled += [job.id for job in dispatcher.ready(worker, "detection", 10**6, float(now))]
        elif step == "sweep":
            settled += [job.id for job in dispatcher.sweep(float(now))]
    assert len(settled) == len(set(settled))
    under_way = {job for state in dispatcher._workers.values() for job in state.jobs}
    waiting = {job.id for queue in dispatcher._waiting.get("detection", {}).values() for job in queue}
    assert set(settled) | under_way | waiting == set(range(1, put + 1))
    assert not under_way & waiting and not set(settled) & (under_way | waiting)
