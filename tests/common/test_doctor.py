"""The doctor looks at the real machine and says what to do about what does not work."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from common import doctor, media, people, probe
from common.alerts.rules import AlertsConfig, NotificationsConfig, Rule
from common.mqtt_config import MqttConfig
from common.rundir import RunDir
from common.settings import Config, DetectionConfig, StorageConfig
from common.store import Store
from tests.conftest import ROOT, await_bus, free_ports, start_stage
from tests.page.serving import certificate
from tests.people import reference
from tests.servers import mosquitto


def changed(config: Config, **sections: object) -> Config:
    return config.model_copy(update=sections)


def one(checks: Iterator[doctor.Check], what: str) -> doctor.Check:
    [found] = [check for check in checks if check.what.startswith(what)]
    return found


def test_free_ports_are_free(config: Config) -> None:
    assert [check.text for check in doctor.ports(config)] == ["free"] * 3


def test_a_port_in_use_is_told_with_its_holder(config: Config) -> None:
    port = int(config.endpoints.news_out.rsplit(":", 1)[1])
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        check = one(doctor.ports(config), f"port {port}")
    assert not check.ok and check.needed
    assert f"process {os.getpid()}" in check.text
    assert "set endpoints.news_out to another port" in check.text


def test_the_port_of_the_page_is_looked_at_too(config: Config) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        settings = config.model_copy(update={"dashboard": config.dashboard.model_copy(update={"port": port})})
        check = one(doctor.page(settings), f"port {port}")
        assert not check.ok and "set dashboard.port to another port" in check.text
    assert one(doctor.page(settings), f"port {port}").ok


def test_the_certificate_of_the_page_is_looked_at(config: Config, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    files = {"tls_cert": cert, "tls_key": key}
    settings = config.model_copy(update={"dashboard": config.dashboard.model_copy(update=files)})
    assert one(doctor.page(settings), "certificate").ok
    key.write_text("no key")
    check = one(doctor.page(settings), "certificate")
    assert not check.ok and check.needed and f"{key} cannot be used" in check.text


def test_an_address_that_is_not_here_is_no_port_in_use(config: Config) -> None:
    settings = config.dashboard.model_copy(update={"host": "203.0.113.1"})
    [check] = doctor.page(config.model_copy(update={"dashboard": settings}))
    assert not check.ok and "cannot listen on 203.0.113.1" in check.text and "in use" not in check.text


def test_ports_of_the_mien_that_is_running_are_well(config: Config, bus: subprocess.Popen[bytes]) -> None:
    with RunDir(config):
        assert all(check.ok for check in doctor.ports(config))


def test_a_rule_that_names_somebody_who_is_not_there_is_told(config: Config) -> None:
    first = Rule(name="first", people=("ADA", "#1"), not_people=("Ben",))
    settings = changed(config, alerts=AlertsConfig(rules=(first, Rule(name="second", not_people=("#2",)))))
    assert len(list(doctor.alerts(settings))) == 4  # nobody is enrolled yet, and nothing is made by looking
    assert not config.storage.data_dir.exists()
    store = Store(config.storage.place)  # open, as a running Mien has it
    people.add(store, "Ada", [reference(1)])
    found = [(check.what, check.text, check.ok, check.needed) for check in doctor.alerts(settings)]
    assert found == [
        ("alert rule 'first'", "names 'Ben': nobody is called so (python launch.py people list)", False, False),
        ("alert rule 'second'", "names '#2': nobody is called so (python launch.py people list)", False, False),
    ]
    store.close()
    assert list(doctor.alerts(config)) == []  # the built-in rules name nobody


@pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")
def test_notifications_that_can_never_be_sent_are_told(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    targets = {"desk": "json://127.0.0.1:1/alerts", "nurses": "mailtoo://nurses@secret.example"}
    settings = changed(config, notifications=NotificationsConfig(targets=targets))
    assert one(doctor.notifications(settings), "notifications to desk").ok
    check = one(doctor.notifications(settings), "notifications to nurses")
    assert not check.ok and "not one that apprise understands" in check.text
    assert "secret" not in check.text + caplog.text


def test_a_broker_that_is_away_refuses_or_says_nothing_is_told(config: Config, tmp_path: Path) -> None:
    def asked(url: str) -> doctor.Check:
        return one(doctor.notifications(changed(config, mqtt=MqttConfig(url=url))), "MQTT broker")

    with mosquitto(tmp_path, user="mien", password="word") as server:
        assert asked(server.url).ok
        check = asked(server.url.replace("word", "secret"))
        assert not check.ok and "refuses" in check.text and "user and password in mqtt.url" in check.text
        assert "secret" not in check.text
        address = f"127.0.0.1:{server.port}"
    check = asked(f"mqtt://{address}")
    assert not check.ok and f"mqtt://{address}: it cannot be reached" in check.text and "refused" in check.text
    with socket.create_server(("127.0.0.1", 0)) as silent:
        check = asked(f"mqtt://127.0.0.1:{silent.getsockname()[1]}")
    assert not check.ok and "did not answer within" in check.text


def test_models_are_loaded_and_timed(config: Config) -> None:
    check = one(doctor.models(config), "detection model")
    assert check.ok, check.text
    assert "ms for a 640×360 picture" in check.text


def test_a_missing_or_damaged_model_is_named(config: Config, tmp_path: Path) -> None:
    missing = tmp_path / "missing.onnx"
    check = one(doctor.models(changed(config, detection=DetectionConfig(model=missing))), "detection model")
    assert not check.ok and str(missing) in check.text and "does not exist" in check.text
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"no network" * 100)
    check = one(doctor.models(changed(config, detection=DetectionConfig(model=damaged))), "detection model")
    assert not check.ok and str(damaged) in check.text


def test_a_data_directory_that_cannot_be_made_is_told(config: Config, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check = one(doctor.storage(changed(config, storage=StorageConfig(data_dir=tmp_path / "file" / "x"))), "data")
    assert not check.ok and "--data-dir" in check.text


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A directory that this process may not enter: the system's administrator is somebody else meanwhile."""
    folder = tmp_path / "locked"
    (folder / "data").mkdir(parents=True)
    folder.chmod(0)
    administrator = os.geteuid() == 0
    if administrator:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        if administrator:
            os.seteuid(0)
        folder.chmod(0o700)


@pytest.mark.skipif(os.name != "posix", reason="rights are others there")
def test_a_data_directory_that_may_not_be_entered_is_told(config: Config, locked: Path) -> None:
    inside = changed(config, storage=StorageConfig(data_dir=locked / "data"))
    check = one(doctor.storage(inside), "data")
    assert not check.ok and "Permission denied" in check.text and "--data-dir" in check.text
    [check] = doctor.sample_media(inside)
    assert not check.ok and not check.needed


def test_a_full_disk_is_told(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1 << 20))
    check = one(doctor.storage(config), "data")
    assert not check.ok and "make room" in check.text


def test_missing_sample_media_are_no_failure(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    [check] = doctor.sample_media(config)
    folder = config.storage.data_dir
    assert not check.ok and not check.needed
    assert check.text.endswith(f"or now: MIEN_DATA_DIR={folder} python -m common.media")
    monkeypatch.setenv("MIEN_DATA_DIR", str(folder))  # it is fetched into that one by itself
    [check] = doctor.sample_media(config)
    assert check.text.endswith("or now: python -m common.media")


def test_no_screen_is_told_and_no_failure(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    [check] = doctor.screen(config)
    assert not check.ok and not check.needed and "DISPLAY is not set" in check.text


def test_a_webcam_that_is_not_there_is_found_out_in_a_child(config: Config) -> None:
    found = probe.ask(config, "webcam", "77", timeout_s=30)
    assert not found.ok and "webcam 77 cannot be opened" in found.text


def test_configured_cameras_are_looked_at_without_their_passwords(config: Config, tmp_path: Path) -> None:
    sources = {
        "film": str(media.sample("man.mp4")),
        "gone": str(tmp_path / "nothing.mp4"),
        "ward": "rtsp://nurse:secret@127.0.0.1:9/live",
        "shown": "demo",
    }
    cameras = {name: config.cameras["cam0"].model_copy(update={"source": source}) for name, source in sources.items()}
    changed = config.model_copy(update={"cameras": cameras})
    found = {check.what: check for check in doctor.cameras(changed)}
    assert {what: check.ok for what, check in found.items()} == {
        "camera film": True, "camera gone": False, "camera ward": False,
    }  # fmt: skip
    assert "×" in found["camera film"].text and "nothing.mp4" in found["camera gone"].text
    assert "rtsp://127.0.0.1:9/live" in found["camera ward"].text and "secret" not in found["camera ward"].text
    with RunDir(changed):
        assert all(check.ok and "see status" in check.text for check in doctor.cameras(changed))


def test_a_look_that_hangs_or_crashes_is_a_finding(config: Config) -> None:
    began = time.monotonic()
    found = probe.ask(config, "processor", timeout_s=0.01)
    assert (found.ok, found.text) == (False, "no answer within 0.01 s")
    assert time.monotonic() - began < 5
    found = probe.ask(config, "nonsense", timeout_s=30)
    assert not found.ok and "exit code 1" in found.text


def test_the_command_prints_a_line_a_check_and_fails_when_the_default_run_would(config: Config, tmp_path: Path) -> None:
    settings = tmp_path / "mien.toml"
    [port] = free_ports(1)
    ends = f"news_in = 'tcp://127.0.0.1:{port}'\nnews_out = '{config.endpoints.news_out}'\n"
    settings.write_text(
        f"run_dir = '{config.run_dir}'\n[endpoints]\n{ends}previews = '{config.endpoints.previews}'\n"
        f"[storage]\ndata_dir = '{tmp_path / 'data'}'\n"
    )
    holder = start_stage("bus", config)  # in the way of news_out, and no run of this directory's
    try:
        await_bus(config)  # or the address may still be free when it is looked at
        command = [sys.executable, str(ROOT / "launch.py"), "doctor", "--config", str(settings)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    finally:
        holder.kill()
        holder.wait()
    lines = done.stdout.splitlines()
    assert done.returncode == 1, done.stdout + done.stderr
    for what in ("system", "processor", "detection model", "identity model", "expression model", "data directory"):
        assert any(line[:1] in "✓✗" and line[2:].startswith(what) for line in lines), what
    assert lines[-1].endswith("must be put right first")
    assert "Traceback" not in done.stdout + done.stderr
