"""Alerts in a running Mien: the demo's woman is sad, then cries, then smiles."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from common import alert_store, control, history_store
from common.ledger import Ledger
from common.messages import Alert
from common.news import NewsReader
from common.settings import Config
from tests.conftest import wait_until
from tests.receivers import WebServer
from tests.running import Running


@pytest.fixture
def web() -> Iterator[WebServer]:
    with WebServer() as server:
        yield server


def test_sadness_opens_one_episode_that_survives_kill_9_is_told_and_acknowledged(
    config: Config, web: WebServer
) -> None:
    rule = {"name": "negative", "min_duration_s": 1.5, "leave_s": 60, "pause_s": 300, "escalate_after_s": None}
    settings = {"targets": {"hook": web.address}, "snapshot": True}
    with Running(config, "demo", alerts={"rules": [rule]}, notifications=settings) as mien:
        news, alerts = NewsReader(mien.config, ("alerts.",)), list[Alert]()

        def heard() -> list[Alert]:
            alerts.extend(message for _, message in news.read() if isinstance(message, Alert))
            return alerts

        try:
            mien.fresh_results(3)
            [opened] = mien.until(heard, "an episode opens", 120)
            assert (opened.event, opened.rule) == ("opened", "negative")
            shown = mien.results[-1].faces[0]
            assert shown.expression.label not in ("happy", "neutral"), shown
            assert "has looked" in opened.text and opened.text.endswith("– please check")
            with Ledger(mien.config.storage.place) as ledger:

                def sent() -> bool:
                    return alert_store.notifications(ledger)[0].state == "sent"

                mien.until(sent, "the notification is sent", 60)
                [process] = mien.processes("alerts")
                os.kill(process.pid, signal.SIGKILL)
                mien.until(
                    lambda: [p for p in mien.processes("alerts") if p.pid != process.pid], "another alerts stage", 30
                )
                # She smiles, the clip begins again, and she is sad again: all of it one episode.
                mien.fresh_results(30)
                answer = control.ask(
                    mien.config, "alerts", "acknowledge", timeout_s=30, episode=opened.episode, by="Kim"
                )
                assert answer.ok, answer.error
                mien.until(lambda: len(heard()) >= 2, "it is acknowledged")
                assert [(one.event, one.serial) for one in alerts] == [("opened", 1), ("acknowledged", 2)]
                [episode] = alert_store.episodes(ledger)
                assert episode.open and episode.acknowledged_by == "Kim"
                [body] = web.bodies
                assert body["message"].startswith(f"{opened.text} (")
                assert [one["mimetype"] for one in body["attachments"]] == ["image/jpeg"]
                begin, end = mien.results[0].captured_at, mien.results[-1].captured_at

                def remembered() -> float:
                    subjects = history_store.subjects(ledger, begin - 5, end + 5)
                    return sum(history_store.summary(ledger, one, begin, end).assessed_s for one in subjects)

                wait_until(lambda: remembered() > 0.5 * (end - begin), 30, "history has it")
        finally:
            news.close()
