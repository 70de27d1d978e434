"""Real servers and a real screen for the tests: RTSP (GStreamer), HTTP MJPEG, X11. Each a process of its own."""

from __future__ import annotations

import argparse
import base64
import contextlib
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SYSTEM_PYTHON = "/usr/bin/python3"  # GStreamer's bindings belong to the system's Python
PACKAGES = (
    "xvfb x11-xserver-utils python3-gi gir1.2-gst-rtsp-server-1.0 "
    "gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly mosquitto"
)


def free_port() -> int:
    """A TCP port on loopback that nobody listens on."""
    from tests.conftest import free_ports  # only here: the servers themselves run without the tests' environment

    [port] = free_ports(1)
    return port


class Server:
    """A server process that can be killed, frozen and started again on the same port."""

    def __init__(self, command: list[str], port: int, url: str) -> None:
        self.command, self.port, self.url = command, port, url
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                assert self.process.stderr
                raise AssertionError(f"{self.command} ended: {self.process.stderr.read().decode()}\n{need_text()}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            select.select([], [], [], 0.02)
        raise AssertionError(f"{self.command} does not listen on port {self.port}")

    def kill(self) -> None:
        """kill -9."""
        if self.process:
            self.process.kill()
            self.process.wait()
            assert self.process.stderr
            self.process.stderr.close()
            self.process = None

    def freeze(self) -> None:
        """Stop it without closing its connections."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self.process
        self.process.send_signal(signal.SIGCONT)


@contextlib.contextmanager
def _running(server: Server) -> Iterator[Server]:
    server.start()
    try:
        yield server
    finally:
        server.kill()


@contextlib.contextmanager
def rtsp_server() -> Iterator[Server]:
    """An RTSP server: a moving test picture, 640×360 at 30 frames/s, H.264."""
    need(SYSTEM_PYTHON)
    port = free_port()
    command = [SYSTEM_PYTHON, str(Path(__file__)), "rtsp", str(port)]
    with _running(Server(command, port, f"rtsp://127.0.0.1:{port}/live")) as server:
        yield server


@contextlib.contextmanager
def mjpeg_server(*, repeat_after: int | None = None, login: str = "") -> Iterator[Server]:
    """An HTTP server that sends multipart JPEG, 320×240 at 30 frames/s.

    Args:
        repeat_after: after so many pictures (over all connections), the same one for ever.
        login: "user:password" that it asks for.
    """
    port = free_port()
    command = [sys.executable, str(Path(__file__)), "mjpeg", str(port), "--login", login]
    command += ["--repeat-after", str(repeat_after or 0)]
    url = f"http://{login}@127.0.0.1:{port}/video" if login else f"http://127.0.0.1:{port}/video"
    with _running(Server(command, port, url)) as server:
        yield server


@contextlib.contextmanager
def mosquitto(
    folder: Path, *, user: str = "", password: str = "", tls: tuple[Path, Path] | None = None
) -> Iterator[Server]:
    """An MQTT broker that keeps nothing when it is killed.

    Args:
        folder: for its settings.
        user, password: that it asks for; nobody else may connect.
        tls: its certificate and key: then it takes encrypted connections only.
    """
    need("mosquitto")
    port = free_port()
    lines = [f"listener {port} 127.0.0.1", "persistence false", "user root"]
    if user:
        secrets = folder / "passwords"
        subprocess.run(["mosquitto_passwd", "-b", "-c", str(secrets), user, password], check=True, capture_output=True)
        lines += ["allow_anonymous false", f"password_file {secrets}"]
    else:
        lines.append("allow_anonymous true")
    if tls is not None:
        lines += [f"certfile {tls[0]}", f"keyfile {tls[1]}"]
    settings = folder / "mosquitto.conf"
    settings.write_text("\n".join(lines) + "\n")
    login = f"{user}:{password}@" if user else ""
    url = f"{'mqtts' if tls else 'mqtt'}://{login}127.0.0.1:{port}"
    with _running(Server([need("mosquitto"), "-c", str(settings)], port, url)) as server:
        yield server


@contextlib.contextmanager
def x_screen(width: int = 1280, height: int = 720) -> Iterator[str]:
    """An X server with a screen of this size on a free display; gives the display's name."""
    need("Xvfb")
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", f"{width}x{height}x24", "-nolisten", "tcp", "-noreset"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        assert process.stdout
        ready, _, _ = select.select([process.stdout], [], [], 20)
        number = process.stdout.readline().decode().strip() if ready else ""
        assert number, "Xvfb did not start"
        yield f":{number}"
    finally:
        process.terminate()
        process.wait(timeout=10)
        if process.stdout:
            process.stdout.close()


def need(program: str) -> str:
    """The path of a program; fails the test when it is not installed."""
    found = shutil.which(program)
    if not found:
        raise AssertionError(f"{program} is missing. {need_text()}")
    return found


def need_text() -> str:
    """What to install."""
    return f"These tests need: apt-get install {PACKAGES}"


# What follows runs in the server processes.


def _serve_rtsp(port: int) -> None:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer

    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(port))
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        "( videotestsrc is-live=true pattern=ball ! video/x-raw,width=640,height=360,framerate=30/1 ! "
        "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! rtph264pay name=pay0 pt=96 )"
    )
    factory.set_shared(True)
    server.get_mount_points().add_factory("/live", factory)
    server.attach(None)
    GLib.MainLoop().run()


def _serve_mjpeg(port: int, login: str, repeat_after: int) -> None:
    import cv2
    import numpy as np

    began = time.monotonic()
    wanted = f"Basic {base64.b64encode(login.encode()).decode()}"

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if login and self.headers.get("Authorization") != wanted:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                self.end_headers()
                return
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=picture")
            self.end_headers()
            try:
                while True:
                    number = int((time.monotonic() - began) * 30)
                    number = min(number, repeat_after) if repeat_after else number
                    picture = np.full((240, 320, 3), 40, np.uint8)
                    x = number * 3 % 280
                    picture[100:140, x : x + 40] = (0, 200, 255)
                    jpeg = cv2.imencode(".jpg", picture)[1].tobytes()
                    header = f"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                    self.wfile.write(header.encode() + jpeg + b"\r\n")
                    time.sleep(1 / 30)  # the camera's own pace
            except OSError:
                pass  # the viewer went away

        def log_message(self, *_: object) -> None:
            pass

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("rtsp", "mjpeg"))
    parser.add_argument("port", type=int)
    parser.add_argument("--login", default="")
    parser.add_argument("--repeat-after", type=int, default=0)
    options = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        if options.kind == "rtsp":
            _serve_rtsp(options.port)
        else:
            _serve_mjpeg(options.port, options.login, options.repeat_after)
    os._exit(0)
