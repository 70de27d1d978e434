"""Programs hear the news as they come, by Server-Sent Events and by WebSocket; one that stops reading harms nobody."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from common.messages import Alert, CameraState, Correction, Result
from common.news import NewsWriter
from common.page import access
from common.page.api import Events
from common.page.stream import WAITING, Item, Streams, as_event
from common.schemas import EXAMPLES
from common.settings import Config
from common.store import Store
from tests.conftest import end, own_config, start_stage
from tests.page.serving import Served, add_user


def example(kind: type[Any], **changes: Any) -> Any:
    return kind.model_validate_json(json.dumps(EXAMPLES[kind][1] | changes))


class Publisher:
    """Results of two cameras, now and then a word of everything else, from a thread."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._end = threading.Event()
        self.rate = 40.0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        writer = NewsWriter(self._config, "conductor.ward.1")
        seq = 0
        while not self._end.wait(1 / self.rate):
            seq += 1
            for camera in ("cam0", "cam1"):
                writer.publish(example(Result, camera=camera, seq=seq), camera)
            if seq % 10 == 0:
                writer.publish(example(CameraState), "cam0")
                writer.publish(example(Alert), "cam0")
                writer.publish(example(Correction), "cam0")
        writer.close()

    def close(self) -> None:
        self._end.set()
        self._thread.join()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A bus, the page and a publisher for all of these tests: none of them changes what the others see."""
    with tempfile.TemporaryDirectory(prefix="mien") as folder:
        config = own_config(Path(folder), tmp_path_factory.mktemp("data"))
        add_user(config, "the admin", "admin")
        bus = start_stage("bus", config)
        publisher = Publisher(config)
        try:
            with Served(config, Path(folder) / "page.log") as page:
                yield page.await_ready()
        finally:
            publisher.close()
            end(bus)


@pytest.fixture
def token(served: Served) -> str:
    with Store(served.config.storage.data_dir) as store:
        return access.add_token(store, "a program")


@contextmanager
def listening(served: Served, token: str, **query: Any) -> Iterator[Iterator[tuple[str, Any]]]:
    """Server-Sent Events as httpx reads them: (event, data)."""
    headers = {"authorization": f"Bearer {token}"}

    def events(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
        event = ""
        for line in lines:
            if line.startswith("event: "):
                event = line.removeprefix("event: ")
            elif line.startswith("data: "):
                yield event, json.loads(line.removeprefix("data: "))

    with httpx.stream("GET", f"{served.address}/api/v1/stream", params=query, headers=headers, timeout=10) as answer:
        assert answer.status_code == 200, answer.read()
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield events(answer.iter_lines())


def socket_of(served: Served, token: str, query: str = "", **headers: str) -> ClientConnection:
    address = served.address.replace("http", "ws") + "/api/v1/stream" + query
    return connect(address, additional_headers={"authorization": f"Bearer {token}"} | headers, proxy=None)


def test_a_program_hears_the_topics_and_cameras_it_asks_for_at_the_rate_it_asks_for(served: Served, token: str) -> None:
    with listening(served, token) as events:
        heard: dict[str, list[Any]] = {}
        for event, data in events:
            heard.setdefault(event, []).append(data)
            cameras = {data["camera"] for data in heard.get("results", [])}
            if len(heard.get("alerts", [])) >= 2 and len(heard) >= 4 and len(cameras) == 2:
                break
    assert set(heard) - {"missed"} == {"results", "corrections", "camera", "alerts"}
    assert {data["camera"] for data in heard["results"]} == {"cam0", "cam1"}
    first = Result.model_validate_json(json.dumps(heard["results"][0]))
    assert first.faces[0].identity.name == "Ada"
    with listening(served, token, topics="results", cameras="cam1", rate=5, names=False) as events:
        began = time.monotonic()
        some = [next(events) for _ in range(6)]
        lasted = time.monotonic() - began
    assert {(event, data["camera"]) for event, data in some} == {("results", "cam1")}
    assert lasted >= 0.8  # six at five a second
    assert "Ada" not in json.dumps(some) and some[0][1]["faces"][0]["identity"]["status"] == "known"


def test_a_websocket_says_the_same(served: Served, token: str) -> None:
    with socket_of(served, token, "?topics=results,stats&cameras=cam0") as heard:
        topics = set()
        while topics != {"results.cam0", "stats.bus", "stats.dashboard"}:
            said = json.loads(heard.recv(timeout=10))
            topics |= {said["topic"]} - {"missed"}
        browser = served.logged_in("the admin")
        cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        address = served.address.replace("http", "ws") + "/api/v1/stream"
        with connect(address, origin=served.address, additional_headers={"cookie": cookie}, proxy=None) as page:  # type: ignore[arg-type]
            assert json.loads(page.recv(timeout=10))["message"]["v"] == 1


def test_who_may_not_listen_does_not(served: Served, token: str) -> None:
    address = f"{served.address}/api/v1/stream"
    assert httpx.get(address).status_code == 401
    bearer = {"authorization": f"Bearer {token}"}
    wrong = httpx.get(address, params={"topics": "control"}, headers=bearer)
    assert wrong.status_code == 422 and "there are results, corrections" in wrong.text
    for refused in (
        lambda: socket_of(served, "mien_wrong"),
        lambda: socket_of(served, token, origin="https://elsewhere.example"),
        lambda: socket_of(served, token, "?topics=reply"),
    ):
        with pytest.raises(InvalidStatus) as error:
            refused()
        assert error.value.response.status_code == 403


def test_a_token_that_is_taken_back_ends_its_streams(served: Served, token: str) -> None:
    with listening(served, token, topics="results", rate=10) as events, socket_of(served, token) as heard:
        next(events)
        with Store(served.config.storage.data_dir) as store:
            one = access.tokens(store)[0]  # the newest
            access.remove_token(store, one.id)
        deadline = time.monotonic() + 10
        for _ in events:
            assert time.monotonic() < deadline
        with pytest.raises(ConnectionClosed):
            while time.monotonic() < deadline:
                heard.recv(timeout=10)


def test_clients_that_stop_reading_cost_nothing_and_hold_up_nobody(served: Served, token: str) -> None:
    stage = psutil.Process(served.process.pid)
    host, port = "127.0.0.1", served.config.dashboard.port
    request = f"GET /api/v1/stream HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {token}\r\n\r\n"
    stuck: list[socket.socket] = []
    with listening(served, token, topics="results", cameras="cam0") as events:
        try:
            for _ in range(20):
                client = socket.socket()
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.connect((host, port))
                client.sendall(request.encode())
                stuck.append(client)
            seqs: list[int] = []
            before = most = stage.memory_info().rss
            for _ in range(200):  # five seconds: the buffers of the stuck ones fill in one or two
                seqs.append(next(events)[1].get("seq", -1))
                most = max(most, stage.memory_info().rss)
            heard = [seq for seq in seqs if seq >= 0]
            assert len(heard) >= 0.8 * (heard[-1] - heard[0] + 1), "somebody else is held up"
            assert most - before < 20 * 2**20
        finally:
            for client in stuck:
                client.close()


def test_of_results_the_newest_waits_of_the_rest_the_last_and_what_is_left_out_is_told() -> None:
    streams = Streams()
    stream = streams.join(topics="", cameras="", rate=None, names=True)
    for seq in range(5):
        streams.take("results.cam0", example(Result, seq=seq))
    for serial in range(WAITING + 3):
        streams.take("alerts.cam0", example(Alert, serial=serial))
    assert stream._pop() == Item("missed", '{"missed":7}')
    alerts = [json.loads(item.text)["serial"] for item in iter(stream._pop, None) if item.kind == "alerts"]
    assert alerts == list(range(3, WAITING + 3))
    streams.take("results.cam0", example(Result, seq=9))
    item = stream._pop()
    assert item is not None and json.loads(item.text)["seq"] == 9
    assert streams.wants("cam0") and streams.wants("cam7")
    streams.leave(stream)
    assert not streams.reads_results and not streams.wants("cam0")


def test_one_that_takes_nothing_is_not_written_for_until_it_reads_again(monkeypatch: pytest.MonkeyPatch) -> None:
    # By the class: tests with the page take modules away and load them anew.
    monkeypatch.setitem(Streams.__init__.__globals__, "STALLED_S", 0.05)

    async def scene() -> None:
        streams = Streams()
        stream = streams.join(topics="results", cameras="cam0", rate=None, names=True)
        following = stream.follow(_yes)
        streams.take("results.cam0", example(Result))
        await anext(following)  # handed over, and not sent yet
        deadline = time.monotonic() + 10
        while not stream.stalled():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        streams.count()
        assert not streams.wants("cam0")
        streams.take("results.cam0", example(Result))
        said = await anext(following)
        assert said == Item("missed", '{"missed":1}')
        streams.count()
        assert streams.wants("cam0")
        stream.end()
        assert [item async for item in following] == []

    asyncio.run(scene())


async def _yes() -> bool:
    return True


@pytest.mark.parametrize("broken", [OSError("gone"), asyncio.CancelledError()])
def test_a_program_that_goes_before_the_first_word_has_left(broken: BaseException) -> None:
    async def go() -> None:
        streams = Streams()
        joined = streams.join(topics="", cameras="", rate=None, names=True)

        async def events() -> AsyncIterator[str]:
            async for item in joined.follow(_yes):
                yield as_event(item)

        async def send(message: Any) -> None:
            raise broken

        async def receive() -> Any:
            await asyncio.Event().wait()

        scope = {"type": "http", "asgi": {"spec_version": "2.4"}}
        with contextlib.suppress(BaseException):
            await Events(events(), leave=lambda: streams.leave(joined))(scope, receive, send)
        assert not streams.open

    asyncio.run(go())


async def _yes() -> bool:
    return True
