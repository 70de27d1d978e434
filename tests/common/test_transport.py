"""Sockets: whole messages or none, nothing copied that is large, and errors that say which address and what to do."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from common.channels import CHANNELS, SMALL, Channel
from common.transport import Poller, Socket, TransportError, forward, opened
from tests.conftest import free_ports, wait_until


@pytest.fixture
def address(run_dir: Path) -> str:
    return f"ipc://{run_dir}/socket"


def small(name: str = "frames", queue: int = 1, max_bytes: int = SMALL) -> Channel:
    return Channel(
        name=name, kind="push-pull", binds="test", send_queue=queue, receive_queue=queue, max_bytes=max_bytes,
        when_full="",
    )  # fmt: skip


def texts(parts: list[memoryview] | None) -> list[bytes]:
    return [bytes(part) for part in parts or ()]


def test_a_message_arrives_whole_and_its_picture_unchanged(address: str) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (360, 640, 3), np.uint8)
    with opened("frames", address, "pull", bind=True) as pull, opened("frames", address, "push") as push:
        assert push.send([b"frame", b"map", picture], timeout_ms=2000)
        parts = pull.receive(timeout_ms=2000)
        assert parts is not None and [bytes(part) for part in parts[:2]] == [b"frame", b"map"]
        assert np.array_equal(np.frombuffer(parts[2], np.uint8).reshape(picture.shape), picture)
        assert pull.receive() is None


def test_received_parts_stay_valid_after_the_next_message(address: str) -> None:
    with opened("frames", address, "pull", bind=True) as pull, opened("frames", address, "push") as push:
        kept = []
        for value in range(4):
            assert push.send([np.full(200_000, value, np.uint8)], timeout_ms=2000)
            parts = pull.receive(timeout_ms=2000)
            assert parts is not None
            kept.append(parts[0])
        assert [int(np.frombuffer(part, np.uint8).mean()) for part in kept] == [0, 1, 2, 3]


def test_without_a_peer_nothing_is_queued(address: str) -> None:
    with opened("frames", address, "push") as push:
        began = time.monotonic()
        assert not push.send([b"frame"])
        assert not push.send([b"frame"], timeout_ms=100)
        assert 0.05 < time.monotonic() - began < 2


def test_a_full_queue_refuses_the_whole_message(address: str) -> None:
    large = np.zeros(300_000, np.uint8)
    with Socket(small(), address, "pull", bind=True) as pull, Socket(small(), address, "push", bind=False) as push:
        wait_until(lambda: push.send([b"x", large, large]))
        sent = 1
        while push.send([b"x", large, large], timeout_ms=100):
            sent += 1
            assert sent < 100
        received = 0
        while (parts := pull.receive(timeout_ms=300)) is not None:
            assert [len(part) for part in parts] == [1, 300_000, 300_000]
            received += 1
        assert received == sent


def test_a_part_that_is_too_long_is_refused_and_the_next_sender_served(address: str) -> None:
    channel = small(queue=8, max_bytes=1000)
    with Socket(channel, address, "pull", bind=True) as pull:
        with Socket(small(queue=8), address, "push", bind=False) as rude:
            wait_until(lambda: rude.send([b"x" * 5000]))
            assert pull.receive(timeout_ms=300) is None
        with Socket(channel, address, "push", bind=False) as polite:
            wait_until(lambda: polite.send([b"hello"]))
            assert texts(wait_until(lambda: pull.receive(timeout_ms=100))) == [b"hello"]


def test_a_poller_names_the_sockets_that_have_something(run_dir: Path) -> None:
    first, second = f"ipc://{run_dir}/1", f"ipc://{run_dir}/2"
    with (
        opened("findings", first, "pull", bind=True) as a,
        opened("findings", second, "pull", bind=True) as b,
        opened("findings", second, "push") as push,
    ):
        poller = Poller((a, b))
        assert poller.wait(10) == set()
        assert push.send([b"x"], timeout_ms=2000)
        assert poller.wait(2000) == {b}
        poller.remove(b)
        poller.remove(b)
        assert poller.wait(10) == set()


def test_a_subscriber_gets_its_topics_only_and_can_take_them_back(address: str) -> None:
    with opened("previews", address, "xpub", bind=True) as pub, opened("previews", address, "sub") as sub:
        sub.subscribe(b"preview.a")
        assert texts(pub.receive(timeout_ms=2000)) == [b"\x01preview.a"]
        pub.send([b"preview.b", b"no"])
        pub.send([b"preview.a", b"yes"])
        assert texts(sub.receive(timeout_ms=2000)) == [b"preview.a", b"yes"]
        sub.unsubscribe(b"preview.a")
        assert texts(pub.receive(timeout_ms=2000)) == [b"\x00preview.a"]


def test_forwarding_ends_within_its_time_under_a_flood(run_dir: Path) -> None:
    into, out = f"ipc://{run_dir}/in", f"ipc://{run_dir}/out"
    stop = threading.Event()

    def flood() -> None:
        with opened("news_in", into, "pub") as writer:
            while not stop.is_set():
                writer.send([b"stats.x", b"y"])

    with (
        opened("news_out", out, "xpub", bind=True) as front,
        opened("news_in", into, "xsub", bind=True) as back,
        opened("news_out", out, "sub") as reader,
    ):
        reader.subscribe(b"")
        thread = threading.Thread(target=flood)
        thread.start()
        try:
            wait_until(lambda: forward(front, back, timeout_ms=50) > 100)
            began = time.monotonic()
            forward(front, back, timeout_ms=50)
            assert time.monotonic() - began < 1
        finally:
            stop.set()
            thread.join()


@pytest.mark.parametrize(
    ("endpoint", "bind", "expected"),
    [
        ("tcp://127.0.0.1", True, "that is not an endpoint: write ipc://path or tcp://host:port"),
        ("tcp://203.0.113.77:5555", True, "other machines can reach it, and it was given without keys"),
        ("pigeon://roof", False, "write tcp://host:port"),
    ],
)
def test_a_wrong_endpoint_is_named_with_what_to_do(endpoint: str, bind: bool, expected: str) -> None:
    with pytest.raises(TransportError) as caught:
        opened("news_out", endpoint, "xpub", bind=bind)
    assert expected in str(caught.value)
    assert endpoint in str(caught.value) and "news_out" in str(caught.value)


def test_an_address_in_use_is_told() -> None:
    endpoint = f"tcp://127.0.0.1:{free_ports(1)[0]}"
    with opened("news_out", endpoint, "xpub", bind=True):
        with pytest.raises(TransportError, match="listens there already") as caught:
            opened("news_out", endpoint, "xpub", bind=True)
        assert caught.value.errno is None or isinstance(caught.value.errno, int)

    def free_again() -> bool:
        try:
            opened("news_out", endpoint, "xpub", bind=True).close()
        except TransportError:
            return False  # ZeroMQ closes in the background
        return True

    wait_until(free_again, 5)


def test_closing_twice_is_allowed(address: str) -> None:
    socket = opened("frames", address, "pull", bind=True)
    socket.close()
    socket.close()


def test_every_channel_says_who_binds_and_what_happens_when_it_is_full() -> None:
    for name, channel in CHANNELS.items():
        assert channel.name == name and channel.binds and channel.when_full
        assert channel.send_queue > 0 and channel.receive_queue > 0 and channel.max_bytes >= SMALL
