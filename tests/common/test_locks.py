"""Sockets that open with keys only: who gets in, who does not, and what happens to those who lose their key."""

from __future__ import annotations

import shutil
import stat
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import launch
from common import config as configuration
from common import doctor
from common.channels import CHANNELS
from common.config import ConfigError
from common.endpoints import Endpoint, listening
from common.keys import ALLOWED_FILE, OWN_FILE, ROLES, SERVER_FILE, Key, KeyRing, write_private
from common.locks import Authenticator, ServerLock
from common.run import split_problem
from common.settings import Config
from common.transport import Socket, TransportError, key_pair, opened
from tests.conftest import free_ports, wait_until

# How a channel's two ends look to whoever tries: his own role, and that of the socket which listens.
ENDS = {"push-pull": ("push", "pull"), "xpub-xsub": ("xpub", "sub"), "xpub-sub": ("sub", "xpub")}


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    made = KeyRing(tmp_path / "keys", key_pair)
    made.make("server", ())
    return made


@pytest.fixture(autouse=True)
def no_authenticator_stays() -> Iterator[None]:
    yield
    Authenticator.end()


def at(port: int, folder: Path) -> Endpoint:
    return Endpoint.of(f"tcp://127.0.0.1:{port}", keys=folder, listen=None, everywhere=True)


def elsewhere(tmp_path: Path, key: Key, file: Path) -> Path:
    """Return the key directory of another machine to which this key was copied."""
    folder = tmp_path / f"at-{key.name}-{key.public[:6].encode().hex()}"
    KeyRing(folder).install(file)
    return folder


def listener(channel: str, port: int, ring: KeyRing) -> Socket:
    role = ENDS[CHANNELS[channel].kind][1]
    socket = opened(channel, at(port, ring.folder), role, bind=True)
    if role == "sub":
        socket.subscribe(b"")
    return socket


def visitor(channel: str, port: int, folder: Path) -> Socket:
    socket = opened(channel, at(port, folder), ENDS[CHANNELS[channel].kind][0])
    if socket.channel.kind == "xpub-sub":
        socket.subscribe(mark(socket))
    return socket


def mark(client: Socket) -> bytes:
    return b"from %x" % id(client)


def passes(server: Socket, client: Socket, within_s: float) -> bool:
    """Whether something gets from one to the other: what the client sends, or that it has subscribed."""
    for _ in range(int(within_s / 0.05)):
        client.wait(0)
        if server.channel.kind != "xpub-sub":
            client.send([mark(client)])
        while (parts := server.receive(timeout_ms=50)) is not None:
            if bytes(parts[0]) in (mark(client), b"\x01" + mark(client)):
                return True
    return False


def welcomed(server: Socket, visitors: dict[str, Socket], expected: set[str]) -> set[str]:
    """Return who gets through, once all who are expected have, and the others had time to."""
    came: set[str] = set()

    def all_came() -> bool:
        for client in visitors.values():
            client.wait(0)
            if server.channel.kind != "xpub-sub":
                client.send([mark(client)])
        while (parts := server.receive(timeout_ms=20)) is not None:
            word = bytes(parts[0])
            came.update(role for role, client in visitors.items() if word.endswith(mark(client)))
        return came >= expected

    wait_until(all_came, 5, f"{expected} open {server.channel.name}")
    for _ in range(10):
        all_came()
    return came


def test_each_role_opens_its_own_channels_and_no_other(ring: KeyRing, tmp_path: Path) -> None:
    channels = [name for name in CHANNELS if name != "archive"]
    ports = dict(zip(channels, free_ports(len(channels)), strict=True))
    homes = {}
    for role in ROLES:
        _, file = ring.make(role, (role,))
        # Somebody who wants more than the key gives edits the file: the list on the server decides.
        write_private(file, file.read_text().replace(f'"{role}"\n', '"server"\n'))
        homes[role] = tmp_path / f"at-{role}"
        shutil.copytree(ring.folder, homes[role], ignore=lambda *_: [SERVER_FILE, ALLOWED_FILE])
        shutil.copy(file, homes[role] / OWN_FILE)
    for channel in channels:
        with listener(channel, ports[channel], ring) as server:
            visitors = {role: visitor(channel, ports[channel], home) for role, home in homes.items()}
            welcome = {role for role in ROLES if channel in ROLES[role]}
            try:
                assert welcomed(server, visitors, welcome) == welcome, channel
                if server.channel.kind == "xpub-sub":
                    for client in visitors.values():
                        server.send([mark(client), b"what is said there"])
                    heard = {role for role, client in visitors.items() if client.receive(timeout_ms=200)}
                    assert heard == welcome, channel
            finally:
                for client in visitors.values():
                    client.close()


def test_nobody_gets_in_without_a_key_or_with_one_that_is_not_listed(ring: KeyRing, tmp_path: Path) -> None:
    [port] = free_ports(1)
    other = KeyRing(tmp_path / "other", key_pair)
    stranger, _ = other.make("stranger", ("worker",))
    server_key = ring.own()
    assert server_key
    folder = tmp_path / "forged"
    write_private(folder / OWN_FILE, _as_text(replace(stranger, server=server_key.public)))
    with listener("findings", port, ring) as server:
        with visitor("findings", port, folder) as forged, visitor("findings", port, other.folder) as foreign:
            plain = opened("findings", f"tcp://127.0.0.1:{port}", "push")
            assert not any(passes(server, client, 0.5) for client in (forged, foreign, plain))
            plain.close()
        key, file = ring.make("ward-2", ("worker",))
        with visitor("findings", port, elsewhere(tmp_path, key, file)) as worker:
            assert passes(server, worker, 5)


@pytest.mark.parametrize("channel", ["findings", "news_out"])
def test_a_revoked_key_is_hung_up_on_and_the_others_are_back_at_once(
    ring: KeyRing, tmp_path: Path, channel: str
) -> None:
    [port] = free_ports(1)
    role = "worker"
    homes = [elsewhere(tmp_path, *ring.make(name, (role,))) for name in ("goes", "stays")]
    with listener(channel, port, ring) as server, visitor(channel, port, homes[0]) as goes:
        assert passes(server, goes, 5)
        with visitor(channel, port, homes[1]) as stays:
            assert passes(server, stays, 5)
            ring.make("another", (role,))  # does not disturb anybody
            if channel == "news_out":

                def gets(client: Socket) -> bool:
                    while server.receive() is not None:
                        pass
                    server.send([mark(client), b"news"])
                    return client.receive(timeout_ms=20) is not None

                wait_until(lambda: gets(goes) and gets(stays), 5, "both listen")
                ring.revoke("goes")
                wait_until(lambda: not any(gets(goes) for _ in range(10)), 2, "nothing goes to the revoked key")
                wait_until(lambda: gets(stays), 3, "the other one is back")
                assert not any(gets(goes) for _ in range(20))
            else:
                ring.revoke("goes")
                wait_until(lambda: not passes(server, goes, 0.3), 2, "nothing comes from the revoked key")
                assert passes(server, stays, 3)
                assert not passes(server, goes, 0.5)
            server.look()


def test_a_rotated_key_opens_nothing_and_the_new_one_is_taken_up_by_what_runs(ring: KeyRing, tmp_path: Path) -> None:
    [port] = free_ports(1)
    home = elsewhere(tmp_path, *ring.make("ward-2", ("worker",)))
    with listener("findings", port, ring) as server, visitor("findings", port, home) as worker:
        assert passes(server, worker, 5)
        _, file = ring.rotate("ward-2")
        wait_until(lambda: not passes(server, worker, 0.3), 3, "the old key is hung up on")
        KeyRing(home).install(file)
        assert passes(server, worker, 5)
        _, _ = ring.rotate("server")
        wait_until(lambda: not passes(server, worker, 0.3), 3, "nobody trusts the old server's key")
        KeyRing(home).install(ring.folder / "ward-2.key")
        assert passes(server, worker, 5)


def test_when_the_authenticator_fails_nothing_is_served(
    ring: KeyRing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    [port] = free_ports(1)
    home = elsewhere(tmp_path, *ring.make("ward-2", ("worker",)))
    server = listener("findings", port, ring)
    with visitor("findings", port, home) as early:
        assert passes(server, early, 5)

        def fail(*_: object) -> None:
            raise MemoryError("made for a test")

        monkeypatch.setattr(Authenticator, "judge", fail)
        with visitor("findings", port, home) as late, pytest.raises(TransportError, match="serves nobody"):
            assert not passes(server, late, 5)
        wait_until(lambda: not early.send([b"mine"], timeout_ms=100), 2, "it has been hung up on, too")
    assert "the authenticator has ended" in caplog.text


def test_without_any_authenticator_zeromq_itself_lets_nobody_in(ring: KeyRing, tmp_path: Path) -> None:
    [port] = free_ports(1)
    home = elsewhere(tmp_path, *ring.make("ward-2", ("worker",)))
    server = listener("findings", port, ring)
    Authenticator.end()
    assert server._lock is not None
    server._lock.look_at = float("inf")  # the socket does not notice: what is tested is ZeroMQ
    with server, visitor("findings", port, home) as worker:
        assert not passes(server, worker, 1.0)


def test_a_list_that_cannot_be_read_lets_nobody_in(
    ring: KeyRing, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    [port] = free_ports(1)
    home = elsewhere(tmp_path, *ring.make("ward-2", ("worker",)))
    with listener("findings", port, ring) as server, visitor("findings", port, home) as worker:
        assert passes(server, worker, 5)
        whole = (ring.folder / ALLOWED_FILE).read_text()
        write_private(ring.folder / ALLOWED_FILE, whole[: len(whole) // 2])
        wait_until(lambda: not passes(server, worker, 0.3), 3)
        assert "nobody is let in" in caplog.text
        write_private(ring.folder / ALLOWED_FILE, whole)
        assert passes(server, worker, 10)


def test_beyond_this_machine_nothing_opens_without_keys(config: Config, tmp_path: Path) -> None:
    for bind, role in ((True, "xpub"), (False, "sub")):
        endpoint = configuration.load(
            overrides={"endpoints": {"host": "ward-server"}, "storage": {"data_dir": tmp_path}}, environment={}
        ).endpoint("news_out")
        with pytest.raises(TransportError) as caught:
            opened("news_out", endpoint, role, bind=bind)
        assert "ward-server:5561" in str(caught.value) and "python launch.py keys make" in str(caught.value)
        with pytest.raises(TransportError, match="without keys"):
            opened("news_out", "tcp://192.0.2.1:5561", role, bind=bind)
    ring = KeyRing(tmp_path / "server", key_pair)
    home = elsewhere(tmp_path, *ring.make("listens", ("subscriber",)))
    endpoint = Endpoint.of("tcp://ward-server:5561", keys=home, listen=None, everywhere=False)
    with pytest.raises(TransportError, match=r"the machine that has the server's key.*\(bus\) there"):
        opened("news_out", endpoint, "xpub", bind=True)
    with pytest.raises(TransportError, match="does not open the channel 'jobs'"):
        opened("jobs", endpoint, "sub")


def test_the_keys_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here, there = tmp_path / "here", tmp_path / "there"

    def keys(folder: Path, *words: str) -> tuple[int, str]:
        code = launch.main(["--data-dir", str(folder), "keys", *words])
        told = capsys.readouterr()
        return code, told.out + told.err

    assert keys(here, "list")[1].startswith("no keys in")
    code, told = keys(here, "make", "ward-2", "--role", "worker,viewer")
    assert code == 0 and "keys import ward-2.key" in told
    file = here / "keys" / "ward-2.key"
    for path in (file, here / "keys" / SERVER_FILE, here / "keys" / ALLOWED_FILE):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert "there is a key 'ward-2' already" in keys(here, "make", "ward-2", "--role", "worker")[1]
    assert "doctor: a key's roles are of camera" in keys(here, "make", "x", "--role", "doctor")[1]
    assert "there is no key 'y'; there are: ward-2" in keys(here, "revoke", "y")[1]
    code, told = keys(there, "import", str(file))
    assert code == 0 and "this machine is ward-2 now, for worker, viewer" in told
    code, told = keys(there, "make", "z", "--role", "camera")
    assert code == 2 and "on the machine that runs bus and conductor" in told
    assert keys(here, "rotate", "ward-2")[0] == 0
    assert keys(here, "revoke", "ward-2")[0] == 0
    listed = keys(here, "list")[1].splitlines()
    assert [line.count("revoked") for line in listed] == [0, 1, 1]
    assert KeyRing(here / "keys").allowed().rights("jobs") == frozenset()
    (there / "keys" / OWN_FILE).chmod(0o644)
    assert "other users can read the key" in keys(there, "list")[1]


def test_an_endpoint_is_where_others_reach_it_and_host_puts_all_there() -> None:
    made = configuration.load(overrides={"endpoints": {"host": "ward-server"}}, environment={})
    assert made.endpoint("frames") == "tcp://ward-server:5565"
    assert listening(made.endpoint("frames")) == "tcp://0.0.0.0:5565"
    assert Config.model_validate(made.model_dump()).endpoints == made.endpoints
    made = configuration.load(overrides={"endpoints": {"host": "::1", "listen": "::"}}, environment={})
    assert made.endpoint("jobs") == listening(made.endpoint("jobs")) == "tcp://[::1]:5566"
    for wrong, told in (
        ({"news_in": "tcp://0.0.0.0:5560"}, "an endpoint is where others reach the channel"),
        ({"news_in": "tcp://ward-server:5560"}, "set endpoints.control, or endpoints.host"),
        ({"host": "ward-server", "listen": "eth0"}, "listen is an address of this machine"),
    ):
        with pytest.raises(ConfigError, match=told):
            configuration.load(overrides={"endpoints": wrong}, environment={})


def test_what_needs_the_store_stays_with_the_conductor_and_the_doctor_knows_of_keys(tmp_path: Path) -> None:
    apart = {"endpoints": {"host": "no-such-host.invalid"}, "storage": {"data_dir": tmp_path}}
    config = configuration.load(overrides=apart, environment={})
    told = split_problem(config, {"detection", "history", "dashboard"})
    assert told is not None and "--without history,dashboard" in told
    told = split_problem(config, {"mqtt"})
    assert told is not None and "--without mqtt" in told
    assert split_problem(config, {"detection", "preview"}) is None
    assert split_problem(config, {"conductor", "history"}) is None
    assert split_problem(Config(), {"history"}) is None
    key, host = doctor.keys(config)
    assert not key.ok and "keys import" in key.text and not host.ok and "/etc/hosts" in host.text
    KeyRing(config.keys_dir, key_pair).make("server", ())
    assert next(iter(doctor.keys(config))).ok
    [line] = doctor.keys(Config())
    assert line.ok


def test_keys_may_be_made_by_two_at_once(ring: KeyRing) -> None:
    threads = [threading.Thread(target=ring.make, args=(f"k{number}", ("worker",))) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {entry.name for entry in ring.allowed().entries} == {f"k{number}" for number in range(8)}


def _as_text(key: Key) -> str:
    import json
    from dataclasses import asdict

    return json.dumps({"format": "mien-key-1", **asdict(key)})


def test_an_authenticator_that_was_only_stopped_for_a_while_gets_a_turn(ring: KeyRing) -> None:
    [port] = free_ports(1)
    with listener("findings", port, ring) as server:
        lock = server._lock
        assert isinstance(lock, ServerLock)
        lock.authenticator._turned -= 60  # as after a suspension of the whole process, before its thread has run
        assert not lock.changed()
        wait_until(lock.authenticator.alive, 5, "its thread has turned")
        assert not lock.changed()


def test_one_socket_reads_with_keys_everywhere_or_nowhere(tmp_path: Path, ring: KeyRing) -> None:
    ports = free_ports(2)
    with opened("previews", f"tcp://127.0.0.1:{ports[0]}", "sub") as plain:
        plain.also(f"tcp://127.0.0.1:{ports[1]}")
        with pytest.raises(TransportError, match="both with keys, or both without"):
            plain.also(at(ports[1], ring.folder))
