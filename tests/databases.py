"""A real PostgreSQL server for tests: its own directory, its own port, an unprivileged user; and places for stores."""

from __future__ import annotations

import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from common.place import Place

_numbers = itertools.count(1)


class Server:
    """A PostgreSQL server on the loopback; ``close`` leaves nothing of it."""

    def __init__(self) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [Path(shutil.which("initdb") or "initdb")]
        self._bin = found[-1].parent
        self._dir = Path(tempfile.mkdtemp(prefix="mienpg"))
        self._as: dict[str, object] = {}
        if os.geteuid() == 0:  # the server refuses to run as root
            nobody = pwd.getpwnam("nobody")
            os.chown(self._dir, nobody.pw_uid, nobody.pw_gid)
            self._as = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
        from tests.conftest import free_ports

        [self.port] = free_ports(1)
        command = [self._bin / "initdb", "-D", self._dir / "data", "-U", "mien", "-A", "trust", "-E", "UTF8"]
        self._run([*command, "--locale=C.UTF-8", "--no-sync"])
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://mien@127.0.0.1:{self.port}/{database}"

    def database(self) -> str:
        """Make an empty database; return its address."""
        name = f"ward{next(_numbers)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
        return self.url(name)

    def start(self) -> None:
        options = {"listen_addresses": "127.0.0.1", "port": self.port, "unix_socket_directories": "", "fsync": "off"}
        command = [self._bin / "postgres", "-D", self._dir / "data"]
        command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        with (self._dir / "log").open("ab") as log:
            self._process = subprocess.Popen(  # type: ignore[call-overload]
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self._dir, **self._as
            )
        deadline = time.monotonic() + 30
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    pytest.fail(f"PostgreSQL did not start: {(self._dir / 'log').read_text()[-2000:]}")
                time.sleep(0.02)

    def stop(self) -> None:
        """End the server at once; what was committed is kept."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait(20)

    def pause(self, number: int) -> None:
        """SIGSTOP or SIGCONT to all of the server's processes."""
        import psutil

        assert self._process is not None
        whole = psutil.Process(self._process.pid)
        for process in [whole, *whole.children(recursive=True)]:
            process.send_signal(number)

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._dir, ignore_errors=True)

    def _run(self, command: list[object]) -> None:
        done = subprocess.run(command, capture_output=True, text=True, cwd=self._dir, **self._as)  # type: ignore[call-overload]
        if done.returncode != 0:
            pytest.fail(f"{command[0]}: {done.stderr}")


@pytest.fixture(scope="session")
def shared_server() -> Iterator[Server]:
    """One server for all tests that do not stop it."""
    server = Server()
    yield server
    server.close()


@pytest.fixture
def own_server() -> Iterator[Server]:
    """A server that the test may stop, freeze and start again."""
    server = Server()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """Where an empty store is to be: once in a file, once on the server."""
    if request.param == "sqlite":
        return Place(tmp_path / "data")
    server: Server = request.getfixturevalue("shared_server")
    return Place(tmp_path / "data", server.database())
