"""The bus forwards news from every publisher to every subscriber, as a process of its own."""

from __future__ import annotations

import itertools
import subprocess
import threading
import time

import psutil
import pytest

from common import config as configuration
from common.keys import KeyRing
from common.messages import Control, Stats
from common.news import NewsReader, NewsWriter
from common.settings import Config, SecurityConfig
from common.transport import Socket, key_pair, opened
from tests.conftest import await_bus, end, free_ports, start_stage, wait_until
from tests.showing import five


def a_stats(**changes: object) -> Stats:
    fields: dict[str, object] = {
        "from": "test.1", "stage": "test", "in_s": 1.0, "out_s": 2.0, "dropped": 0, "p50_ms": 0.0, "p95_ms": 0.0,
        "rss_mb": 1.0, "cpu": 0.5, "state": "running",
    }  # fmt: skip
    return Stats.model_validate(fields | changes)


def test_news_reaches_every_subscriber_of_its_topic(bus: subprocess.Popen[bytes], config: Config) -> None:
    writer = NewsWriter(config, "test.1")
    here, there, elsewhere = (NewsReader(config, (t,)) for t in ("stats.test", "stats.", "results."))
    try:
        seen: dict[int, int] = {0: 0, 1: 0}

        def both_got_it() -> bool:
            writer.publish(a_stats(), "test")
            for index, reader in enumerate((here, there)):
                seen[index] += sum(topic == "stats.test" for topic, _ in reader.read(timeout_ms=20))
            return all(seen.values())

        wait_until(both_got_it, what="both subscribers got the news")
        assert elsewhere.read() == []
    finally:
        for part in (writer, here, there, elsewhere):
            part.close()


def test_the_bus_tells_its_own_figures(bus: subprocess.Popen[bytes], config: Config) -> None:
    reader = NewsReader(config, ("stats.bus",))
    try:
        [(topic, message), *_] = wait_until(lambda: reader.read(timeout_ms=100), what="stats of the bus")
        assert topic == "stats.bus" and isinstance(message, Stats)
        assert message.state == "running" and message.sender.endswith(f".{bus.pid}")
    finally:
        reader.close()


def test_a_flood_from_one_publisher_keeps_neither_heartbeat_nor_figures(
    bus: subprocess.Popen[bytes], config: Config
) -> None:
    stop = threading.Event()

    def flood() -> None:
        writer = NewsWriter(config, "test.flood")
        message = a_stats()
        while not stop.is_set():
            writer.publish(message, "flood")
        writer.close()

    thread = threading.Thread(target=flood)
    thread.start()
    reader = NewsReader(config, ("stats.bus",))
    try:
        times: list[float] = []
        while len(times) < 3:
            wait_until(lambda: reader.read(timeout_ms=100), 5, "stats of a flooded bus")
            times.append(time.monotonic())
        assert times[-1] - times[0] < 4
    finally:
        stop.set()
        thread.join()
        reader.close()


def test_garbage_on_its_sockets_harms_nobody(bus: subprocess.Popen[bytes], config: Config) -> None:
    garbage = opened("news_in", config.endpoint("news_in"), "pub", linger_ms=200)
    reader = NewsReader(config, ("",))
    try:

        def counted() -> int:
            for parts in (
                [b"stats.x"],
                [b"\xff\xfe", b"\x81"],
                [b""],
                [b"stats.x", b"\xdf\xff\xff\xff\xff"],
                [b"x"] * 50,
            ):
                garbage.send(parts)
            reader.read(timeout_ms=50)
            return reader.bad

        wait_until(counted, what="bad news is counted by the reader")
        assert bus.poll() is None
    finally:
        garbage.close()
        reader.close()
    await_bus(config)


def test_a_bus_that_comes_back_serves_those_who_stayed(config: Config) -> None:
    first = start_stage("bus", config)
    writer, reader = NewsWriter(config, "test.1"), NewsReader(config, ("stats.test",))
    try:

        def arrives() -> bool:
            writer.publish(a_stats(), "test")
            return bool(reader.read(timeout_ms=50))

        wait_until(arrives, 20, "news through the first bus")
        first.kill()
        first.wait()
        second = start_stage("bus", config)
        try:
            wait_until(arrives, 20, "news through the second bus")
        finally:
            end(second)
    finally:
        writer.close()
        reader.close()
        first.kill()
        first.wait()


@pytest.mark.parametrize("channel", ["news_in", "news_out"])
def test_a_port_in_use_is_said_plainly(bus: subprocess.Popen[bytes], config: Config, channel: str) -> None:
    second = start_stage("bus", config, stderr=subprocess.PIPE)
    _, said = second.communicate(timeout=20)
    assert second.returncode == 2
    assert b"listens there already" in said and b"endpoints.news_" in said
    assert b"Traceback" not in said


def test_it_ends_when_asked_and_frees_its_ports(config: Config) -> None:
    for _ in range(2):  # the second one could not bind if the first had left something
        process = start_stage("bus", config)
        await_bus(config)
        assert end(process) == 0


def test_a_locked_bus_takes_requests_by_their_own_way_in_alone_and_tells_names_to_subscribers_alone(
    config: Config,
) -> None:
    [control, public] = free_ports(2)
    settings = config.model_dump(mode="json")
    settings["endpoints"] |= {
        "control": f"tcp://127.0.0.1:{control}",
        "news_public": f"tcp://127.0.0.1:{public}",
    }
    settings["security"]["loopback"] = True
    locked = configuration.load(overrides=settings, environment={})
    configuration.save(locked, locked.run_dir / "config.json")
    ring = KeyRing(locked.keys_dir, key_pair)
    ring.make("server", ())

    def as_(role: str) -> Config:
        folder = locked.run_dir / role
        KeyRing(folder).install(ring.make(role, (role,))[1])
        return locked.model_copy(update={"security": SecurityConfig(loopback=True, keys_dir=folder)})

    process = start_stage("bus", locked)
    sockets: list[NewsWriter | NewsReader | Socket] = []
    try:
        publisher, controller = (
            NewsWriter(as_("publisher"), "p.1"),
            NewsWriter(as_("controller"), "c.1", channel="control"),
        )
        names = NewsReader(as_("subscriber"), ("control.", "results.", "stats.test"))
        nameless = as_("public")
        boxes = opened("news_public", nameless.endpoint("news_public"), "sub")
        boxes.subscribe(b"")
        sockets += [publisher, controller, names, boxes]
        got: dict[str, list[str]] = {}

        def say_everything() -> bool:
            publisher.publish(a_stats(), "test")
            publisher.publish(five(640, 360), "cam0")
            for writer in (publisher, controller):
                writer.publish(Control(sender=writer.sender, request="0" * 32, do="nothing"), "nobody")
            for topic, message in names.read(timeout_ms=50):
                got.setdefault(topic, []).append(message.sender)
            while (parts := boxes.receive()) is not None:
                got.setdefault(bytes(parts[0]).decode(), []).append(str(bytes(parts[1])))
            return got.keys() >= {"results.cam0", "public.cam0", "stats.test", "control.nobody"}

        wait_until(say_everything, 20, "all ways are open")
        for _ in range(10):
            say_everything()
        assert set(got["control.nobody"]) == {"c.1"}
        assert got.keys() == {"results.cam0", "public.cam0", "stats.test", "control.nobody"}
        assert not any(word in text for text in got["public.cam0"] for word in ("identity", "person", "name", "landm"))
    finally:
        for socket in sockets:
            socket.close()
        assert end(process) == 0


@pytest.mark.parametrize("locked", [False, True], ids=["without keys", "with keys"])
def test_a_subscriber_without_measure_costs_little_and_the_news_go_on(config: Config, locked: bool) -> None:
    ring = KeyRing(config.run_dir / "keys", key_pair)
    ring.make("server", ())
    settings = config.model_dump(mode="json") | {"security": {"loopback": locked, "keys_dir": str(ring.folder)}}
    own = configuration.load(overrides=settings, environment={})
    configuration.save(own, own.run_dir / "config.json")
    KeyRing(own.run_dir / "greedy").install(ring.make("greedy", ("subscriber",))[1])
    theirs = own.model_copy(update={"security": SecurityConfig(loopback=locked, keys_dir=own.run_dir / "greedy")})
    with (own.run_dir / "log").open("wb") as log:
        process = start_stage("bus", own, stderr=log)
    writer, reader = NewsWriter(own, "test.1"), NewsReader(own, ("stats.test",))
    came: list[float] = []

    def news_come() -> bool:
        writer.publish(a_stats(), "test")
        came.extend(time.monotonic() for _ in reader.read(timeout_ms=5))
        return bool(came)

    try:
        wait_until(news_come, 20, "news")
        before = psutil.Process(process.pid).memory_info().rss
        with opened("news_out", theirs.endpoint("news_out"), "xsub") as greedy:
            sent, until = 0, time.monotonic() + 4.0
            while time.monotonic() < until:
                for _ in range(200):
                    topic = b"%08d" % (sent // 2 if sent > 20_000 else sent)
                    # First ever more of them, which are long; then some that come and go as quickly as can be.
                    sent += greedy.send([b"\1" + topic * 30 if sent < 20_000 else bytes([sent % 2]) + b"a"])
                news_come()
            greedy.send([b"\1" + b"x" * 20_000], timeout_ms=1000)
            wait_until(lambda: not news_come() or time.monotonic() - came[-1] < 0.1, 5)
            gaps = [later - earlier for earlier, later in itertools.pairwise(came)]
            grown = (psutil.Process(process.pid).memory_info().rss - before) / 2**20
            print(f"the bus grew by {grown:.0f} MB, the longest gap was {max(gaps):.2f} s")
            # Without keys nobody can be kept out: it comes back, and all are hung up on again.
            assert max(gaps) < (1.5 if locked else 5) and grown < (64 if locked else 128)
        assert process.poll() is None
        assert "subscribes to far too much" in (own.run_dir / "log").read_text()
    finally:
        end(process)
        writer.close()
        reader.close()
