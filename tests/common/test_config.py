"""Settings: what overrides what, and that every wrong one is named with what would be right."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

from common.config import ConfigError, load, save
from common.options import settled
from common.settings import Config


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mien.toml"
    path.write_text(text, encoding="utf-8")
    return path


def complaint(path: Path | None = None, **more: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load(path, environment={}, **more)  # type: ignore[arg-type]
    return str(caught.value)


def test_the_defaults_are_valid_and_listen_on_loopback_only() -> None:
    config = load(environment={})
    assert list(config.cameras) == ["cam0"]
    for channel in ("news_in", "news_out", "previews", "frames", "jobs", "findings", "pictures"):
        assert config.endpoint(channel).startswith(("ipc://", "tcp://127.0.0.1:"))


def test_command_line_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    path = written(tmp_path, "[workers]\ndetection = 3\nidentity = 3\nexpression = 3\n")
    environment = {"MIEN_WORKERS__IDENTITY": "4", "MIEN_WORKERS__EXPRESSION": "4", "HOME": "/", "MIEN_NOTHING": "1"}
    config = load(path, environment=environment, overrides={"workers": {"expression": 5}})
    assert (config.workers.detection, config.workers.identity, config.workers.expression) == (3, 4, 5)
    assert config.workers.threads == 1


def test_words_in_the_environment_need_no_quotes(tmp_path: Path) -> None:
    environment = {"MIEN_CAMERAS": '{"ward": {"source": "webcam:1"}}', "MIEN_DATA_DIR": str(tmp_path),
                   "MIEN_IDENTITY__ENGINE": "face_recognition"}  # fmt: skip
    config = load(environment=environment)
    assert config.cameras["ward"].source == "webcam:1"
    assert config.storage.data_dir == tmp_path
    assert config.identity.engine == "face_recognition"


def test_every_wrong_key_is_named_with_its_value_and_what_would_be_right(tmp_path: Path) -> None:
    text = complaint(
        written(
            tmp_path,
            "colour = 'red'\nevery_frame = 'perhaps'\n[workers]\ndetection = -1\nfaces = 2\n"
            "[cameras.'ward 3']\nsource = 'demo'\n[cameras.door]\nsorce = 'demo'\n[detection]\ninput_long_side = 7\n",
        )
    )
    assert str(tmp_path / "mien.toml") in text
    assert "colour = 'red': there is no such key; known here: alerts, cameras, " in text
    assert "every_frame = 'perhaps'" in text
    assert "workers.detection = -1: Input should be greater than or equal to 0" in text
    assert "workers.faces = 2: there is no such key; known here: detection, expression" in text
    assert "cameras.door.sorce = 'demo': there is no such key; known here: encoding" in text
    assert "ward 3" in text
    assert "detection.input_long_side = 7: Input should be greater than or equal to 64" in text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[workers", "is not valid"),
        ("workers = 3", "workers = 3"),
        ("cameras = {}", "cameras"),
        ("[endpoints]\nnews_out = 'udp://127.0.0.1:1'", "an endpoint looks like ipc://path or tcp://host:port"),
        ("[endpoints]\nnews_out = 'tcp://127.0.0.1:99999'", "with a port from 1 to 65535"),
        ("[endpoints]\nnews_out = 'tcp://127.0.0.1'", "tcp://host:port"),
        ("[pipeline]\nstall_ms = 100\ndeadline_ms = 150", "stall_ms must be longer than pipeline.deadline_ms"),
        ("[pipeline]\ndeadline_ms = nan", "pipeline.deadline_ms"),
        ("[supervision]\nrestarts = 1e999", "supervision.restarts"),
        ("[[alerts.rules]]\nexpressions = ['sad']", "alerts.rules.0.name is missing: it must be said in {'expr"),
        ("[cell]\ncameras = 3", "cell.cameras = 3: Input should be a list"),
        (f"run_dir = '/tmp/{'x' * 120}'", "too long for a socket"),
        (
            "[cameras.ward]\nmax_rate = 0.4",
            "cameras.ward.max_rate = 0.4: too few pictures a second for the alert rule 'negative expression'",
        ),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_the_reason(tmp_path: Path, text: str, expected: str) -> None:
    assert expected in complaint(written(tmp_path, text))


def test_a_camera_that_no_rule_is_for_may_be_as_slow_as_wanted(tmp_path: Path) -> None:
    rules = "[[alerts.rules]]\nname = 'sad'\ncameras = ['ward']\n[cameras.ward]\nmax_rate = 1\n"
    config = load(written(tmp_path, f"{rules}[cameras.yard]\nmax_rate = 0.1\n"), environment={})
    assert config.cameras["yard"].max_rate == 0.1
    slow = {"cameras": {"yard": {"max_rate": 0.1}}, "alerts": {"rules": ()}}
    assert load(environment={}, overrides=slow).alerts.rules == ()


def test_a_rule_for_a_camera_that_there_is_not_is_refused(tmp_path: Path) -> None:
    text = "[cameras.ward]\n[cameras.door]\n[[alerts.rules]]\nname = 'sad'\ncameras = ['door', 'nocam']\n"
    path = written(tmp_path, text)
    with pytest.raises(ConfigError, match="rule 'sad' is for the camera 'nocam'; there are: ward, door"):
        settled(argparse.Namespace(config=path))
    assert load(path, environment={}).alerts.rules  # other commands do not watch, and are not given what a run is
    others = text.replace("nocam", "ward") + "[cell]\ncameras = ['ward']\n"  # all cells are given all cameras
    assert settled(argparse.Namespace(config=written(tmp_path, others))).own_cameras == ("ward",)


def test_rules_for_cameras_that_are_not_watched_this_time_are_left_out(tmp_path: Path) -> None:
    rule = "[[alerts.rules]]\nname = '{}'\ncameras = {}\n"
    rules = rule.format("door", ["door"]) + rule.format("both", ["door", "ward"]) + rule.format("all", [])
    path = written(tmp_path, "[cameras.ward]\n[cameras.door]\n" + rules)
    config = settled(argparse.Namespace(config=path, camera="ward"))
    assert [(one.name, one.cameras) for one in config.alerts.rules] == [("both", ("ward",)), ("all", ())]
    save(config, tmp_path / "config.json")
    assert load(tmp_path / "config.json", environment={}) == config  # as stages read it
    # A camera may be named on the command line alone.
    path = written(tmp_path, rule.format("yard", ["yard"]))
    config = settled(argparse.Namespace(config=path, camera="yard", source="demo"))
    assert [one.cameras for one in config.alerts.rules] == [("yard",)]


@pytest.mark.parametrize("channel", ["news_in", "news_out", "previews", "control"])
def test_the_page_has_a_port_of_its_own(tmp_path: Path, channel: str) -> None:
    text = f"[endpoints]\n{channel} = 'tcp://127.0.0.1:8080'\n"
    assert f"dashboard.port = 8080 is the port of endpoints.{channel}" in complaint(written(tmp_path, text))
    for page in ("port = 8081", "enabled = false"):
        load(written(tmp_path, f"{text}[dashboard]\n{page}\n"), environment={})


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    assert "there is no configuration file" in complaint(tmp_path / "missing.toml")
    assert "cannot be read" in complaint(tmp_path)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in complaint(binary)
    array = tmp_path / "list.json"
    array.write_text("[1, 2]")
    assert "holds no settings" in complaint(array)


def test_what_is_saved_is_read_back_unchanged(tmp_path: Path) -> None:
    config = load(
        environment={},
        overrides={"cameras": {"a": {"source": "x.mp4", "max_rate": 12.5}}, "run_dir": str(tmp_path / "run"),
                   "detection": {"model": "m.onnx"}, "every_frame": True},
    )  # fmt: skip
    path = tmp_path / "config.json"
    save(config, path)
    assert load(path, environment={}) == config
    assert json.loads(path.read_text())["every_frame"] is True
    assert list(tmp_path.iterdir()) == [path]


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().every_frame = True  # type: ignore[misc]
