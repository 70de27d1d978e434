"""How pools follow the work, what a process needs of its node, and who listens where: all without a cluster."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

import launch
from common import config as configuration
from common.cluster import addresses
from common.cluster import run as on_cluster
from common.cluster.addresses import bound_by, chosen, connected, loopback
from common.cluster.backlog import Backlog, Demand
from common.cluster.host import keys_problem
from common.cluster.placement import Placed, check_places, leaver, needs
from common.cluster.registry import Registry
from common.cluster.scaling import Replacements, Scaling
from common.cluster.settings import PoolConfig, ScalingConfig
from common.config import ConfigError
from common.keys import KeyRing
from common.messages import Stats
from common.plan import plan
from common.settings import Config
from common.transport import key_pair

POOL = PoolConfig(minimum=1, maximum=6)
LIMITS = ScalingConfig(grow_after_s=3, shrink_after_s=20)


def demand(workers: int, offered_s: float, service_s: float = 0.1, waiting: int = 0) -> Demand:
    """What so many workers make of so many jobs a second: what they cannot do in time is lost."""
    done = min(offered_s, workers / service_s)
    return Demand(workers=workers, waiting=waiting, lost_s=offered_s - done, done_s=done, service_s=service_s)


def follow(scaling: Scaling, offered_s: list[float], workers: int, start: float = 0.0) -> list[int]:
    """Return how many workers are there each second when those that are wanted come two seconds later."""
    there, coming, seen = workers, [workers, workers], []
    for second, offered in enumerate(offered_s):
        coming.append(scaling.look(demand(there, offered), start + second))
        there = coming.pop(0) if len(coming) > 2 else there
        seen.append(there)
    return seen


def test_a_pool_grows_at_once_by_what_the_work_needs() -> None:
    scaling = Scaling(POOL, LIMITS, 1)
    seen = follow(scaling, [30.0] * 20, 1)
    assert seen[:4] == [1, 1, 1, 1]  # a backlog must last
    assert seen[-1] == 4 and set(seen) == {1, 4}  # 30 jobs/s of 0.1 s, at most 80 % busy
    assert "found no worker in time" in scaling.reason


def test_a_short_burst_changes_nothing() -> None:
    scaling = Scaling(POOL, LIMITS, 1)
    assert set(follow(scaling, [30.0, 30.0, 5.0] * 10, 1)) == {1}


def test_bounds_hold() -> None:
    assert Scaling(POOL, LIMITS, 0).wanted == 1 and Scaling(POOL, LIMITS, 9).wanted == 6
    scaling = Scaling(POOL, LIMITS, 1)
    assert max(follow(scaling, [1000.0] * 40, 1)) == 6
    assert follow(scaling, [0.0] * 200, 6, start=40)[-1] == 1


def test_shrinking_takes_one_at_a_time_and_long_idleness() -> None:
    scaling = Scaling(POOL, LIMITS, 4)
    seen = follow(scaling, [10.0] * 120, 4)  # one worker's worth
    assert all(before - after in (0, 1) for before, after in itertools.pairwise(seen))
    assert seen[:20] == [4] * 20 and seen[-1] == 3  # two would be busy half the time, which is not idle


@pytest.mark.parametrize("load", [5.0, 9.0, 12.0, 18.0, 24.0, 30.0, 39.0])
def test_a_steady_load_comes_to_rest(load: float) -> None:
    for first in (1, 6):
        seen = follow(Scaling(POOL, LIMITS, first), [load] * 400, first)
        assert len(set(seen[-150:])) == 1, f"{load} jobs a second, from {first} workers: it swings"
        assert seen[-1] * 10 >= load


def test_no_more_are_asked_for_while_some_are_on_their_way() -> None:
    scaling = Scaling(PoolConfig(minimum=1, maximum=50), LIMITS, 1)
    for second in range(30):  # those that are wanted never come
        scaling.look(demand(1, 30.0), second)
    assert scaling.wanted == 4
    scaling.no_room(2)
    assert scaling.wanted == 2


def test_a_queue_is_a_backlog_too() -> None:
    scaling = Scaling(POOL, LIMITS, 2)
    for second in range(5):
        scaling.look(Demand(workers=2, waiting=7, done_s=20, service_s=0.1), second)
    assert scaling.wanted == 3 and "7 jobs waited for 2 workers" in scaling.reason


def stats(stage: str, sender: str, **figures: object) -> Stats:
    """Return a message with these figures."""
    plain = {"in_s": 0, "out_s": 0, "dropped": 0, "p50_ms": 0, "p95_ms": 0, "rss_mb": 1, "cpu": 0, "state": "running"}
    return Stats.model_validate({"from": sender, "stage": stage, **plain, **figures})


def test_the_backlog_is_what_conductor_and_workers_say() -> None:
    backlog = Backlog()
    assert backlog.demand("detection", 0.0) is None
    counts = {"displaced": 100.0, "detection_workers": 2.0, "detection_waiting": 1.0}
    assert backlog.note(stats("conductor", "conductor.a.1", detail=counts), 1.0)
    for sender, rate in (("detection.a.2", 9.0), ("detection.b.3", 11.0)):
        assert not backlog.note(stats("detection", sender, out_s=rate, p50_ms=90), 1.5)
    backlog.note(stats("conductor", "conductor.a.1", detail=counts | {"displaced": 120.0}), 2.0)
    found = backlog.demand("detection", 2.1)
    assert found == Demand(workers=2, waiting=1, lost_s=20.0, done_s=20.0, service_s=0.09)
    # Another conductor counts from nought, which is no loss; and who is silent is not counted.
    backlog.note(stats("conductor", "conductor.b.9", detail=counts | {"displaced": 5.0}), 8.0)
    assert backlog.demand("detection", 8.1) == Demand(workers=2, waiting=1)
    assert backlog.demand("detection", 20.0) is None


def settings(**sections: object) -> Config:
    """Return a configuration with these sections."""
    return configuration.load(overrides=dict(sections), environment={})


def test_what_processes_need_of_their_node() -> None:
    config = settings(
        cameras={"cam0": {"source": "webcam:0"}, "cam1": {"source": "rtsp://x/1"}, "ward": {"source": "webcam:1"}},
        cluster={
            "places": {"capture.ward": "camera0", "alerts": "store"},
            "detection": {"gpu": 0.25},
            "expression": {"cpu": 0.3},
        },
        mqtt={"url": "mqtt://broker.example"},
    )
    specs = {spec.name: spec for spec in plan(config, screen=False)}
    found = {name: needs(spec, config, gpus=1.0) for name, spec in specs.items()}
    assert found["capture.cam0"].here  # a webcam is where the command is given, unless it has a place
    assert not found["capture.cam1"].here and found["capture.cam1"].places == ()
    assert found["capture.ward"].places == (("camera0", 1.0),) and not found["capture.ward"].here
    assert found["conductor"].here and found["history"].here and found["mqtt"].here and not found["bus"].here
    assert not found["alerts"].here and found["alerts"].places[0][0] == "store"
    assert found["detection.1"].gpu == 0.25 and found["expression.1"].cpu == 0.3
    assert needs(specs["detection.1"], config, gpus=0.0).gpu == 0.0  # nothing waits for what nobody has
    check_places(list(specs.values()), config.cluster)
    with pytest.raises(ConfigError, match=r"cluster.places: nothing here is called 'capture.cam9'"):
        check_places(list(specs.values()), settings(cluster={"places": {"capture.cam9": "camera9"}}).cluster)


def test_bad_settings_say_what_would_be_right() -> None:
    for cluster, says in (
        ({"detection": {"minimum": 3, "maximum": 2}}, r"maximum \(2\) must not be below minimum \(3\)"),
        ({"scaling": {"idle": 0.9}}, "idle must be below busy"),
        ({"adress": "x"}, "there is no such key; known here: detection, "),
    ):
        with pytest.raises(ConfigError, match=says):
            settings(cluster=cluster)


def test_who_leaves_a_pool() -> None:
    a, b, c = Placed(number=1, node="a"), Placed(number=2, node="b"), Placed(number=3, node="b")
    assert leaver([a, b, c]) == c  # the fullest node's youngest
    assert leaver([a, b, c, nowhere := Placed(number=2, node=None)]) == nowhere
    assert leaver([c, Placed(number=4, node="a")]).number == 4


def test_addresses_keep_ports_that_others_know() -> None:
    config = settings(endpoints={"news_out": "tcp://127.0.0.1:7001"})
    assert bound_by("detection", config, "127.0.1.7") == ()
    bus = chosen("bus", config, "127.0.1.7")
    assert bus["news_in"] == "tcp://127.0.1.7:5560" and bus["news_out"] == "tcp://127.0.1.7:7001"
    conductor = chosen("conductor", config, "127.0.1.8")
    assert set(conductor) == {"frames", "jobs", "findings", "pictures"}
    assert all(address.startswith("tcp://127.0.1.8:") for address in conductor.values())
    assert len(set(conductor.values())) == 4
    joined = connected(config, bus | conductor)
    assert joined.endpoint("jobs") == conductor["jobs"] and joined.endpoint("news_out") == bus["news_out"]
    assert loopback("127.0.1.7") and loopback("::1") and not loopback("10.0.0.5")


def test_between_machines_requests_have_an_address_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    free = itertools.count(7100)
    monkeypatch.setattr(addresses, "_free_port", lambda host: next(free))  # of machines that are not here
    config = settings(security={"keys_dir": "/keys"})
    assert "control" not in bound_by("bus", config, "127.0.1.7") and "control" in bound_by("bus", config, "10.0.0.5")
    found = chosen("bus", config, "10.0.0.5") | chosen("conductor", config, "10.0.0.6")
    joined = connected(config, found | chosen("preview", config, "10.0.0.5"))
    assert joined.endpoint("control") == found["control"] != found["news_in"] == "tcp://10.0.0.5:5560"
    assert joined.endpoint("jobs").startswith("tcp://10.0.0.6:")


def test_a_node_without_the_key_that_a_stage_needs_says_what_to_type(tmp_path: Path) -> None:
    config = settings(security={"keys_dir": str(tmp_path / "server")})
    other = settings(security={"keys_dir": str(tmp_path / "other")})
    assert "keys make server" in (keys_problem("bus", config, "10.0.0.5") or "")
    assert "keys import" in (keys_problem("detection", config, "10.0.0.5") or "")
    _, file = KeyRing(config.keys_dir, key_pair).make("node", ("worker", "camera"))
    KeyRing(other.keys_dir).install(file)
    assert keys_problem("bus", config, "10.0.0.5") is keys_problem("detection", other, "10.0.0.6") is None
    assert "no server.key" in (keys_problem("bus", other, "10.0.0.6") or "")


def test_between_machines_only_cameras_and_workers_go_where_the_servers_key_is_not() -> None:
    config = settings(cameras={"cam0": {"source": "rtsp://x/1"}}, cluster={"places": {"preview": "office"}})
    here = {spec.stage for spec in plan(config, screen=False) if needs(spec, config, gpus=0.0, keyed=True).here}
    assert here >= {"bus", "conductor", "history"}
    assert not here & {"preview", "capture", "detection", "identity", "expression"}


def test_what_fails_everywhere_is_not_replaced_without_end() -> None:
    replacements = Replacements(2, 600)
    assert [replacements.take(now) for now in (0.0, 10.0, 20.0, 599.0, 600.0, 605.0, 610.0)] == [
        True, True, False, False, True, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize("option", ["--record", "--record-biometrics", "--replay=x"])
def test_what_works_on_one_machine_only_is_refused(option: str) -> None:
    with pytest.raises(ConfigError, match=r"works on one machine only: leave out --cluster"):
        on_cluster.run(launch.parser().parse_args(["--cluster", "127.0.0.1:1", option]))


def test_the_registry_believes_who_began_last() -> None:
    registry = Registry()
    first, second = registry.begin(), registry.begin()
    registry.exchange(first, {"jobs": "tcp://a:1", "news_in": "tcp://a:2"})
    assert registry.exchange(second, {"jobs": "tcp://b:1"}) == {"jobs": "tcp://b:1", "news_in": "tcp://a:2"}
    assert registry.exchange(first, {"jobs": "tcp://a:1"})["jobs"] == "tcp://b:1"  # cut off, and lives on
    after = Registry()  # its node died: it learns all again, and goes on counting
    after.exchange(second, {"jobs": "tcp://b:1"})
    assert after.begin() > second
