"""The bridge to MQTT, with a real broker that is killed, frozen and started again."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jinja2
import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from common import alert_store, people
from common import config as configuration
from common.config import ConfigError
from common.ledger import Ledger
from common.messages import Alert, CameraState, Result, Stats
from common.mqtt_view import HERE_S, REPEAT_S, CameraView
from common.news import NewsReader, NewsWriter
from common.plan import plan
from common.schemas import EXAMPLES
from common.settings import Config
from common.store import Store
from common.withholding import nameless
from tests.conftest import end, start_stage, wait_until
from tests.people import reference
from tests.servers import Server, mosquitto
from tests.showing import face, result


class Listener:
    """A client of the broker that notes everything; what the broker kept comes first."""

    def __init__(self, server: Server, *, ca: Path | None = None) -> None:
        broker = Config.model_validate({"mqtt": {"url": server.url}}).mqtt.broker()
        self.newest: dict[str, str] = {}
        self.all: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
        self._client.on_message = self._note
        if broker.user:
            self._client.username_pw_set(broker.user, broker.password)
        if ca is not None:
            self._client.tls_set(str(ca))
        self._client.connect(broker.host, broker.port)
        self._client.loop_start()

    def _note(self, client: Any, data: Any, message: Any) -> None:
        with self._lock:
            self.newest[message.topic] = message.payload.decode()
            self.all.append((message.topic, message.payload.decode()))

    def said(self, topic: str) -> Any:
        """Return the newest message of a topic, as JSON where it is; None before it comes."""
        text = self.newest.get(topic)
        return text if text is None or text[:1] not in "{[" else json.loads(text)

    def of(self, camera: str) -> int:
        """Return of how many topics of a camera's, Home Assistant's among them, there is a value."""
        with self._lock:
            return sum(bool(said) and camera in topic for topic, said in self.newest.items())

    def keep(self, topic: str, payload: str) -> None:
        """Have the broker keep something."""
        self._client.publish(topic, payload, qos=1, retain=True).wait_for_publish(10)

    def everything(self) -> str:
        with self._lock:
            return repr(self.all)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


class Ward:
    """What the other stages say: a result 20 times a second, a camera's state, and alerts when asked."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self.label = "sad"
        self.paused = False
        self._wanted: list[Alert] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def alert(self, serial: int) -> None:
        self._wanted.append(Alert.model_validate_json(json.dumps(EXAMPLES[Alert][1] | {"serial": serial})))

    def _run(self) -> None:
        writer = NewsWriter(self._config, "conductor.ward.1")
        while not self._end.wait(0.05):
            faces = (face(1, (10, 10, 90, 90), self.label, name="Ada"), face(2, (200, 10, 40, 40), reason="small"))
            if not self.paused:
                writer.publish(result(640, 360, faces), "cam0")
            state = CameraState(
                sender="capture.ward.1", camera="cam0", state="online", since=1.0, source="ada.mp4", paused=self.paused
            )
            writer.publish(state, "cam0")
            while self._wanted:
                writer.publish(self._wanted.pop(), "cam0")
        writer.close()

    def close(self) -> None:
        self._end.set()
        self._thread.join()


@pytest.fixture
def ward(bus: subprocess.Popen[bytes], config: Config) -> Iterator[Ward]:
    made = Ward(config)
    yield made
    made.close()


@contextmanager
def bridge(config: Config, log: Path, **mqtt: Any) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[], str]]]:
    """The stage, running; gives its process and what it has said."""
    changed = configuration.load(overrides=config.model_dump(mode="json") | {"mqtt": mqtt}, environment={})
    configuration.save(changed, config.run_dir / "config.json")
    with log.open("ab") as out:
        process = start_stage("mqtt", config, stdout=out, stderr=out)
    try:
        yield process, lambda: log.read_text(encoding="utf-8", errors="replace")
    finally:
        assert process.poll() is not None or end(process) == 0
        assert "Traceback" not in log.read_text(encoding="utf-8")


def test_home_assistant_hears_it_all_also_after_the_broker_was_killed(
    ward: Ward, config: Config, tmp_path: Path
) -> None:
    login = {"user": "mien", "password": "p:s/w@rd"}
    with mosquitto(tmp_path, **login) as server:
        server.url = server.url.replace("p:s/w@rd", "p%3As%2Fw%40rd")
        with bridge(config, tmp_path / "log", url=server.url, changes_per_s=10) as (process, said):
            heard = Listener(server)
            wait_until(lambda: (heard.said("mien/cam0/people") or {}).get("people") == 2, 40, "who is here")
            people = heard.said("mien/cam0/people")
            assert people["who"] == "Ada, unknown" and people["expression"] == "sad" and people["name"] == "Ada"
            assert heard.said("mien/status") == "online"
            assert heard.said("mien/cam0/alert")["open"] == "OFF"
            wait_until(lambda: heard.said("mien/cam0/state")["state"] == "online", 10, "the camera is online")
            whole = wait_until(lambda: heard.said("mien/cam0/results"), 10, "a whole result")
            assert Result.model_validate_json(json.dumps(whole)).faces[0].identity.name == "Ada"
            _check_discovery(heard)

            ward.label = "happy"
            began = time.monotonic()
            wait_until(lambda: heard.said("mien/cam0/people")["expression"] == "happy", 10, "the change")
            assert time.monotonic() - began < 3

            # Paused: nobody is seen, which is not called an empty room.
            assert heard.said("mien/cam0/state")["paused"] is False and people["pictures"] is True
            assert _available(heard, "people") == ["online", "online"]
            ward.paused = True
            wait_until(lambda: heard.said("mien/cam0/state")["paused"], 10, "the camera is paused")
            wait_until(lambda: heard.said("mien/cam0/people")["who"] == "nobody", 10, "nobody is seen")
            assert heard.said("mien/cam0/people")["pictures"] is False
            assert _available(heard, "people") == ["online", "offline"]
            assert _available(heard, "pictures") == ["online"]
            assert _shown(heard.said("homeassistant/binary_sensor/mien_cam0/pictures/config"), heard) == "OFF"
            ward.paused = False
            wait_until(lambda: heard.said("mien/cam0/people")["pictures"], 10, "it goes on")
            assert _shown(heard.said("homeassistant/binary_sensor/mien_cam0/pictures/config"), heard) == "ON"

            # Killed: it has forgotten everything, and what happens meanwhile is not lost.
            server.kill()
            heard.close()
            wait_until(lambda: "is lost" in said(), 20, "the loss is said")
            ward.label = "surprised"
            ward.alert(serial=301)
            server.start()
            heard = Listener(server)
            wait_until(lambda: (heard.said("mien/cam0/alerts") or {}).get("serial") == 301, 30, "the alert arrives")
            wait_until(lambda: heard.said("mien/cam0/people")["expression"] == "surprised", 10, "the state is new")
            assert heard.said("mien/status") == "online"
            _check_discovery(heard)

            # Ended: nobody's name stays written at the broker.
            assert end(process) == 0
            wait_until(lambda: heard.said("mien/status") == "offline", 10, "the farewell")
            assert heard.said("mien/cam0/people") | {"captured_at": None} == CameraView(
                "cam0", names=True, changes_per_s=1
            ).people(0.0)
            heard.close()
        with bridge(config, tmp_path / "log", url=server.url) as (process, _):
            heard = Listener(server)
            wait_until(lambda: heard.said("mien/status") == "online", 40, "it is back")
            process.kill()
            wait_until(lambda: heard.said("mien/status") == "offline", 10, "the broker says that it is gone")
            process.wait()
            heard.close()


def test_neither_an_end_nor_a_camera_that_is_taken_away_leaves_anything_of_somebody_at_the_broker(
    ward: Ward, config: Config, tmp_path: Path
) -> None:
    two = configuration.load(
        overrides=config.model_dump(mode="json") | {"cameras": {"cam0": {}, "cam1": {}}}, environment={}
    )
    with Store(config.storage.place) as store:
        ada = people.add(store, "Ada", [reference(1)])
    _open_episode(config, ada.id, "cam1")
    with mosquitto(tmp_path) as server:
        heard = Listener(server)
        heard.keep("mien/lamp/state", '"on"')  # another program's
        with bridge(two, tmp_path / "log", url=server.url) as (process, _):
            wait_until(lambda: (heard.said("mien/cam1/alert") or {}).get("name") == "Ada", 40, "what is open")
            assert heard.said("mien/cam1/alert")["open"] == "ON"
            wait_until(lambda: (heard.said("mien/cam0/state") or {}).get("state") == "online", 10, "it is online")
            wait_until(lambda: heard.of("cam1") >= 8, 10, "all of the second camera")
            assert end(process) == 0
        wait_until(lambda: heard.said("mien/status") == "offline", 10, "the farewell")
        for camera in ("cam0", "cam1"):
            assert heard.said(f"mien/{camera}/alert")["open"] == "OFF"
            assert heard.said(f"mien/{camera}/state")["state"] == "offline"
        assert "Ada" not in repr(heard.newest | {"mien/cam0/results": ""})  # which the broker does not keep

        with bridge(config, tmp_path / "log", url=server.url):
            wait_until(lambda: heard.of("cam1") == 0, 40, "the broker forgets the second camera")
            wait_until(lambda: (heard.said("mien/cam0/people") or {}).get("people") == 2, 10, "the first one stays")
            _check_discovery(heard)
        heard.close()
        afterwards = Listener(server)
        wait_until(lambda: afterwards.of("cam0") == 8 and afterwards.said("mien/lamp/state") == '"on"', 10, "the rest")
        assert afterwards.of("cam1") == 0
        afterwards.close()


def test_what_is_open_names_nobody_whose_consent_is_over(ward: Ward, config: Config, tmp_path: Path) -> None:
    with Store(config.storage.place) as store:
        ada = people.add(store, "Ada", [reference(1)])
    _open_episode(config, ada.id, "cam0")
    with mosquitto(tmp_path) as server, bridge(config, tmp_path / "log", url=server.url):
        heard = Listener(server)
        wait_until(lambda: (heard.said("mien/cam0/alert") or {}).get("name") == "Ada", 40, "what is open")
        with Store(config.storage.place) as store:
            people.change(store, "Ada", consent="refused")
        wait_until(lambda: heard.said("mien/cam0/alert")["open"] == "OFF", 40, "it is taken back")
        assert heard.said("mien/cam0/alert")["name"] is None
        heard.close()


def _open_episode(config: Config, person: int, camera: str) -> None:
    """Write down an open episode of somebody, as the alerts stage does."""
    with Ledger(config.storage.place) as ledger, ledger.write() as connection:
        began = time.time() - 45
        values = {
            "rule": "distress", "about": "expression", "camera": camera, "person_id": person, "label": "sad",
            "began_at": began, "opened_at": began + 10, "assessed_s": 35.0, "unassessed_s": 0.0, "text": "",
            "memory": "{}",
        }  # fmt: skip
        alert_store.save(connection, None, values)


def test_a_store_that_cannot_be_opened_at_the_start_is_waited_for_and_the_rest_goes_out(
    ward: Ward, config: Config, tmp_path: Path
) -> None:
    in_the_way = config.storage.data_dir / "mien.db"
    in_the_way.mkdir(parents=True)
    with mosquitto(tmp_path) as server, bridge(config, tmp_path / "log", url=server.url) as (_, said):
        heard = Listener(server)
        wait_until(lambda: (heard.said("mien/cam0/people") or {}).get("people") == 2, 40, "who is here")
        assert "cannot be opened" in said() and heard.said("mien/cam0/alert") is None
        in_the_way.rmdir()
        wait_until(lambda: (heard.said("mien/cam0/alert") or {}).get("open") == "OFF", 40, "what is open")
        heard.close()


def test_the_store_is_looked_for_where_it_is(ward: Ward, config: Config, tmp_path: Path) -> None:
    url = "postgresql://mien@127.0.0.1:1/ward"
    settings = config.model_dump(mode="json") | {"storage": {"data_dir": str(tmp_path / "data"), "url": url}}
    elsewhere = configuration.load(overrides=settings, environment={})
    with mosquitto(tmp_path) as server, bridge(elsewhere, tmp_path / "log", url=server.url) as (_, said):
        wait_until(lambda: f"the store {url} cannot be" in said(), 40, "the server is away")


@pytest.mark.slow
def test_a_broker_that_freezes_holds_up_nothing_and_hears_it_all_afterwards(
    ward: Ward, config: Config, tmp_path: Path
) -> None:
    with mosquitto(tmp_path) as server, bridge(config, tmp_path / "log", url=server.url) as (process, said):
        heard = Listener(server)
        wait_until(lambda: (heard.said("mien/cam0/people") or {}).get("expression") == "sad", 40, "who is here")
        server.freeze()
        ward.label = "angry"
        ward.alert(serial=302)
        wait_until(lambda: "is lost" in said(), 60, "a broker that says nothing is noticed")
        reader = NewsReader(config, ("stats.mqtt",))
        [(_, stats), *_] = wait_until(lambda: reader.read(timeout_ms=100), 5, "the stage goes on")
        assert isinstance(stats, Stats) and stats.detail["broker"] == "away"
        wait_until(lambda: "left out" in said(), 10, "results that could not go out are counted")
        reader.close()
        server.thaw()
        wait_until(lambda: heard.said("mien/cam0/people")["expression"] == "angry", 30, "it goes on")
        wait_until(lambda: (heard.said("mien/cam0/alerts") or {}).get("serial") == 302, 30, "the alert arrives")
        assert process.poll() is None
        heard.close()


def _available(heard: Listener, what: str) -> list[str]:
    """Return what an entity's availability says, as Home Assistant reads it."""
    kind = "binary_sensor" if what == "pictures" else "sensor"
    entity = heard.said(f"homeassistant/{kind}/mien_cam0/{what}/config")
    return [
        _rendered(one["value_template"], heard.said(one["topic"])) if "value_template" in one
        else heard.said(one["topic"])
        for one in entity["availability"]
    ]  # fmt: skip


def _shown(entity: dict[str, Any], heard: Listener) -> str:
    return _rendered(entity["value_template"], heard.said(entity["state_topic"]))


def _rendered(template: str, said: Any) -> str:
    return str(jinja2.Template(template).render(value_json=said))


def _check_discovery(heard: Listener) -> None:
    """Everything that Home Assistant is told to look at is there, and says what it may say."""
    topics = [topic for topic, said in list(heard.newest.items()) if topic.startswith("homeassistant/") and said]
    assert len(topics) == 5
    for topic in topics:
        entity = heard.said(topic)
        states = [entity["state_topic"], *(one["topic"] for one in entity["availability"])]
        assert all(heard.said(state) is not None for state in states)
        assert topic.split("/")[1] in ("sensor", "binary_sensor") and entity["unique_id"].startswith("mien_cam0_")
        if entity.get("device_class") == "enum":
            assert heard.said(entity["state_topic"])["expression"] in entity["options"]


def test_encrypted_and_without_names(ward: Ward, config: Config, tmp_path: Path) -> None:
    tls = [tmp_path / "cert.pem", tmp_path / "key.pem"]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1", "-out", str(tls[0]),
         "-keyout", str(tls[1])],
        check=True, capture_output=True,
    )  # fmt: skip
    with mosquitto(tmp_path, user="mien", password="secret word", tls=(tls[0], tls[1])) as server:
        with bridge(config, tmp_path / "log", url=server.url.replace(" ", "%20")) as (_, said):
            wait_until(lambda: "cannot be reached" in said(), 40, "an unknown authority is refused")
            assert "certificate verify failed" in said()
        wrong = server.url.replace("secret word", "wrong")
        with bridge(config, tmp_path / "log", url=wrong, ca=str(tls[0])) as (_, said):
            wait_until(lambda: "user and password in mqtt.url" in said(), 40, "the refusal is said")
            assert "secret" not in said()
        right = server.url.replace(" ", "%20")
        with bridge(config, tmp_path / "log", url=right, ca=str(tls[0]), names=False, discovery=""):
            heard = Listener(server, ca=tls[0])
            wait_until(lambda: (heard.said("mien/cam0/people") or {}).get("people") == 2, 40, "who is here")
            ward.alert(serial=7)
            wait_until(lambda: heard.said("mien/cam0/alerts"), 10, "an alert")
            wait_until(lambda: heard.said("mien/cam0/results"), 10, "a whole result")
            assert heard.said("mien/cam0/people")["who"] == "somebody, somebody"
            assert "please check" in heard.said("mien/cam0/alerts")["text"]
            assert "ada" not in heard.everything().lower() and "homeassistant" not in heard.everything()
            heard.close()


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ({"url": "http://user:secret@host"}, "url looks like mqtt://"),
        ({"url": "mqtt://u:secret@host:99999"}, "url looks like mqtt://"),
        ({"url": "mqtt://u:secret/word@host"}, "url looks like mqtt://"),
        ({"url": "mqtt://u:p@secret@host:99999"}, "url looks like mqtt://"),
        ({"url": "mqtt://u:a b/secret@host/topic"}, "url looks like mqtt://"),
        ({"url": "mqtt://host", "ca": "/nowhere.pem"}, "write the url as mqtts://"),
        ({"url": "mqtts://host", "ca": "/nowhere.pem"}, "there is no file /nowhere.pem"),
        ({"url": "mqtts://host", "cert": "/nowhere.pem"}, "cert and key belong together"),
        ({"url": "mqtt://host", "topic": "mien/#"}, "without + and #"),
    ],
)
def test_a_wrong_setting_is_said_without_the_password(settings: dict[str, Any], advice: str) -> None:
    with pytest.raises(ConfigError) as error:
        configuration.load(overrides={"mqtt": settings}, environment={})
    assert advice in str(error.value) and "secret" not in str(error.value)


def test_one_line_of_the_configuration_turns_it_on() -> None:
    for settings, expected in (({}, False), ({"url": "mqtt://user:password@host:1883"}, True)):
        made = configuration.load(overrides={"mqtt": settings}, environment={})
        assert ("mqtt" in [spec.stage for spec in plan(made, screen=False)]) is expected
    # Of several cells, the hub's bridge tells of all cameras: another one would only say the same.
    cell = {"hub_news_in": "tcp://127.0.0.1:5570", "hub_news_out": "tcp://127.0.0.1:5571"}
    apart = configuration.load(overrides={"mqtt": settings, "cell": cell}, environment={})
    assert "mqtt" not in [spec.stage for spec in plan(apart, screen=False)]
    assert str(made.mqtt.broker()) == "mqtt://host:1883"


def test_changes_are_told_at_once_and_not_too_often_and_the_rest_now_and_then() -> None:
    view = CameraView("cam0", names=True, changes_per_s=4)
    view.result(result(640, 360, (face(1, (0, 0, 50, 50), "sad", name="Ada"),)), 0.0)
    assert (view.due(0.0) or {})["who"] == "Ada"
    view.result(result(640, 360, (face(1, (0, 0, 50, 50), "happy", name="Ada"),)), 0.1)
    assert view.due(0.1) is None  # so soon after the last one
    assert (view.due(0.25) or {})["expression"] == "happy"
    view.result(result(640, 360, (face(1, (0, 0, 50, 50), "happy", name="Ada", confidence=0.9),)), 1.0)
    assert view.due(1.0) is None  # surer of the same is no change
    view.result(result(640, 360, (face(1, (0, 0, 50, 50), name="Ada"),)), 1.1)
    assert view.people(1.1)["expression"] == "happy"  # not judged in time: what was said still holds
    assert view.due(1.1 + HERE_S + 0.1) | {"captured_at": 0} == {  # type: ignore[operator]
        "people": 0, "pictures": False, "who": "nobody", "here": [], "expression": "nobody", "confidence": None,
        "name": None, "track": None, "captured_at": 0,
    }  # fmt: skip
    assert view.due(2.8 + REPEAT_S) is not None


def test_a_message_without_names_tells_no_file_s_name_and_what_has_happened() -> None:
    def told(reason: str, source: str) -> str | None:
        state = CameraState(
            sender="capture.ward.1", camera="door", state="offline", since=1.0, reason=reason, source=source
        )
        return nameless(state).reason

    film = "/videos/Ada Smith.mp4"
    assert told(f"{film} is damaged", film) == "the source is damaged"
    assert told("/photos/Ada Smith.jpg is empty (0 bytes)", "/photos") is None
    assert told("Ada Smith.mp4: connecting", "webcam 0") is None
    assert told("C:\\Ada Smith: no such place", "") is None
    assert told("no picture for 1.5 s", film) == "no picture for 1.5 s"
    stats = Stats.model_validate(EXAMPLES[Stats][1] | {"detail": {"source": film, "skipped": 1.0}})
    assert nameless(stats).detail == {"skipped": 1.0}

    def said(**fields: Any) -> str:
        alert = Alert.model_validate_json(json.dumps(EXAMPLES[Alert][1] | {"camera": "door"} | fields))
        return nameless(alert.model_copy(update={"at": alert.since + 60})).text

    assert said(about="offline") == "Camera door has shown nothing for 1:00"
    assert said(about="offline", event="closed") == "Camera door: over, after 1:00"
    assert said(event="closed") == "Somebody on door: over, after 1:00"
    assert said(about="unseen") == "Somebody on door has not been seen for 1:00 – please check"


def test_the_largest_face_counts_and_a_person_on_two_tracks_is_one() -> None:
    view = CameraView("cam0", names=True, changes_per_s=4)
    small, large = face(2, (0, 0, 20, 20), reason="small"), face(3, (90, 0, 60, 60), "sad")
    view.result(result(640, 360, (small, large)), 0.0)
    said = view.people(0.0)
    assert (said["people"], said["who"], said["expression"]) == (2, "unknown, unknown", "sad")
    view = CameraView("cam0", names=True, changes_per_s=4)
    view.result(result(640, 360, (face(4, (0, 0, 20, 20), "sad", name="Ada"),)), 0.0)
    view.result(result(640, 360, (face(5, (5, 0, 20, 20), reason="turned", name="Ada"),)), 0.2)
    said = view.people(0.3)
    assert (said["people"], said["who"], said["expression"]) == (1, "Ada", "cannot assess")
