"""The page: how old the picture in the browser is, what ten browsers cost, a stalled one, and how soon it is usable.

    python bench/dashboard.py [--seconds 20] [--browsers 10]

*Glass to glass*: pictures with a time code drawn into them are handed to the conductor as a camera would, at 30 a
second; a real Chromium reads the code back from its canvas at each of its own frames. *Cost*: analysed frames/s of the
demo, with nobody, with so many browsers, and with one that has stopped, in turn. These browsers are WebSocket clients
that answer each picture at once: real ones would decode their pictures on the cores that are being measured.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import shutil
import socket
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
from numpy.typing import NDArray
from websockets.asyncio.client import connect

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.pipeline import RATE, Running, demo_clip
from bench.report import Report, in_turn, median, percentile, usage
from common import clock, media
from common.analyse import private_endpoints
from common.config import load
from common.messages import Frame, Result, pack
from common.news import NewsReader
from common.page import access
from common.settings import Config
from common.store import Store
from common.transport import opened, terminate
from stages import STAGES

PASSWORD = "a password for measuring"
BITS, SIDE = 16, 40  # the time code: milliseconds modulo 65536, a square of so many pixels a bit
STARTS_WITHIN_S = 120.0

# Runs in the browser: at each of its frames, read the time code from the canvas and compare it with the clock.
READ = """(seconds) => new Promise((resolve) => {
  const found = [];
  let last = -1;
  const ends = performance.now() + seconds * 1000;
  const look = () => {
    const canvas = document.querySelector(".view canvas");
    const scale = canvas.width / 640;
    const line = canvas.getContext("2d").getImageData(0, Math.round(20 * scale), canvas.width, 1).data;
    let code = 0;
    for (let bit = 0; bit < 16; bit += 1)
      code = code * 2 + (line[4 * Math.round((bit + 0.5) * 40 * scale)] > 127 ? 1 : 0);
    if (code !== last) {
      const age = ((Date.now() % 65536) - code + 65536) % 65536;
      if (last >= 0 && age < 5000) found.push(age);
      last = code;
    }
    if (performance.now() < ends) requestAnimationFrame(look);
    else resolve(found);
  };
  requestAnimationFrame(look);
})"""


@dataclass(slots=True)
class Measured:
    """What was seen while nothing was changed."""

    way: str
    seconds: float
    analysed: int
    cpu: float
    memory_mb: float


def main(arguments: list[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="of measuring, each way")
    parser.add_argument("--browsers", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2, help="changes between the ways")
    given = parser.parse_args(arguments)
    report = Report("dashboard", "the page in the browser")
    report.settings = {"seconds": given.seconds, "browsers": given.browsers}
    for part in (_glass_to_glass, _cost):
        folder = Path(tempfile.mkdtemp(prefix="mien-"))
        try:
            part(report, given, folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    terminate()
    report.show()
    print(f"kept in {report.save()}")
    return 0


# --- how old the picture is ---


def _glass_to_glass(report: Report, given: argparse.Namespace, folder: Path) -> None:
    from playwright.sync_api import sync_playwright

    config = _configured(folder, "demo")
    everything = tuple(name for name in STAGES if name not in ("capture", "display"))
    camera = Camera(config)
    with Running(config, only=everything), camera, sync_playwright() as playwright:
        _await_page(config)
        browser = playwright.chromium.launch(executable_path=_chromium(), args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(viewport={"width": 1366, "height": 768}).new_page()
        page.goto(_address(config))
        page.fill("input[name=name]", "bench")
        page.fill("input[name=password]", PASSWORD)
        began = time.monotonic()
        page.click("button")
        page.wait_for_selector(".bar", timeout=30_000)
        frame_s = time.monotonic() - began
        page.wait_for_function("document.querySelector('.caption')?.textContent.includes('ms')", timeout=60_000)
        usable_s = time.monotonic() - began
        page.wait_for_timeout(2000)
        ages: list[float] = page.evaluate(READ, given.seconds)
        shown = page.locator(".caption").first.inner_text()
        browser.close()
    report.add(
        "glass to glass, ms", median=median(ages), p95=percentile(ages, 0.95), worst=max(ages, default=float("nan")),
        pictures_s=len(ages) / given.seconds, target="≤ 150",
    )  # fmt: skip
    report.add("usable after the log-in, s", page=frame_s, picture=usable_s, target="≤ 1")
    report.notes.append(
        f"The page said: {shown}. From the drawing of the code to the browser's frame; not the screen's own."
    )


class Camera:
    """Hands pictures with a time code to the conductor, in a thread, until the ``with`` block ends."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="camera")

    def __enter__(self) -> Camera:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        picture = _still()
        socket_out = opened("frames", self._config.endpoint("frames"), "push")
        run, seq, due = int(time.time() * 1000), 0, time.monotonic()
        while not self._stop.is_set():
            due = max(due + 1 / RATE, time.monotonic() - 1 / RATE)
            self._stop.wait(max(0.0, due - time.monotonic()))
            pixels = picture.copy()
            now, taken = time.time(), time.monotonic_ns()
            _draw(pixels, int(now * 1000) % 2**BITS)
            frame = Frame(
                sender="bench.camera", camera="cam0", run=run, seq=seq, captured_at=now, width=640, height=360,
                age_ms=(time.monotonic_ns() - taken) / 1e6, clock=clock.reading(taken), media_time_s=seq / RATE,
            )  # fmt: skip
            seq += socket_out.send([frame.kind.encode(), pack(frame), pixels], timeout_ms=5)
        socket_out.close()


def _still() -> NDArray[np.uint8]:
    capture = cv2.VideoCapture(str(media.sample("woman.mp4")))
    try:
        good, pixels = capture.read()
    finally:
        capture.release()
    assert good
    return np.asarray(cv2.resize(pixels, (640, 360)), np.uint8)


def _draw(pixels: NDArray[np.uint8], code: int) -> None:
    for bit in range(BITS):
        on = code >> (BITS - 1 - bit) & 1
        pixels[:SIDE, bit * SIDE : (bit + 1) * SIDE] = 255 * on


# --- what browsers cost ---


def _cost(report: Report, given: argparse.Namespace, folder: Path) -> None:
    ways = ("nobody", f"{given.browsers} browsers", f"{given.browsers} and a stalled one")
    needed_s = 300 + 3 * given.seconds
    config = _configured(folder, str(demo_clip(needed_s)))
    measured: list[Measured] = []
    with Running(config) as running:
        _await_page(config)
        reader = NewsReader(config, ("results.",))
        _results(reader, 5.0)
        for way in in_turn(ways, given.rounds):
            crowd = Crowd(config, 0 if way == ways[0] else given.browsers, stalled=way == ways[2])
            with crowd:
                _results(reader, 2.0)
                pid = {"dashboard": running.pids()["dashboard"]}
                before = usage(pid, memory=False)
                analysed = _results(reader, given.seconds / given.rounds)
                after = usage(pid)
                seconds = after.at - before.at
                spent = after.cpu_since(before)["dashboard"] / seconds
                measured.append(Measured(way, seconds, analysed, spent, after.memory_mb["dashboard"]))
        reader.close()
    rates = {}
    for way in ways:
        own = [one for one in measured if one.way == way]
        rates[way] = sum(one.analysed for one in own) / sum(one.seconds for one in own)
        report.add(
            "cost", way=way, analysed_s=rates[way], of_nobody=rates[way] / max(rates[ways[0]], 1e-9),
            dashboard_cpu=median(one.cpu for one in own), dashboard_mb=median(one.memory_mb for one in own),
            target="≥ 0.95, ≤ 60 MB more",
        )  # fmt: skip


class Crowd:
    """Browsers in a process of their own: each has opened the page and answers pictures; one may not answer."""

    def __init__(self, config: Config, count: int, *, stalled: bool) -> None:
        context = multiprocessing.get_context("spawn")
        self._watching = context.Semaphore(0)  # released by each browser when its first picture comes
        arguments = (_address(config), count, stalled, self._watching)
        self._process = context.Process(target=_crowd, args=arguments, daemon=True)
        self._count, self._all = count, count + stalled

    def __enter__(self) -> Crowd:
        if self._count:
            self._process.start()
            for _ in range(self._all):
                if not self._watching.acquire(timeout=STARTS_WITHIN_S):
                    raise SystemExit(f"not all {self._all} browsers got a picture within {STARTS_WITHIN_S:.0f} s")
        return self

    def __exit__(self, *_: object) -> None:
        if self._count:
            self._process.terminate()
            self._process.join()


def _crowd(address: str, count: int, stalled: bool, watching: Any) -> None:
    async def browse(cookie: str, answers: bool) -> None:
        feed = address.replace("http", "ws") + "/feed"
        headers = {"cookie": cookie}
        async with connect(feed, origin=address, additional_headers=headers, proxy=None, max_queue=4) as socket_in:  # type: ignore[arg-type]
            await socket_in.send('{"watch": ["cam0"]}')
            seen = 0
            async for message in socket_in:
                if not isinstance(message, bytes):
                    continue
                seen += 1
                if seen == 1:
                    watching.release()
                if not answers:
                    await asyncio.sleep(3600)
                await socket_in.send('{"drawn": "cam0"}')

    async def all_of_them() -> None:
        with httpx.Client(base_url=address, headers={"origin": address, "accept": "text/html"}) as client:
            form = client.get("/login").text.partition('name="form" value="')[2].partition('"')[0]
            client.post("/login", data={"name": "bench", "password": PASSWORD, "form": form})
            for _ in range(count + stalled):
                client.get("/").raise_for_status()
            cookie = "; ".join(f"{name}={value}" for name, value in client.cookies.items())
        await asyncio.gather(*(browse(cookie, index < count) for index in range(count + stalled)))

    asyncio.run(all_of_them())


# --- both ---


def _configured(folder: Path, source: str) -> Config:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        port = holder.getsockname()[1]
    samples = media.data_dir() / "samples"
    data = folder / "data"
    data.mkdir(parents=True)
    (data / "samples").symlink_to(samples)
    with Store(data) as store:
        one_time = access.add_user(store, "bench", "admin")
        [user] = access.users(store)
        access.set_password(store, user, one_time, PASSWORD)
        access.begin(store, user)
    overrides: dict[str, Any] = {
        "run_dir": folder, "cameras": {"cam0": {"source": source}}, "dashboard": {"port": port},
        "endpoints": private_endpoints(folder) | {"archive": None}, "storage": {"data_dir": data},
    }  # fmt: skip
    return load(overrides=overrides, environment={})


def _address(config: Config) -> str:
    return f"http://127.0.0.1:{config.dashboard.port}"


def _await_page(config: Config) -> None:
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline:
        try:
            httpx.get(_address(config) + "/healthz", timeout=5)
            return
        except httpx.TransportError:
            time.sleep(0.2)
    raise SystemExit(f"the page was not served within {STARTS_WITHIN_S:.0f} s")


def _results(reader: NewsReader, seconds: float) -> int:
    analysed, ends = 0, time.monotonic() + seconds
    while (left := ends - time.monotonic()) > 0:
        for _, message in reader.read(timeout_ms=max(1, int(left * 1000))):
            analysed += isinstance(message, Result) and message.analysed
    return analysed


def _chromium() -> str:
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        raise SystemExit("a Chromium is needed: apt-get install chromium")
    return found


if __name__ == "__main__":
    sys.exit(main())
