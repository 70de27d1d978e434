"""The page, served: a bus, the dashboard stage as a process, and a browser without scripts that logs in."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import httpx

from common import config as configuration
from common.page import access
from common.settings import Config
from common.store import Store
from tests.conftest import end, start_stage, wait_until

PASSWORD = "a password for tests"


def port_free(config: Config, **dashboard: Any) -> Config:
    """Return the configuration with other settings of the dashboard, saved for stages."""
    changed = Config.model_validate(config.model_dump() | {"dashboard": config.dashboard.model_dump() | dashboard})
    configuration.save(changed, config.run_dir / "config.json")
    return changed


def add_user(config: Config, name: str, role: access.Role) -> None:
    """Add somebody who has chosen the password of the tests."""
    with Store(config.storage.place) as store:
        one_time = access.add_user(store, name, role)
        [user] = [one for one in access.users(store) if one.name == name]
        access.set_password(store, user, one_time, PASSWORD)
        access.begin(store, user)  # somebody has logged in: no first password is made any more


class Served:
    """The dashboard stage of a configuration; ends with the ``with`` block, and must end well."""

    def __init__(self, config: Config, log: Path) -> None:
        self.config = config
        self.log = log
        self._browsers: list[httpx.Client] = []
        with log.open("wb") as out:
            self.process: subprocess.Popen[bytes] = start_stage("dashboard", config, stderr=out, stdout=out)
        scheme = "https" if config.dashboard.tls_cert else "http"
        self.address = f"{scheme}://127.0.0.1:{config.dashboard.port}"

    def said(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def await_ready(self) -> Served:
        """Return when the page is served."""
        wait_until(lambda: "the page is at" in self.said() or self.process.poll() is not None, 40, "the page is served")
        assert self.process.poll() is None, self.said()
        return self

    def first_password(self) -> str:
        """Return the password that it printed."""
        found = re.findall(r"as admin with the password (\S+)", self.said())
        assert found, self.said()
        return str(found[-1])

    def browser(self, **options: Any) -> httpx.Client:
        """Return a browser that nobody has logged in with."""
        headers = {"accept": "text/html", "origin": self.address}
        self._browsers.append(httpx.Client(base_url=self.address, headers=headers, timeout=20, **options))
        return self._browsers[-1]

    def logged_in(self, name: str, password: str = PASSWORD, **options: Any) -> httpx.Client:
        """Return a browser that has logged in."""
        browser = self.browser(**options)
        answer = log_in(browser, name, password)
        assert answer.status_code == 303, answer.text
        return browser

    def __enter__(self) -> Served:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for browser in self._browsers:
            browser.close()
        code = end(self.process)
        if kind is None:
            assert code == 0, self.said()
            assert "Traceback" not in self.said(), self.said()


def certificate(folder: Path, name: str = "mien", *, password: str | None = None) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1 and its key, locked if there is a password; return the files."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    lock = ["-nodes"] if password is None else ["-passout", f"pass:{password}"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-days", "2", *lock, *subject]
    subprocess.run([*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True)
    return cert, key


def form_of(browser: httpx.Client, path: str) -> str:
    """Return the hidden word of a form."""
    found = re.search(r'name="form" value="([^"]+)"', browser.get(path).text)
    assert found is not None
    return found[1]


def log_in(browser: httpx.Client, name: str, password: str, **fields: str) -> httpx.Response:
    """Fill the log-in form in and send it."""
    form = form_of(browser, "/login")
    return browser.post("/login", data={"name": name, "password": password, "form": form} | fields)
