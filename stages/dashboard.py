"""The dashboard stage: the page in the browser."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from common.control import Asker
from common.messages import Message, MessageError, Result, Sample, unpack
from common.news import Complaint
from common.settings import Config
from common.stage import Stage, StageError, WornOut, main
from common.transport import Received, Socket, opened
from common.watching import Viewer, read

if TYPE_CHECKING:
    from common.page.desk import Wish
    from common.page.server import Server

UNUSED_S = 0.5  # with nobody at the page, news and the first request may wait so long
SAMPLE_EVERY_S = 0.5  # of the results of a camera, one so often is looked at
RESULTS = b"results."


class DashboardStage(Stage):
    """Serves the page: previews and news in, requests out."""

    name = "dashboard"

    def __init__(self, config: Config, *, camera: str | None = None) -> None:
        super().__init__(config, camera=camera)
        self._complaint = Complaint()
        self._viewer: Viewer | None = None
        self._results: Socket | None = None
        self._asker: Asker | None = None
        self._server: Server | None = None
        self._wishes: dict[str, Wish] = {}
        self._news: list[tuple[str, Message]] = []
        self._following = False  # whether results are read

    def open(self) -> None:
        # Here, not above: it takes a second or more, in which the process can already be asked to end.
        from common.page import access
        from common.page.server import PortError, Server, listening
        from common.store import StoreError, StoreUnavailable

        try:
            listener = listening(self.config)
        except PortError as error:
            raise StageError(str(error)) from error
        server = Server(self.config, self.instance)
        self._server = server
        try:
            password = access.first_password(server.desk.opened())
        except StoreUnavailable as error:
            raise WornOut(str(error)) from error  # tried again by a fresh process
        except StoreError as error:
            raise StageError(str(error)) from error
        self._viewer = Viewer(self.config)
        self.poller.add(self._viewer.socket)
        self._results = opened("news_out", self.config.endpoint("news_out"), "sub")
        self.poller.add(self._results)
        self._asker = Asker(self.config, self.news)
        server.start(listener)
        self.log.info("the page is at %s", server.address)
        if password is not None:
            # Said once, to whoever started Mien; it works once, and not any more when another was made.
            self.log.warning("log in at %s as %s with the password %s", server.address, access.FIRST_USER, password)

    def topics(self) -> tuple[str, ...]:
        return ("samples.", "camera.", "alerts.", "stats.", "corrections.")

    def sampled(self) -> Mapping[str, float]:
        return {"samples.": SAMPLE_EVERY_S}

    def on_news(self, topic: str, message: Message) -> None:
        self._news.append((topic, message))

    def wait_ms(self) -> float:
        return 20.0 if self._used() else 1e3 * UNUSED_S

    def pace_ms(self) -> float:
        return 0.0 if self._used() else 1e3 * UNUSED_S

    def handle(self, ready: set[Socket]) -> None:
        assert self._viewer is not None and self._server is not None and self._results is not None
        if not self._server.alive:
            raise RuntimeError("the page's server has ended")
        self._viewer.watch(*self._server.site.feed.wanted)
        if self._viewer.socket in ready:
            self._read_previews()
        if self._server.site.streams.reads_results != self._following:
            self._following = not self._following
            (self._results.subscribe if self._following else self._results.unsubscribe)(RESULTS)
        if self._results in ready:
            self._read_results()
        self._hand_over()
        self._ask()

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        if self._viewer is not None:
            self.poller.remove(self._viewer.socket)
            self._viewer.close()
        if self._results is not None:
            self._results.close()
        if self._asker is not None:
            self._asker.close()

    def detail(self) -> dict[str, float | str]:
        if self._server is None:
            return {}
        watchers = list(self._server.site.feed.watchers)
        self.meter.dropped = sum(watcher.replaced for watcher in watchers)
        return {
            "pages": float(len(watchers)),
            "watched": float(len(self._server.site.feed.wanted)),
            "programs": float(len(self._server.site.streams.open)),
        }

    # --- inside ---

    def _used(self) -> bool:
        """Whether somebody looks at the page, or waits for an answer."""
        site = None if self._server is None else self._server.site
        return bool(self._wishes) or (site is not None and bool(site.feed.watchers or site.streams.open))

    def _read_previews(self) -> None:
        from common.page.feed import packed

        assert self._viewer is not None and self._server is not None
        newest: dict[bytes, Received] = {}
        while (parts := self._viewer.receive()) is not None:
            self.meter.taken += 1
            newest[bytes(parts[0])] = parts
        for parts in newest.values():
            began = time.perf_counter()
            try:
                seen = read(parts)
            except MessageError as error:
                self.meter.bad_messages += 1
                self._complaint(self.log, "previews", error)
                continue
            self._server.picture(seen.preview.result.camera, packed(seen))
            self.meter.given += 1
            self.meter.worked((time.perf_counter() - began) * 1e3)

    def _read_results(self) -> None:
        """Pass on the results of cameras that a program listens to."""
        assert self._results is not None and self._server is not None
        site = self._server.site
        deadline = time.monotonic() + 0.1
        while time.monotonic() < deadline and (parts := self._results.receive()) is not None:
            topic = bytes(parts[0][:128])
            wanted = site.streams.wants(topic.removeprefix(RESULTS).decode("ascii", "replace"))
            if len(parts) < 2 or not wanted:
                continue
            try:
                result = unpack(Result, parts[1])
                self._server.call(site.streams.take, f"results.{result.camera}", result)
            except MessageError as error:
                self.meter.bad_messages += 1
                self._complaint(self.log, "results", error)

    def _hand_over(self) -> None:
        """Give the page what has come, all at once: each call wakes its thread."""
        assert self._server is not None
        if not self._news:
            return
        news, self._news = self._news, []
        site = self._server.site

        def take() -> None:
            for topic, message in news:
                if isinstance(message, Sample):
                    site.sample(message)
                    continue
                site.take(message)
                if site.streams.open:
                    site.streams.take(topic, message)

        self._server.call(take)

    def _ask(self) -> None:
        assert self._asker is not None and self._server is not None
        while not self._server.desk.wishes.empty():
            wish = self._server.desk.wishes.get()
            request = self._asker.ask(wish.stage, wish.do, timeout_s=wish.timeout_s, **wish.args)
            self._wishes[request] = wish
        for request, reply in self._asker.answers():
            wish = self._wishes.pop(request)
            self._server.call(lambda answer=wish.answer, reply=reply: answer.done() or answer.set_result(reply))


if __name__ == "__main__":
    code = main(DashboardStage)
    logging.shutdown()
    # All is closed. Taking the web framework's objects apart one by one would last longer than a stage has to end.
    os._exit(code)
