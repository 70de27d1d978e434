"""Messages that nobody should send, on every socket that listens: counted, dropped, and nobody else notices."""

from __future__ import annotations

import contextlib
import itertools
import random
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import msgpack
import pytest

from common import clock
from common.keys import KeyRing
from common.messages import BY_KIND, DetectionFinding, ExpressionFinding, Frame, Ready, Result, pack
from common.news import NewsReader
from common.settings import Config, SecurityConfig
from common.transport import Socket, key_pair, opened
from tests.conftest import end, free_ports, start_stage, wait_until
from tests.running import Running

NESTED = b"\x91" * 1000 + b"\xc0"  # an array in an array, 1000 deep
NESTED_MAP = b"\x81\xa1v" * 1000 + b"\x01"
EXTENSION = b"\xc7\x05\x01hello"
CLAIMS = (
    b"\xdf\xff\xff\xff\xff",  # a map of 4 G entries
    b"\xdd\xff\xff\xff\xff",  # an array
    b"\xdb\xff\xff\xff\xff",  # a text
    b"\xc6\xff\xff\xff\xff",  # bytes
)


def frame(**changes: object) -> Frame:
    fields: dict[str, object] = {
        "from": "capture.evil.1", "camera": "cam0", "run": 1, "seq": 1, "captured_at": 1.0, "width": 4, "height": 4,
        "age_ms": 0.0, "clock": clock.reading(1), "media_time_s": 0.0,
    }  # fmt: skip
    return Frame.model_validate(fields | changes)


def garbage(seed: int) -> Iterator[list[bytes]]:
    """Yield messages that are wrong in one way each, and then a lot of random ones."""
    chance = random.Random(seed)
    whole = pack(frame())
    for kind in (*BY_KIND, "results.cam0", "nonsense", "", "\x00\x01"):
        for body in (
            b"",
            NESTED,
            NESTED_MAP,
            *CLAIMS,
            whole[: len(whole) // 2],
            b"\xc7\x05\x01hello",
            b"\x00" * 70_000,
        ):
            yield [kind.encode(), body]
        yield [kind.encode()]
        yield [kind.encode(), msgpack.packb({"v": 1, "from": "x", "camera": float("nan")})]
        yield [kind.encode(), msgpack.packb({"v": 1, 3: 4}), b"pixels"]
        yield [kind.encode(), msgpack.packb([1, 2, 3])]
    yield [b"frame", pack(frame(width=16384, height=16384)), b"short"]
    yield [b"frame", pack(frame(encoding="jpeg", run=0)), b"\xff\xd8 no picture"]
    yield [b"frame", pack(frame(camera="nowhere")), bytes(48)]
    yield [b"frame", pack(frame())]
    yield [b"frame", pack(frame()), bytes(48), bytes(48)]
    yield [b"ready", pack(Ready(sender="detection.ghost.1", pool="detection", last_job=-1))]
    yield [b"found.detection", pack(DetectionFinding(sender="detection.ghost.1", job=1, work_ms=0.0, count=64))]
    yield [b"found.expression", pack(ExpressionFinding(sender="x", job=2**40, work_ms=0.0, count=3)), b"\x00"]
    for _ in range(300):
        yield [chance.randbytes(chance.randrange(40)) for _ in range(chance.randrange(1, 6))]
        damaged = bytearray(whole)
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        yield [b"frame", bytes(damaged), bytes(48)]


def throw(config: Config, channel: str, role: str, seed: int) -> int:
    """Send all the garbage to a channel; return how many messages went out."""
    sent = 0
    with opened(channel, config.endpoint(channel), role, linger_ms=2000) as end:
        for message in garbage(seed):
            sent += end.send(message, timeout_ms=2000)
    return sent


def subscribe_wildly(config: Config, channel: str) -> Socket:
    end = opened(channel, config.endpoint(channel), "sub")
    for topic in (b"", b"\xff" * 5000, b"preview.\x00", NESTED, b"detection.ghost.1/"):
        end.subscribe(topic)
    return end


def test_garbage_on_every_socket_is_counted_and_dropped_and_the_work_goes_on(config: Config) -> None:
    with Running(config, "demo") as mien:
        mien.fresh_results(5)
        before = {
            stage: [p.pid for p in mien.processes(stage)] for stage in ("bus", "conductor", "detection", "preview")
        }
        for seed, (channel, role) in enumerate(
            (("frames", "push"), ("findings", "push"), ("news_in", "pub"), ("frames", "push"), ("findings", "push"))
        ):
            assert throw(mien.config, channel, role, seed) > 500, channel
        ends = [subscribe_wildly(mien.config, channel) for channel in ("jobs", "pictures", "previews", "news_out")]
        mien.fresh_results(20)
        for end in ends:
            end.close()
        result = mien.fresh_results(10)[-1]
        assert result.faces and result.faces[0].track == 1
        assert {stage: [p.pid for p in mien.processes(stage)] for stage in before} == before
        conductor = mien.until(
            lambda: next((s for s in mien.stats.values() if s.stage == "conductor" and s.bad_messages > 500), None),
            "the conductor counts bad messages",
        )
        assert conductor.rss_mb < 400
        lines = [line for line in mien.said().splitlines() if "bad message" in line]
        assert 1 <= len(lines) < 60  # told, but not once a message


def test_a_flood_of_subscriptions_keeps_nobody_from_work_and_fills_no_log(
    config: Config, bus: subprocess.Popen[bytes]
) -> None:
    with (config.run_dir / "log").open("wb") as log:
        stages = [start_stage(name, config, stderr=log) for name in ("conductor", "preview")]
    reader = NewsReader(config, ("stats.conductor", "stats.preview"))
    heard: dict[str, list[float]] = {"stats.conductor": [], "stats.preview": []}
    stop = threading.Event()

    def read() -> bool:
        for topic, _ in reader.read(timeout_ms=50):
            heard[topic].append(time.monotonic())
        return all(heard.values())

    def flood(channel: str) -> None:
        with opened(channel, config.endpoint(channel), "xsub") as ghost:
            while not stop.is_set():
                for word in (b"\1ghost/", b"\0ghost/") * 500:
                    ghost.send([word], timeout_ms=100)

    threads = [threading.Thread(target=flood, args=(channel,)) for channel in ("jobs", "pictures", "previews")]
    try:
        wait_until(read, 60, "figures of both")
        for thread in threads:
            thread.start()
        until = time.monotonic() + 6
        wait_until(lambda: not read() or time.monotonic() > until, 10)
        for stage, times in heard.items():
            gaps = [later - earlier for earlier, later in itertools.pairwise([*times, time.monotonic()])]
            assert max(gaps) < 4, (stage, gaps)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
        for process in stages:
            assert end(process) == 0
        reader.close()
    assert len((config.run_dir / "log").read_text().splitlines()) < 300


LISTENS = {"frames": "push", "findings": "push", "news_in": "pub", "control": "pub", "jobs": "sub", "pictures": "sub",
           "previews": "sub", "news_out": "sub", "news_public": "sub"}  # fmt: skip
MOST_GROWTH_MB = 64


def locked(config: Config) -> dict[str, dict[str, object]]:
    """Return settings that put every channel on a TCP port of its own that opens with keys only; the keys are made."""
    folder = config.run_dir / "keys"
    KeyRing(folder, key_pair).make("server", ())
    ports = dict(zip(LISTENS, free_ports(len(LISTENS)), strict=True))
    return {
        "endpoints": {channel: f"tcp://127.0.0.1:{port}" for channel, port in ports.items()},
        "security": {"loopback": True, "keys_dir": str(folder)},
    }


def replays(seen: Result, ghost: str) -> Iterator[list[bytes]]:
    """Yield what was true once, or is true of something else."""
    again = {"run": seen.run, "camera": seen.camera, "captured_at": seen.captured_at}
    size = seen.width * seen.height * 3
    yield [b"frame", pack(frame(**again, seq=0, width=seen.width, height=seen.height)), bytes(size)]
    yield [b"frame", pack(frame(**again, seq=seen.seq, width=seen.width, height=seen.height)), bytes(size)]
    yield [b"frame", pack(frame(**again, seq=2**50, width=seen.height, height=seen.width)), bytes(size - 3)]
    for job in (0, 1, 2**60):
        found = DetectionFinding(sender=ghost, job=job, work_ms=0.0, count=0)
        yield [b"found.detection", pack(found), b"", b"", b"", b"", b""]
        yield [b"found.expression", pack(ExpressionFinding(sender=ghost, job=job, work_ms=0.0, count=0)), b""]


def connections(address: tuple[str, int], chance: random.Random, count: int) -> list[socket.socket]:
    """Connect and send what is no ZMTP, or only its beginning; return those that stay half-open."""
    null = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00NULL" + bytes(48)
    curve = null.replace(b"NULL" + bytes(1), b"CURVE")
    hello = b"\x04\xc8\x05HELLO" + chance.randbytes(194)
    held = []
    for number in range(count):
        connection = socket.create_connection(address, timeout=5)
        begins = [b"", b"GET / HTTP/1.1\r\n\r\n", chance.randbytes(300), null, null[:11], curve, curve + hello,
                  curve + hello[:40], curve + struct.pack(">BQ", 6, 2**62)]  # fmt: skip
        with contextlib.suppress(OSError):  # it may have hung up already
            connection.sendall(chance.choice(begins))
            connection.sendall(struct.pack(">BQ", 2, 2**62) if number % 3 else b"")
        if number % 3:
            connection.close()
        else:
            held.append(connection)
    return held


@pytest.mark.parametrize(
    "count", [3_000, pytest.param(100_000, marks=[pytest.mark.slow, pytest.mark.timeout(1500)])], ids=["short", "long"]
)
def test_every_locked_socket_stands_what_strangers_and_traitors_send(config: Config, count: int) -> None:
    page = {"dashboard": {"enabled": count > 10_000}}  # which takes long to start
    with Running(config, "demo", **locked(config), **page) as mien:
        mien.fresh_results(10)
        stages = ("bus", "conductor", "detection", "preview", "capture", "dashboard")
        strange = KeyRing(config.run_dir / "strange", key_pair)
        strange.make("server", ())
        # Strangers: no key, another key; and bytes that are not even ZeroMQ.
        unknown = mien.config.model_copy(update={"security": SecurityConfig(loopback=True, keys_dir=strange.folder)})
        plain = mien.config.model_copy(update={"security": SecurityConfig()})
        strangers = [
            subscribe_wildly(own, channel) if role == "sub" else opened(channel, own.endpoint(channel), role)
            for own in (unknown, plain) for channel, role in LISTENS.items()
        ]  # fmt: skip
        held: list[socket.socket] = []
        sent = 0
        before = {stage: [p.pid for p in mien.processes(stage)] for stage in stages}
        chance = random.Random(7)
        share = count // 10 // len(LISTENS)
        addresses = [urlsplit(mien.config.endpoint(channel)) for channel in LISTENS]
        if mien.config.dashboard.enabled:
            mien.until(
                lambda: any(s.stage == "dashboard" and s.state == "running" for s in mien.stats.values()), "page"
            )
            addresses.append(urlsplit(f"tcp://127.0.0.1:{mien.config.dashboard.port}"))
        for address in addresses:
            assert address.hostname and address.port
            for _ in range(max(1, share // 100)):
                held += connections((address.hostname, address.port), chance, min(100, share))
                sent += min(100, share)
                for connection in held[100:]:
                    connection.close()
                held = held[:100]
        assert mien.fresh_results(5)[-1].faces
        for end in strangers:
            if end.channel.kind == "push-pull":
                assert not end.send([b"ready", b"x"]), f"{end.channel.name} takes what strangers send"
            elif end.channel.kind == "xpub-sub":
                assert end.receive() is None, f"{end.channel.name} tells strangers something"
            else:
                end.send([b"results.cam0", b"x"])
        warm = memory(mien, ("bus", "conductor", "preview"))
        # Traitors: they have a key for the channel, and send what is wrong with it.
        traitors = {
            channel: opened(channel, mien.config.endpoint(channel), role)
            for channel, role in LISTENS.items()
            if role != "sub"
        }
        listeners = [subscribe_wildly(mien.config, channel) for channel, role in LISTENS.items() if role == "sub"]
        upstream = [
            opened(channel, mien.config.endpoint(channel), "xsub") for channel, r in LISTENS.items() if r == "sub"
        ]

        def worker() -> str | None:
            return next((name for name, stats in mien.stats.items() if stats.stage == "detection"), None)

        ghost = mien.until(worker, "a detection worker says how it is")
        seed = refused = 0
        while sent < count:
            seed += 1
            for message in (*garbage(seed), *replays(mien.results[-1], ghost)):
                for channel, end in traitors.items():
                    # The bus subscribes to requests only, and a publisher's socket leaves out the rest by itself.
                    parts = [b"control." + message[0], *message[1:]] if channel == "control" and message else message
                    taken = end.send(parts, timeout_ms=2000 if end.channel.kind == "push-pull" else 0)
                    refused += not taken
                    sent += taken
                for end in upstream:  # no subscriptions, but messages up the wrong way
                    sent += end.send([part or b"\x02" for part in message])
                if sent >= count:
                    break
            seen = mien.fresh_results(3)
            assert all(face.track == 1 for result in seen for face in result.faces)
        assert refused < count / 10
        for end in (*traitors.values(), *listeners, *upstream, *strangers):
            end.close()
        assert mien.fresh_results(20)[-1].faces[0].track == 1
        numbers = [(result.run, result.seq) for result in mien.results]
        assert numbers == sorted(set(numbers))
        assert {stage: [p.pid for p in mien.processes(stage)] for stage in stages} == before
        grown = {stage: size - warm[stage] for stage, size in memory(mien, tuple(warm)).items()}
        print(f"{sent} messages; memory grew by (MB) {grown}")
        assert max(grown.values()) < MOST_GROWTH_MB
        for connection in held:
            connection.close()


def memory(mien: Running, stages: tuple[str, ...]) -> dict[str, float]:
    """Return the resident memory of stages, in MB."""
    return {stage: mien.processes(stage)[0].memory_info().rss / 2**20 for stage in stages}
