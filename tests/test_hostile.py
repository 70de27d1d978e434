"""Messages that nobody should send, on every socket that listens: counted, dropped, and nobody else notices."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from urllib.parse import urlsplit

import msgpack
import pytest

from common import clock
from common.config import Config
from common.messages import BY_KIND, DetectionFinding, ExpressionFinding, Frame, Ready, pack
from common.transport import Socket, opened
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


@pytest.mark.parametrize("channel", ["news_in", "news_out", "previews"])
def test_raw_bytes_on_a_public_port_disturb_nobody(config: Config, channel: str) -> None:
    with Running(config, "demo") as mien:
        mien.fresh_results(3)
        address = urlsplit(mien.config.endpoint(channel))
        assert address.hostname and address.port
        chance = random.Random(7)
        greeting = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00NULL" + bytes(48)  # ZMTP's own, then nonsense
        held = []
        for number in range(100):
            connection = socket.create_connection((address.hostname, address.port), timeout=5)
            connection.sendall(chance.choice([b"", b"GET / HTTP/1.1\r\n\r\n", chance.randbytes(300), greeting]))
            connection.sendall(struct.pack(">BQ", 2, 2**62)) if number % 3 else held.append(connection)
            if number % 3:
                connection.close()
        assert mien.fresh_results(10)[-1].faces
        for connection in held:  # half-open until now
            connection.close()
