"""The gate: nothing that shows data is to be had without a log-in, from another site, or by another name."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
import websockets
from websockets.asyncio.client import connect

from common.config import ConfigError, load
from common.page import access
from common.page.server import PortError, listening
from common.settings import Config
from common.store import Store
from tests.conftest import end, start_stage, wait_until
from tests.page.serving import PASSWORD, Served, add_user, certificate, form_of, log_in, port_free

SHOWING = (
    "/", "/people", "/alerts", "/history", "/health", "/users", "/report", "/report.pdf?begin=1&end=2",
    "/export?begin=1&end=2&format=csv&person=1", "/people/1/face", "/unknown/1/face", "/live/recent?track=1",
    "/page/session", "/metrics", "/api/", "/api/openapi.json", "/api/v1/people", "/api/v1/here", "/api/v1/cameras",
    "/api/v1/alerts", "/api/v1/history/1?begin=1&end=2", "/_nicegui_ws/socket.io/?EIO=4&transport=polling", "/nowhere",
    "/page/swagger/swagger-ui.css", "/password",
)  # fmt: skip


@pytest.fixture
def served(config: Config, tmp_path: Path) -> Iterator[Served]:
    for name in ("admin", "operator", "viewer"):
        add_user(config, f"the {name}", name)  # type: ignore[arg-type]
    with Served(config, tmp_path / "page.log") as page:
        yield page.await_ready()


def cookie_of(browser: httpx.Client) -> str:
    return "; ".join(f"{name}={value}" for name, value in browser.cookies.items())


async def feed(served: Served, cookie: str, origin: str | None) -> str:
    headers = {"cookie": cookie}
    address = served.address.replace("http", "ws") + "/feed"
    async with connect(address, origin=origin, additional_headers=headers, proxy=None) as open_feed:  # type: ignore[arg-type]
        return str(await asyncio.wait_for(open_feed.recv(), 5))


def test_the_first_start_prints_a_password_that_works_once_and_has_to_be_replaced(
    config: Config, tmp_path: Path
) -> None:
    with Served(config, tmp_path / "page.log") as page:
        page.await_ready()
        assert page.said().count("with the password") == 1
        first = page.first_password()
        browser = page.browser()
        assert browser.get("/").headers["location"] == "/login"
        assert log_in(browser, "admin", "guess").status_code == 403
        assert log_in(browser, "admin", first).headers["location"] == "/password"
        for path in ("/", "/people", "/api/v1/people"):  # nothing else before it is replaced
            assert browser.get(path).headers["location"] == "/password"
        form = form_of(browser, "/password")
        fields = {"old": first, "new": PASSWORD, "again": PASSWORD, "form": form}
        assert browser.post("/password", data=fields).headers["location"] == "/"
        assert browser.get("/").status_code == 200
        assert log_in(page.browser(), "admin", first).status_code == 403
    with Served(config, tmp_path / "again.log") as page:
        page.await_ready()
        assert "with the password" not in page.said()
        again = page.browser(cookies=browser.cookies)
        assert again.get("/page/session").status_code == 204  # a restart of the stage logs nobody out


def test_without_a_log_in_nothing_is_shown(served: Served) -> None:
    browser = served.browser()
    for path in SHOWING:
        answer = browser.get(path)
        assert answer.status_code in (303, 401), (path, answer.status_code)
        assert len(answer.text) < 200, (path, answer.text)
        bare = browser.get(path, headers={"accept": "application/json"})
        assert bare.status_code == 401, (path, bare.status_code)
    assert browser.get("/people?x=1").headers["location"] == "/login?next=%2Fpeople%3Fx%3D1"
    healthz = browser.get("/healthz")
    assert healthz.text in ("ok", "not well")
    with pytest.raises(websockets.exceptions.InvalidStatus):
        asyncio.run(feed(served, "", served.address))


def test_who_has_logged_in_sees_every_page_and_goes_where_they_wanted_to(served: Served) -> None:
    browser = served.browser()
    answer = log_in(browser, "the admin", PASSWORD, next="/people?x=1")
    assert (answer.status_code, answer.headers["location"]) == (303, "/people?x=1")
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie
    for path in ("/", "/people", "/alerts", "/history", "/health", "/users", "/report", "/metrics", "/api/v1/people"):
        answer = browser.get(path)
        assert answer.status_code == 200, (path, answer.text[-2000:])
        assert answer.headers["x-frame-options"] == "DENY" and answer.headers["cache-control"] == "no-store"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
    told = json.loads(asyncio.run(feed(served, cookie_of(browser), served.address)))
    assert told["cameras"]["cam0"]["state"] == "waiting"


@pytest.mark.parametrize("target", ["https://evil.example/", "//evil.example", "/\\evil.example", "javascript:1", ""])
def test_a_log_in_never_leads_to_another_site(served: Served, target: str) -> None:
    assert log_in(served.browser(), "the viewer", PASSWORD, next=target).headers["location"] == "/"


def test_other_sites_can_neither_send_forms_nor_listen_nor_pass_under_their_own_name(served: Served) -> None:
    browser = served.logged_in("the admin")
    for origin in ("https://evil.example", "null", f"http://127.0.0.1:{served.config.dashboard.port + 1}", ""):
        answer = browser.post("/password", data={"new": "x"}, headers={"origin": origin})
        assert answer.status_code == 403, origin
        with pytest.raises(websockets.exceptions.InvalidStatus):
            asyncio.run(feed(served, cookie_of(browser), origin or None))
    rebound = browser.get("/people", headers={"host": f"evil.example:{served.config.dashboard.port}"})
    assert rebound.status_code == 400 and "dashboard.names" in rebound.text
    without_form = browser.post("/password", data={"old": PASSWORD, "new": "another one 12", "again": "another one 12"})
    assert without_form.status_code == 400
    assert browser.request("OPTIONS", "/people").status_code == 405


def test_guessing_passwords_is_slowed_down(served: Served) -> None:
    browser = served.browser()
    codes = [log_in(browser, "the viewer", f"guess {number}").status_code for number in range(7)]
    assert codes == [403] * 5 + [429] * 2
    assert log_in(browser, "the viewer", PASSWORD).status_code == 429  # also for who knows it


def test_a_bad_new_password_is_no_wrong_one_and_who_guesses_is_told_how_long_to_wait(served: Served) -> None:
    browser = served.logged_in("the viewer")
    new = "another password for tests"

    def change(old: str, new: str) -> httpx.Response:
        form = form_of(browser, "/password")
        return browser.post("/password", data={"old": old, "new": new, "again": new, "form": form})

    for _ in range(6):  # whoever looks for one that will do knows the present one
        refused = change(PASSWORD, "short")
        assert refused.status_code == 400 and "at least 10 characters" in refused.text
    assert [change("a guess", new).status_code for _ in range(4)] == [400] * 4
    assert change(PASSWORD, new).headers["location"] == "/"
    told = [change(PASSWORD, PASSWORD) for _ in range(5)]  # what was guessed before is forgotten
    assert {(one.status_code, "The present password is wrong." in one.text) for one in told} == {(400, True)}
    waiting = change(new, PASSWORD)
    assert waiting.status_code == 429 and re.search(r"Try again in 0:1\d\.", waiting.text), waiting.text


def test_roles_allow_what_they_say(served: Served) -> None:
    viewer, operator = served.logged_in("the viewer"), served.logged_in("the operator")
    asked = "/api/v1/history/1?begin=1&end=2"
    assert viewer.get("/report").status_code == viewer.get(asked).status_code == 403
    assert viewer.get("/export?begin=1&end=2&format=csv&person=1").status_code == 403
    assert operator.get("/report").status_code == 200
    assert operator.get(asked).status_code == 404  # allowed, but nobody is enrolled
    for path, browser in (("/history", viewer), ("/users", operator)):
        assert "Your role does not allow this" in browser.get(path).text
    assert "Your role does not allow this" not in operator.get("/history").text.partition("mien-setup")[0]


def test_programs_read_with_a_token_and_do_nothing_else(served: Served) -> None:
    with Store(served.config.storage.place) as store:
        secret = access.add_token(store, "ward board")
        [token] = access.tokens(store)
    program = served.browser(cookies=None)
    program.headers["authorization"] = f"Bearer {secret}"
    assert program.get("/api/v1/people").json() == []
    assert "mien_process_up" in program.get("/metrics").text
    schema = program.get("/api/openapi.json").json()
    assert {"/v1/people", "/v1/here", "/v1/alerts", "/v1/history/{person}", "/v1/stream"} <= set(schema["paths"])
    assert all(set(verbs) == {"get"} for verbs in schema["paths"].values())
    for path in ("/", "/people", "/people/1/face", "/report"):
        assert program.get(path, headers={"accept": "*/*"}).status_code == 401
    assert program.post("/api/v1/people").status_code == 401
    with Store(served.config.storage.place) as store:
        access.remove_token(store, token.id)
    assert program.get("/api/v1/people").status_code == 401
    refused = program.get("/api/v1/people")
    assert refused.headers["www-authenticate"].startswith("Bearer")


def test_a_session_that_ends_closes_what_it_has_open(served: Served) -> None:
    def demote(store: Store, user: int) -> None:
        access.set_role(store, user, "viewer")

    async def until_closed(name: str, end_it: Callable[[Store, int], object]) -> None:
        browser = served.logged_in(name)
        address = served.address.replace("http", "ws") + "/feed"
        headers = {"cookie": cookie_of(browser)}
        async with connect(address, origin=served.address, additional_headers=headers, proxy=None) as open_feed:  # type: ignore[arg-type]
            await open_feed.recv()
            with Store(served.config.storage.place) as store:
                [user] = [one for one in access.users(store) if one.name == name]
                end_it(store, user.id)
            with pytest.raises(websockets.exceptions.ConnectionClosed) as closed:
                while True:
                    await asyncio.wait_for(open_feed.recv(), 15)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 4401
        assert browser.get("/page/session").status_code in (303, 401)

    asyncio.run(until_closed("the viewer", access.remove_user))
    asyncio.run(until_closed("the operator", demote))


def test_a_port_in_use_is_said_and_where_to_change_it(config: Config, tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", config.dashboard.port))
        holder.listen()
        done = start_stage("dashboard", config, stderr=subprocess.PIPE)
        _, said = done.communicate(timeout=40)
    assert done.returncode == 2
    assert b"listens there" in said and b"dashboard.port" in said and b"Traceback" not in said


def test_beyond_this_machine_only_with_encryption(tmp_path: Path) -> None:
    for host in ("0.0.0.0", "10.0.0.5", "::"):
        with pytest.raises(ConfigError, match="tls_cert and tls_key"):
            load(overrides={"dashboard": {"host": host}}, environment={})
    with pytest.raises(ConfigError, match="belong together"):
        load(overrides={"dashboard": {"tls_cert": str(tmp_path / "a.pem")}}, environment={})
    with pytest.raises(ConfigError, match="there is no file"):
        both = {"tls_cert": str(tmp_path / "a.pem"), "tls_key": str(tmp_path / "b.pem")}
        load(overrides={"dashboard": {"host": "0.0.0.0", **both}}, environment={})
    assert load(overrides={"dashboard": {"host": "0.0.0.0", "enabled": False}}, environment={})
    assert load(overrides={"dashboard": {"host": "127.0.0.1"}}, environment={}).dashboard.loopback


def test_with_a_certificate_it_serves_https_to_other_machines(config: Config, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    changed = port_free(config, host="0.0.0.0", tls_cert=cert, tls_key=key)
    add_user(changed, "the viewer", "viewer")
    with Served(changed, tmp_path / "page.log") as page:
        page.await_ready()
        trust = ssl.create_default_context(cafile=str(cert))
        browser = page.browser(verify=trust)
        answer = log_in(browser, "the viewer", PASSWORD)
        assert answer.status_code == 303 and "Secure" in answer.headers["set-cookie"]
        assert browser.get("/health").status_code == 200
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://127.0.0.1:{changed.dashboard.port}/login", timeout=5)


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ("locked", r"mien\.key is locked with a password"),
        ("another's", r"other\.key .*is not the key of the certificate .*mien\.pem"),
        ("cert", r"mien\.pem cannot be used \(dashboard\.tls_cert\): there is no whole certificate"),
        ("key", r"mien\.key cannot be used \(dashboard\.tls_key\): there is no whole private key"),
    ],
)
def test_a_certificate_that_cannot_be_used_is_named(config: Config, tmp_path: Path, broken: str, says: str) -> None:
    cert, key = certificate(tmp_path, password="secret" if broken == "locked" else None)
    if broken == "another's":
        key = certificate(tmp_path, "other")[1]
    elif broken != "locked":
        file = cert if broken == "cert" else key
        file.write_bytes(file.read_bytes()[:300])
    changed = port_free(config, tls_cert=cert, tls_key=key)
    with pytest.raises(PortError, match=says):
        listening(changed)


def test_nobody_is_asked_for_the_password_of_a_key_and_the_stage_says_why_it_ends(
    config: Config, tmp_path: Path
) -> None:
    cert, key = certificate(tmp_path, password="secret")
    changed = port_free(config, tls_cert=cert, tls_key=key)
    page = Served(changed, tmp_path / "page.log")
    wait_until(lambda: page.process.poll() is not None, 40, "the stage has ended")
    assert page.process.returncode != 0
    assert "is locked with a password" in page.said() and "Traceback" not in page.said()


def test_asked_to_end_it_ends_within_two_seconds_also_with_pages_open(config: Config, tmp_path: Path) -> None:
    add_user(config, "the viewer", "viewer")
    with Served(config, tmp_path / "page.log") as page:
        browser = page.await_ready().logged_in("the viewer")

        async def open_while_it_ends() -> float:
            address = page.address.replace("http", "ws") + "/feed"
            headers = {"cookie": cookie_of(browser)}
            async with connect(address, origin=page.address, additional_headers=headers, proxy=None) as feed:  # type: ignore[arg-type]
                await feed.recv()
                began = time.monotonic()
                page.process.terminate()
                await asyncio.to_thread(page.process.wait, 10)
                return time.monotonic() - began

        assert asyncio.run(open_while_it_ends()) < 2.0
        assert page.process.returncode == 0


def test_killed_and_started_again_it_serves_whoever_was_logged_in(config: Config, tmp_path: Path) -> None:
    add_user(config, "the viewer", "viewer")
    with Served(config, tmp_path / "page.log") as page:
        browser = page.await_ready().logged_in("the viewer")
        page.process.kill()
        page.process.wait(5)
        page.process = start_stage("dashboard", config)
        wait_until(lambda: _answers(browser), 40, "it serves again")
        end(page.process)


def _answers(browser: httpx.Client) -> bool:
    try:
        return browser.get("/page/session").status_code == 204
    except httpx.TransportError:
        return False
