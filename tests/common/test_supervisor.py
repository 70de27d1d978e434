"""The supervisor keeps real processes alive: those that crash, hang, ignore it, or cannot start at all."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from common.child import MOST_LINES, Child, ChildSpec, RestartPolicy, describe_exit, environment
from common.messages import Stats
from common.news import NewsReader
from common.run import Printer
from common.settings import Config, SupervisionConfig
from common.supervisor import Supervisor
from tests.conftest import wait_until

# Stages of these tests: each is a module on PYTHONPATH, as real ones are.
MODULES = {
    "obedient": """
        line.say("ready")
        while not line.stopping.wait(0.02):
            line.beat()
    """,
    "crashing": """
        line.say("ready")
        print("12:00:00 mien.crashing ERROR something broke", file=sys.stderr)
        sys.exit(1)
    """,
    "unable": """
        print("12:00:00 mien.unable ERROR cannot listen on tcp://127.0.0.1:5561: in use", file=sys.stderr)
        sys.exit(2)
    """,
    "not_yet": """
        print("12:00:00 mien.not_yet ERROR the store cannot be opened: database is locked", file=sys.stderr)
        sys.exit(75)
    """,
    "not_yet_later": """
        from pathlib import Path
        mark = Path(__file__).with_name("was_here")
        if mark.exists():
            print("12:00:00 mien.not_yet_later ERROR the store cannot be written", file=sys.stderr)
            sys.exit(75)
        mark.touch()
        line.say("ready")
        sys.exit(1)
    """,
    "unable_for_now": """
        from pathlib import Path
        if not Path(__file__).with_name("possible").exists():
            print("12:00:00 mien.unable_for_now ERROR the network drive is away", file=sys.stderr)
            sys.exit(1)
        line.say("ready")
        while not line.stopping.wait(0.02):
            line.beat()
    """,
    "unable_later": """
        from pathlib import Path
        mark = Path(__file__).with_name("was_here")
        if mark.exists():
            sys.exit(2)
        mark.touch()
        line.say("ready")
        sys.exit(1)
    """,
    "loading_for_ever": """
        line.say("loading")
        while not line.stopping.wait(0.02):
            line.beat()
    """,
    "complaining": """
        line.say("ready")
        while not line.stopping.wait(0.02):
            print("12:00:00 mien.complaining WARNING still here", file=sys.stderr)
    """,
    "stubborn": """
        line.say("ready")
        line.stopping.wait()
        line._beat = None
        import subprocess
        os.execv(sys.executable, [sys.executable, "-c", "import time; time.sleep(60)"])
    """,
    "parent_of_one": """
        import subprocess
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
        line.say("ready")
        while not line.stopping.wait(0.02):
            line.beat()
    """,
    "finishing": """
        line.say("ready")
        line.say("finished")
    """,
    "talkative": """
        line.say("ready")
        while not line.stopping.is_set():
            print("x" * 200, file=sys.stderr)
            line.beat()
    """,
    "flooding_first": """
        for number in range(20_000):
            print(number, file=sys.stderr)
        line.say("ready")
        while not line.stopping.wait(0.02):
            line.beat()
    """,
}


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The test stages, where children find them."""
    folder = tmp_path / "modules"
    folder.mkdir()
    for name, body in MODULES.items():
        lines = ["import os", "import sys", "from common.lifeline import Lifeline", "line = Lifeline()"]
        lines += [text[8:] for text in body.strip("\n").splitlines()]
        (folder / f"{name}.py").write_text("\n".join(lines) + "\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    return folder


Start = Callable[..., Supervisor]


@pytest.fixture
def supervise(config: Config, modules: Path) -> Iterator[Start]:
    """Make supervisors that are stopped at the end; their lines are in ``said``."""
    made: list[Supervisor] = []

    def make(
        *specs: ChildSpec, start: bool = True, say: Callable[[str], None] | None = None, **limits: Any
    ) -> Supervisor:
        chosen = config.model_copy(update={"supervision": SupervisionConfig(**limits)})
        said: list[str] = []
        supervisor = Supervisor(chosen, specs, config_file=config.run_dir / "config.json", say=say or said.append)
        supervisor.said = said  # type: ignore[attr-defined]
        made.append(supervisor)
        if start:
            supervisor.start()
        return supervisor

    yield make
    for supervisor in made:
        supervisor.stop()


def spec(module: str, name: str | None = None, **more: Any) -> ChildSpec:
    return ChildSpec(name=name or module, stage=module, module=module, **more)


def said(supervisor: Supervisor) -> str:
    return "\n".join(supervisor.said)  # type: ignore[attr-defined]


def turn_until(
    supervisor: Supervisor, predicate: Callable[[], object], timeout_s: float = 15.0, what: str = ""
) -> None:
    def turned() -> object:
        supervisor.turn(0.02)
        return predicate()

    wait_until(turned, timeout_s, what or said(supervisor))


def running(child: Child) -> bool:
    return child.state == "running"


def pid_of(child: Child) -> int:
    assert child.pid is not None
    return child.pid


def test_one_that_cannot_work_yet_is_tried_for_as_long_as_that_lasts(supervise: Start) -> None:
    supervisor = supervise(spec("not_yet", needed="no"), restarts=1, longest_delay_s=0.05)
    [child] = supervisor.children
    turn_until(supervisor, lambda: child.restarts >= 4)
    assert child.state != "failed"
    told = "cannot work yet: the store cannot be opened: database is locked; it is tried again until it can"
    assert said(supervisor).count(told) == 1


def test_one_that_cannot_work_yet_after_it_once_did_is_tried_for_as_long(supervise: Start) -> None:
    supervisor = supervise(spec("not_yet_later", needed="no"), restarts=1, longest_delay_s=0.05)
    [child] = supervisor.children
    turn_until(supervisor, lambda: child.restarts >= 4)
    assert child.state != "failed" and "FAILED" not in said(supervisor)
    assert said(supervisor).count("not_yet_later cannot work yet: the store cannot be written") == 1


def test_a_process_that_the_system_has_no_room_for_is_started_once_it_has(
    supervise: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    supervisor = supervise(spec("obedient"), start=False, restarts=0)
    [child] = supervisor.children
    begin, asked = threading.Thread.start, []

    def refused(thread: threading.Thread) -> None:
        asked.append(thread)
        if len(asked) in (1, 3):  # nobody hears the first process at all, and the second one only in part
            raise RuntimeError("can't start new thread")
        begin(thread)

    monkeypatch.setattr("common.supervisor._START_AGAIN_S", 0.05)
    monkeypatch.setattr(threading.Thread, "start", refused)
    supervisor.start()
    turn_until(supervisor, lambda: running(child))
    assert len(asked) == 5 and child.restarts == 0
    assert [process.pid for process in psutil.Process().children() if "obedient" in process.cmdline()] == [child.pid]
    assert said(supervisor).count("obedient cannot be started yet: can't start new thread; it is tried again") == 1


def test_a_killed_process_is_replaced_and_its_sibling_left_alone(supervise: Start) -> None:
    supervisor = supervise(spec("obedient", "one"), spec("obedient", "two"))
    one, two = supervisor.children
    turn_until(supervisor, lambda: running(one) and running(two))
    first, sibling = pid_of(one), pid_of(two)
    os.kill(first, signal.SIGKILL)
    turn_until(supervisor, lambda: running(one) and one.pid != first)
    assert (one.restarts, two.restarts, two.pid) == (1, 0, sibling)
    assert "one was killed by SIGKILL: starting it again in 0.2 s" in said(supervisor)
    assert f"started one (process {one.pid}, restart 1)" in said(supervisor)


def test_a_hung_process_is_killed_and_replaced(supervise: Start) -> None:
    supervisor = supervise(spec("obedient"), heartbeat_timeout_s=2.0)
    [child] = supervisor.children
    turn_until(supervisor, lambda: running(child))
    first = pid_of(child)
    os.kill(first, signal.SIGSTOP)
    began = time.monotonic()
    turn_until(supervisor, lambda: running(child) and child.pid != first)
    assert time.monotonic() - began > 0.7
    assert not psutil.pid_exists(first)
    assert "obedient gave no sign of life for 2." in said(supervisor)


def test_complaints_are_no_sign_of_life(supervise: Start) -> None:
    supervisor = supervise(spec("complaining"), heartbeat_timeout_s=2.0)
    turn_until(supervisor, lambda: supervisor.children[0].restarts == 1)
    assert "complaining gave no sign of life for 2." in said(supervisor)


def test_a_process_that_never_gets_ready_is_replaced_although_it_beats(supervise: Start) -> None:
    supervisor = supervise(spec("loading_for_ever"), start_timeout_s=1.1)
    turn_until(supervisor, lambda: supervisor.children[0].restarts == 1)
    assert "loading_for_ever was not ready for 1." in said(supervisor)


def test_a_process_that_keeps_crashing_fails_and_the_others_go_on(supervise: Start) -> None:
    supervisor = supervise(spec("crashing"), spec("obedient"), restarts=2)
    crashing, obedient = supervisor.children
    turn_until(supervisor, lambda: crashing.state == "failed" and running(obedient))
    assert crashing.restarts == 2 and obedient.restarts == 0
    assert supervisor.failure is None and not supervisor.complete
    assert "crashing ended with exit code 1 and has FAILED: 2 restarts within 120 s" in said(supervisor)
    assert "Its last words: something broke" in said(supervisor)


def test_one_that_has_failed_is_tried_again_after_a_while_and_stays_failed_until_it_runs(
    supervise: Start, modules: Path
) -> None:
    supervisor = supervise(spec("unable_for_now"), restarts=1, failed_retry_s=0.3)
    [child] = supervisor.children
    turn_until(supervisor, lambda: child.state == "failed")
    assert "It is tried again in 0.3 s. Everything else keeps running. Its last words: the network" in said(supervisor)
    lines = len(said(supervisor).splitlines())
    states: list[str] = []
    turn_until(supervisor, lambda: (states.append(child.state), child.restarts >= 3)[1])
    turn_until(supervisor, lambda: (states.append(child.state), child.pid is None)[1])
    assert set(states) == {"failed"}
    new = [line for line in said(supervisor).splitlines()[lines:] if " mien unable_for_now " in line]
    assert len(new) == 2  # one for each attempt
    assert "was tried again, ended with exit code 1 and stays FAILED. It is tried again in 0.3 s." in new[-1]
    assert supervisor.failure is None
    (modules / "possible").touch()
    turn_until(supervisor, lambda: running(child))
    assert f"unable_for_now runs again (process {child.pid})" in said(supervisor)


def test_one_that_has_failed_is_left_alone_where_that_is_asked_for(supervise: Start) -> None:
    supervisor = supervise(spec("crashing"), restarts=0, failed_retry_s=0)
    [child] = supervisor.children
    turn_until(supervisor, lambda: child.state == "failed")
    assert "It is not tried again. Everything else keeps running" in said(supervisor)
    assert child.start_at == float("inf")


def test_what_could_not_start_and_is_tried_again_ends_nothing(supervise: Start) -> None:
    first = ChildSpec(name="capture.a", stage="capture", module="unable", needed="one")
    second = ChildSpec(name="capture.b", stage="capture", module="obedient", needed="one")
    supervisor = supervise(first, second, restarts=0, failed_retry_s=1)
    unable, obedient = supervisor.children
    turn_until(supervisor, lambda: unable.state == "failed" and running(obedient))
    assert "It is tried again in 1 s" in said(supervisor)
    os.kill(pid_of(obedient), signal.SIGKILL)
    turn_until(supervisor, lambda: obedient.state == "failed")
    tried = unable.restarts
    turn_until(supervisor, lambda: unable.restarts > tried and unable.pid is None)
    assert supervisor.failure is None


def test_a_process_that_is_never_ready_has_not_lived_well_however_long_that_takes(
    supervise: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("common.child.GOOD_AFTER_S", 1.0)
    supervisor = supervise(spec("loading_for_ever"), start_timeout_s=1.1, restarts=1, window_s=1.1)
    [child] = supervisor.children
    turn_until(supervisor, lambda: child.state == "failed")
    assert child.restarts == 1


def test_what_no_restart_repairs_ends_the_run_with_the_reason(supervise: Start) -> None:
    supervisor = supervise(spec("unable"), spec("obedient"), start=False)
    began = time.monotonic()
    assert supervisor.run(threading.Event()) == 2
    assert time.monotonic() - began < 10
    assert supervisor.failure == "unable cannot start: cannot listen on tcp://127.0.0.1:5561: in use"
    assert all(child.pid is None for child in supervisor.children)
    assert "restart" not in said(supervisor)


def test_a_stage_that_is_not_needed_may_fail_at_its_start(supervise: Start) -> None:
    supervisor = supervise(spec("unable", needed="no"), spec("obedient"))
    unable, obedient = supervisor.children
    turn_until(supervisor, lambda: unable.state == "failed" and running(obedient))
    assert supervisor.failure is None and unable.restarts == 0
    assert "unable FAILED: cannot listen on" in said(supervisor)


def test_one_of_two_cameras_may_fail_at_its_start_but_not_both(supervise: Start) -> None:
    first = ChildSpec(name="capture.a", stage="capture", module="unable", needed="one")
    second = ChildSpec(name="capture.b", stage="capture", module="obedient", needed="one")
    supervisor = supervise(first, second)
    turn_until(supervisor, lambda: supervisor.children[0].state == "failed" and running(supervisor.children[1]))
    assert supervisor.failure is None
    third = ChildSpec(name="capture.b", stage="capture", module="unable", needed="one")
    supervisor = supervise(first, third)
    turn_until(supervisor, lambda: supervisor.failure is not None)


def test_exit_code_2_of_a_process_that_once_worked_is_tried_again(supervise: Start) -> None:
    supervisor = supervise(spec("unable_later"), restarts=3)
    [child] = supervisor.children
    turn_until(supervisor, lambda: child.restarts >= 2)
    assert supervisor.failure is None


def test_the_run_is_complete_when_the_last_one_that_ends_it_has_finished(supervise: Start) -> None:
    supervisor = supervise(
        ChildSpec(name="capture.a", stage="capture", module="finishing", ends_run=True),
        ChildSpec(name="capture.b", stage="capture", module="obedient", ends_run=True),
    )
    first, second = supervisor.children
    turn_until(supervisor, lambda: first.state == "finished" and running(second))
    assert not supervisor.complete and first.restarts == 0
    supervisor = supervise(spec("finishing", ends_run=True), spec("obedient"))
    turn_until(supervisor, lambda: supervisor.complete)
    supervisor = supervise(spec("finishing"), spec("obedient"))
    turn_until(supervisor, lambda: supervisor.children[0].state == "finished")
    assert not supervisor.complete


def test_all_end_within_a_second_when_asked(supervise: Start) -> None:
    supervisor = supervise(*(spec("obedient", f"child{number}") for number in range(4)))
    turn_until(supervisor, lambda: all(running(child) for child in supervisor.children))
    pids = [pid_of(child) for child in supervisor.children]
    began = time.monotonic()
    supervisor.stop()
    assert time.monotonic() - began < 1.5
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert {child.state for child in supervisor.children} == {"stopped"}
    assert "killed" not in said(supervisor)


def test_one_that_ignores_the_request_is_killed_within_three_seconds(supervise: Start) -> None:
    supervisor = supervise(spec("stubborn"), spec("obedient"))
    turn_until(supervisor, lambda: all(running(child) for child in supervisor.children))
    pids = [pid_of(child) for child in supervisor.children]
    began = time.monotonic()
    supervisor.stop()
    assert 1.5 < time.monotonic() - began < 3.0
    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert "stubborn did not end when asked: killed" in said(supervisor)
    assert "obedient did not" not in said(supervisor)


@pytest.mark.skipif(os.name != "posix", reason="process groups")
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_what_a_stage_had_started_ends_with_it(supervise: Start, how: str) -> None:
    supervisor = supervise(spec("parent_of_one"))
    [child] = supervisor.children
    turn_until(supervisor, lambda: running(child))
    first = pid_of(child)
    [grandchild] = psutil.Process(first).children()
    if how == "killed":
        os.kill(first, signal.SIGKILL)
        turn_until(supervisor, lambda: running(child) and child.pid != first)
    else:
        supervisor.stop()
    wait_until(lambda: not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE, 3)


def test_a_supervisor_that_was_suspended_does_not_blame_its_children(supervise: Start) -> None:
    supervisor = supervise(spec("obedient"), heartbeat_timeout_s=2.0)
    [child] = supervisor.children
    turn_until(supervisor, lambda: running(child))
    child.beat_at -= 100  # as after a night in a closed laptop
    supervisor._turned_at -= 100
    supervisor.turn(0.0)
    assert child.killed_for is None
    turn_until(supervisor, lambda: running(child))
    assert child.restarts == 0


def test_a_flood_of_lines_from_one_keeps_nobody_from_being_looked_after(supervise: Start) -> None:
    supervisor = supervise(spec("talkative"), spec("obedient"))
    talkative, obedient = supervisor.children
    turn_until(supervisor, lambda: running(talkative) and running(obedient))
    first = pid_of(obedient)
    os.kill(first, signal.SIGKILL)
    turn_until(supervisor, lambda: running(obedient) and obedient.pid != first)
    assert talkative.restarts == 0


def test_lines_that_nobody_hears_do_not_pile_up_and_words_are_heard_all_the_same(supervise: Start) -> None:
    supervisor = supervise(spec("flooding_first"))  # nothing is heard while nobody turns
    [child] = supervisor.children
    wait_until(lambda: child.left_out == 20_000 - MOST_LINES, 30, "the flood is over")
    assert supervisor._events.qsize() <= MOST_LINES + 2
    turn_until(supervisor, lambda: running(child))
    turn_until(supervisor, lambda: "are left out" in said(supervisor))
    lines = said(supervisor).splitlines()
    assert [line for line in lines if line.isdigit()] == [str(number) for number in range(MOST_LINES)]
    assert f"mien {20_000 - MOST_LINES} lines of flooding_first are left out: they came too fast" in said(supervisor)


def test_a_terminal_that_takes_nothing_keeps_nobody_from_being_looked_after(supervise: Start) -> None:
    reading, writing = os.pipe()

    def say(line: str) -> None:
        os.write(writing, line.encode() + b"\n")

    try:
        with Printer(say) as printer:
            supervisor = supervise(spec("obedient"), spec("talkative"), say=printer.say)
            obedient, talkative = supervisor.children
            turn_until(supervisor, lambda: running(obedient) and running(talkative), what="they run")
            first = pid_of(obedient)
            turn_until(supervisor, lambda: len(printer._lines) > 100, what="the pipe is full")
            os.kill(first, signal.SIGKILL)
            turn_until(supervisor, lambda: running(obedient) and obedient.pid != first, what="it is replaced")
            supervisor.stop()
            began = time.monotonic()
        assert 0.5 < time.monotonic() - began < 2
    finally:
        os.set_blocking(reading, False)
        while printer._thread.is_alive():
            with contextlib.suppress(BlockingIOError):
                os.read(reading, 2**20)
            printer._thread.join(0.01)
    for end in (reading, writing):
        os.close(end)


def test_what_waits_to_be_printed_is_printed_in_order_at_the_end_and_no_more_than_can_wait() -> None:
    go_on, printed = threading.Event(), []

    def say(line: str) -> None:
        go_on.wait()
        printed.append(line)

    with Printer(say) as printer:
        for number in range(7000):
            printer.say(str(number))
        go_on.set()
        wait_until(lambda: not printer._lines, what="all that waited is printed")
        printer.say("and then")
    assert len(printed) < 5010
    assert printed[:5000] == [str(number) for number in range(5000)]
    assert printed[-1] == "and then" and "lines are left out here" in printed[-2]


def test_it_publishes_what_it_knows(supervise: Start, bus: subprocess.Popen[bytes], config: Config) -> None:
    reader = NewsReader(config, ("stats.supervisor",))
    supervisor = supervise(spec("obedient"))
    [child] = supervisor.children
    turn_until(supervisor, lambda: running(child))
    os.kill(pid_of(child), signal.SIGKILL)
    seen: list[Stats] = []

    def told() -> bool:
        seen.extend(message for _, message in reader.read() if isinstance(message, Stats))
        return any(s.detail.get("obedient.restarts") == 1 and s.detail["obedient.state"] == "running" for s in seen)

    try:
        turn_until(supervisor, told)
    finally:
        reader.close()
    last = seen[-1]
    assert last.stage == "supervisor" and last.state == "running"
    assert last.detail["obedient.pid"] == child.pid
    assert isinstance(last.detail["obedient.uptime_s"], float)


def test_what_becomes_of_a_process_is_published_at_once(
    supervise: Start, bus: subprocess.Popen[bytes], config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = NewsReader(config, ("stats.supervisor",))
    supervisor = supervise(spec("obedient"))
    [child] = supervisor.children
    seen: list[object] = []

    def told() -> list[object]:
        seen.extend(message.detail["obedient.state"] for _, message in reader.read() if isinstance(message, Stats))
        return seen

    try:
        turn_until(supervisor, lambda: running(child) and told())
        monkeypatch.setattr(supervisor._meter, "due", lambda: False)  # from now on nothing comes by the clock
        os.kill(pid_of(child), signal.SIGKILL)
        turn_until(supervisor, lambda: told()[-3:] == ["waiting", "loading", "running"], what=str(seen))
    finally:
        reader.close()
    assert f"obedient runs again (process {child.pid})" in said(supervisor)


# --- the decisions, without processes ---


def test_restarts_wait_longer_each_time_up_to_the_longest_delay() -> None:
    policy = RestartPolicy(SupervisionConfig(restarts=6, longest_delay_s=2))
    delays = [policy.next_delay_s(now=float(second), lived_s=1.0) for second in range(7)]
    assert delays == [0.2, 0.4, 0.8, 1.6, 2.0, 2.0, None]


def test_after_a_good_minute_the_delay_is_short_again() -> None:
    policy = RestartPolicy(SupervisionConfig(restarts=6))
    assert [policy.next_delay_s(0.0, 1.0), policy.next_delay_s(1.0, 1.0)] == [0.2, 0.4]
    assert policy.next_delay_s(70.0, lived_s=69.0) == 0.2


def test_the_budget_counts_the_window_once_it_has_lived_well() -> None:
    policy = RestartPolicy(SupervisionConfig(restarts=2, window_s=100))
    assert policy.next_delay_s(0.0, 1.0) and policy.next_delay_s(30.0, 1.0)
    assert policy.next_delay_s(99.0, lived_s=65.0) is None
    assert policy.next_delay_s(101.0, lived_s=65.0) is not None


@pytest.mark.parametrize("lived_s", [1.0, 11.0, 15.0, 59.0])
def test_one_that_never_lives_well_fails_however_slowly_it_does_so(lived_s: float) -> None:
    policy = RestartPolicy(SupervisionConfig())
    now = 0.0
    delays: list[float] = []
    while len(delays) < 100 and (delay_s := policy.next_delay_s(now := now + lived_s, lived_s)) is not None:
        delays.append(delay_s)
        now += delay_s
    assert len(delays) == SupervisionConfig().restarts


def test_no_restarts_allowed_means_none() -> None:
    assert RestartPolicy(SupervisionConfig(restarts=0)).next_delay_s(0.0, 1000.0) is None


def test_exits_are_described_in_words() -> None:
    assert describe_exit(1) == "ended with exit code 1"
    assert describe_exit(-9) == "was killed by SIGKILL"
    assert describe_exit(-250) == "was killed by signal 250"


def test_children_read_settings_from_their_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIEN_EVERY_FRAME", "true")
    monkeypatch.setenv("MIEN_DATA_DIR", "/elsewhere")
    made = environment(tmp_path)
    assert "MIEN_EVERY_FRAME" not in made
    assert made["MIEN_DATA_DIR"] == str(tmp_path)


def test_children_find_this_project_wherever_they_are_started(
    supervise: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "common").mkdir()
    (tmp_path / "common" / "__init__.py").write_text("raise ImportError('not the right one')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]]))
    supervisor = supervise(spec("obedient"))
    turn_until(supervisor, lambda: running(supervisor.children[0]))
