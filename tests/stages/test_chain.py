"""Two cells are one for whoever listens and asks at the hub: real buses, real cells, one store on a real server."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common import config as configuration
from common import people
from common.config import ConfigError, load
from common.control import ask
from common.keys import KeyRing
from common.messages import CameraState, Control, Reply
from common.news import NewsReader, NewsWriter
from common.place import Place
from common.plan import plan
from common.settings import Config
from common.store import Store
from common.transport import key_pair
from common.watching import Viewer, read
from tests.conftest import await_bus, end, free_ports, start_stage, wait_until
from tests.databases import Server
from tests.people import own_data_dir
from tests.running import Running


def cell_of(hub: Config, run_dir: Path, **settings: Any) -> Config:
    """A configuration beside the hub's, whose news go there."""
    news_in, news_out, previews = free_ports(3)
    own = {"news_in": news_in, "news_out": news_out, "previews": previews}
    made = hub.model_dump(mode="json") | settings
    made["run_dir"] = str(run_dir)
    made["endpoints"] |= {name: f"tcp://127.0.0.1:{port}" for name, port in own.items()}
    made["cell"] |= {"hub_news_in": hub.endpoints.news_in, "hub_news_out": hub.endpoints.news_out}
    run_dir.mkdir(exist_ok=True)
    config = configuration.load(overrides=made, environment={})
    configuration.save(config, run_dir / "config.json")
    return config


@pytest.fixture
def leaf(config: Config, bus: subprocess.Popen[bytes]) -> Iterator[Config]:
    """The bus and the chain of a second cell."""
    made = cell_of(config, config.run_dir / "leaf")
    processes = [start_stage("bus", made)]
    try:
        await_bus(made)
        processes.append(start_stage("chain", made))
        yield made
    finally:
        for process in reversed(processes):
            assert end(process) == 0


def test_news_go_up_and_requests_come_down_and_nothing_goes_round(config: Config, leaf: Config) -> None:
    hub_ears, leaf_ears = NewsReader(config, ("camera.", "control.")), NewsReader(leaf, ("camera.", "control."))
    hub, cell = NewsWriter(config, "test.hub"), NewsWriter(leaf, "test.leaf")
    state = CameraState(sender="test.leaf", camera="east", state="online", since=1.0)
    replies = NewsReader(config, (f"reply.{'7' * 32}",))

    def heard_of_it() -> bool:
        cell.publish(state, "east")
        return any(topic == "camera.east" for topic, _ in hub_ears.read(timeout_ms=50))

    try:
        wait_until(heard_of_it, 20, "the hub hears the cell")
        request = Control.model_validate({"from": "test.hub", "request": "7" * 32, "do": "nothing"})

        def asked() -> bool:
            hub.publish(request, "test-leaf")
            return any(topic == "control.test-leaf" for topic, _ in leaf_ears.read(timeout_ms=50))

        wait_until(asked, 20, "the cell is asked")
        cell.publish(Reply(sender="test.leaf", request="7" * 32, ok=True, result={}), "7" * 32)
        wait_until(lambda: replies.read(timeout_ms=50), 20, "the answer comes")
        hub.publish(state.model_copy(update={"camera": "west"}), "west")  # the hub's own stay there
        cell.publish(request, "for-this-cell")
        cell.publish(state.model_copy(update={"camera": "last"}), "last")
        up: list[str] = []
        wait_until(lambda: up.extend(topic for topic, _ in hub_ears.read(timeout_ms=50)) or "camera.last" in up, 20)
        down: list[str] = []
        wait_until(
            lambda: down.extend(topic for topic, _ in leaf_ears.read(timeout_ms=50)) or "camera.last" in down, 20
        )
        assert "control.for-this-cell" not in up and "camera.west" not in down
        assert down.count("control.for-this-cell") == 1 and down.count("camera.last") == 1
    finally:
        for socket in (hub_ears, leaf_ears, hub, cell, replies):
            socket.close()


def test_cells_that_open_with_keys_have_the_same_one(config: Config, run_dir: Path) -> None:
    keys = run_dir / "hub-keys"
    KeyRing(keys, key_pair).make("server", ())
    shutil.copytree(keys, run_dir / "leaf-keys")
    locked = config.model_dump(mode="json") | {"security": {"loopback": True, "keys_dir": str(keys)}}
    hub = load(overrides=locked, environment={})
    configuration.save(hub, run_dir / "config.json")
    leaf = cell_of(hub, run_dir / "leaf", security={"loopback": True, "keys_dir": str(run_dir / "leaf-keys")})
    processes = [start_stage("bus", hub), start_stage("bus", leaf), start_stage("chain", leaf)]
    ears, cell = NewsReader(hub, ("camera.",)), NewsWriter(leaf, "test.leaf")
    asker, asked = NewsWriter(hub, "test.hub", channel="control"), NewsReader(leaf, ("control.",))
    state = CameraState(sender="test.leaf", camera="east", state="online", since=1.0)
    request = Control.model_validate({"from": "test.hub", "request": "7" * 32, "do": "nothing"})

    def heard_of_it() -> bool:
        cell.publish(state, "east")
        return bool(ears.read(timeout_ms=50))

    def is_asked() -> bool:
        asker.publish(request, "test-leaf")
        return bool(asked.read(timeout_ms=50))

    try:
        wait_until(heard_of_it, 30, "the hub hears the cell")
        wait_until(is_asked, 30, "the cell is asked")
    finally:
        for socket in (ears, cell, asker, asked):
            socket.close()
        for process in reversed(processes):
            assert end(process) == 0


def test_a_cell_starts_what_is_its_own_and_the_hub_what_is_everybodys(config: Config, tmp_path: Path) -> None:
    both = {"cameras": {"east": {}, "west": {}}}
    hub = load(overrides=config.model_dump(mode="json") | both | {"cell": {"cameras": ["west"]}}, environment={})
    leaf = cell_of(hub, tmp_path / "leaf", cell={"cameras": ["east"]})
    started = {name: {spec.name for spec in plan(one, screen=False)} for name, one in (("hub", hub), ("leaf", leaf))}
    assert {"capture.west", "alerts", "history", "dashboard"} <= started["hub"] and "chain" not in started["hub"]
    assert {"capture.east", "chain", "snapshot"} <= started["leaf"] and "capture.west" not in started["leaf"]
    assert not {"alerts", "history", "dashboard"} & started["leaf"]
    with pytest.raises(ConfigError, match=r"there is no camera 'north'"):
        load(overrides={"cell": {"cameras": ["north"]}}, environment={})
    with pytest.raises(ConfigError, match="belong together"):
        load(overrides={"cell": {"hub_news_in": "tcp://127.0.0.1:5570"}}, environment={})


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_cells_know_the_same_people_and_strangers(config: Config, run_dir: Path, shared_server: Server) -> None:
    url = shared_server.database()
    data = {name: own_data_dir(run_dir / name / "data") for name in ("hub", "leaf")}
    place = Place(data["hub"], url)
    Store(place).close()
    shutil.copy(data["hub"] / "mien.key", data["leaf"] / "mien.key")
    cameras = {name: {"source": "demo", "max_rate": 5} for name in ("west", "east")}
    base = config.model_dump(mode="json")
    base |= {"cameras": cameras, "workers": {"detection": 1}, "run_dir": str(run_dir / "h")}
    base |= {"dashboard": {"enabled": False}, "storage": {"data_dir": str(data["hub"]), "url": url}}
    hub = load(overrides=base | {"cell": {"cameras": ["west"]}}, environment={})
    leaf = cell_of(hub, run_dir / "l", storage={"data_dir": str(data["leaf"]), "url": url}, cell={"cameras": ["east"]})
    hub = hub.model_copy(update={"cell": hub.cell.model_copy(update={"previews": (leaf.endpoints.previews,)})})
    latest: dict[str, Any] = dict.fromkeys(cameras)
    tracks: dict[str, set[int]] = {name: set() for name in cameras}
    with Cell(hub, run_dir / "hub.json") as first:
        with Store(place) as store:
            wait_until(lambda: people.unknown_people(store), 300, "a stranger is written down")
        with Cell(leaf, run_dir / "leaf.json") as second:
            ears = NewsReader(hub, ("results.",))

            def seen(what: str) -> set[Any]:
                for _, result in ears.read(timeout_ms=50):
                    for face in result.faces:
                        latest[result.camera] = face
                        tracks[result.camera].add(face.track)
                return {face and getattr(face.identity, what) for face in latest.values()}

            # The same stranger in front of both: one number.
            watched(
                first, second, lambda: wait_until(lambda: len(found := seen("number")) == 1 and None not in found, 300)
            )
            with Store(place) as store:
                numbers = seen("number") & {one.number for one in people.unknown_people(store)}
                people.from_unknown(store, numbers.pop(), "Wanda")
            watched(first, second, lambda: wait_until(lambda: seen("name") == {"Wanda"}, 60, "named in both"))
            viewer, shown = Viewer(hub), set[str]()
            viewer.watch(*cameras)

            def pictured() -> bool:
                while (parts := viewer.receive()) is not None:
                    shown.add(read(parts).preview.result.camera)
                return shown == {"west", "east"}

            watched(first, second, lambda: wait_until(pictured, 60, "pictures of both cells"))
            viewer.close()
            # Asked at the hub, answered by the conductor whose camera it is.
            track = latest["east"].track
            answered = ask(hub, "conductor", "select", timeout_s=20, camera="east", track=track)
            assert answered.sender.endswith(f".{second.processes('conductor')[0].pid}")
            ears.close()
    assert not tracks["west"] & tracks["east"]
    with Store(place) as store:
        assert {one.camera for one in people.sightings_of(store, people.find(store, "Wanda").id)} == {"west", "east"}


def watched(first: Running, second: Running, wait: Callable[[], Any]) -> None:
    """Wait; when it is in vain, show what both cells have said."""
    try:
        wait()
    except BaseException:
        print(first.said()[-4000:], second.said()[-4000:], sep="\n--- the other cell ---\n")
        raise


class Cell(Running):
    """A running Mien with exactly this configuration."""

    def __init__(self, config: Config, path: Path) -> None:
        self.path, self.config, self.log = path, config, path.with_suffix(".log")
        configuration.save(config, path)
        self._reader = NewsReader(config, ())
        self.results, self.states, self.stats = [], {}, {}
        self.process = self.started()
