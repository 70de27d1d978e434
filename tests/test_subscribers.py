"""Other people's programs beside a running Mien: the document's examples run, and everything that is said is valid."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgpack
import pytest
import zmq
from jsonschema import Draft202012Validator

from common import control
from common.expressions import EXPRESSIONS
from common.messages import PUBLIC, Message, unpack
from common.page import access
from common.settings import Config
from common.store import Store
from tests.conftest import ROOT, end, stage_environment
from tests.node import node_folder
from tests.running import Running
from tests.servers import mosquitto

VALIDATORS: dict[str, tuple[type[Message], Any]] = {
    kind.kind: (kind, Draft202012Validator(kind.model_json_schema(by_alias=True))) for kind in PUBLIC
}

# Of these there are many a second, and checking one takes milliseconds; our own classes check all of them.
SCHEMA_EVERY = {"results": 20, "preview": 20}


class Block:
    """An example of the document as a program of its own: it has to print something."""

    def __init__(self, language: str, code: str, folder: Path, number: int) -> None:
        self.code = code
        self.out = folder / f"block{number}.txt"
        node = node_folder()
        script = node / f"{folder.name}-{number}.mjs" if language == "js" else folder / f"block{number}"
        script.write_text(code)
        program = {"python": sys.executable, "sh": "bash", "js": "node"}[language]
        with self.out.open("wb") as out:
            self.process = subprocess.Popen(
                [program, str(script)],
                env=stage_environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=out, process_group=0,
            )  # fmt: skip
        self._script = script

    def said(self) -> str:
        return self.out.read_text(encoding="utf-8", errors="replace")

    def close(self) -> None:
        end(self.process)
        self._script.unlink()


def blocks_of(text: str, replaced: dict[str, str]) -> list[tuple[str, str]]:
    """Return the document's examples, (language, code), with other addresses."""
    found = re.findall(r"```(python|js|sh)\n(.*?)```", text, re.DOTALL)
    for old, new in replaced.items():
        assert any(old in code for _, code in found), f"no example has {old}"
        found = [(language, code.replace(old, new)) for language, code in found]
    return found


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_examples_of_the_document_run_and_every_live_message_satisfies_the_protocol(
    config: Config, tmp_path: Path
) -> None:
    rule = {"name": "any", "expressions": ["angry", "disgusted", "fearful", "happy", "sad", "surprised", "neutral"],
            "min_duration_s": 0.5}  # fmt: skip
    with ExitStack() as stack:
        broker = stack.enter_context(mosquitto(tmp_path, user="user", password="password"))
        mien = stack.enter_context(
            Running(config, "demo", dashboard={"enabled": True}, mqtt={"url": broker.url}, alerts={"rules": [rule]})
        )
        listener = stack.enter_context(zmq.Context.instance().socket(zmq.SUB))
        listener.setsockopt(zmq.LINGER, 0)
        listener.setsockopt(zmq.RCVHWM, 100_000)
        listener.subscribe(b"")
        for endpoint in (mien.config.endpoints.news_out, mien.config.endpoints.previews):
            listener.connect(endpoint)
        heard: dict[str, int] = {}

        def listen() -> dict[str, int]:
            while listener.poll(0):
                topic, packed, *blobs = listener.recv_multipart()
                word = topic.decode("ascii").partition(".")[0]
                fields = msgpack.unpackb(packed)
                kind, validator = VALIDATORS[word]
                heard[word] = heard.get(word, 0) + 1
                unpack(kind, packed)
                if heard[word] % SCHEMA_EVERY.get(word, 1) == 1 % SCHEMA_EVERY.get(word, 1):
                    validator.validate(fields)
                # All of it is in the contract: what is sent and not described is a gap of the document.
                assert set(fields) - {"crc"} <= set(validator.schema["properties"])
                assert (len(blobs), word == "preview") in ((1, True), (0, False))
            return heard

        mien.fresh_results(5)
        mien.until(lambda: "the page is at" in mien.said(), "the page is served", 60)
        with Store(mien.config.storage.data_dir) as store:
            token = access.add_token(store, "an example")
        page, news = f"127.0.0.1:{mien.config.dashboard.port}", mien.config.endpoints.news_out
        replaced = {
            "tcp://127.0.0.1:5561": news, "127.0.0.1:8080": page, "mien_TOKEN": token, "-p 1883": f"-p {broker.port}",
        }  # fmt: skip
        text = (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8")
        blocks = []
        for number, (language, code) in enumerate(blocks_of(text, replaced)):
            blocks.append(Block(language, code, tmp_path, number))
            stack.callback(blocks[-1].close)
        assert len(blocks) == 7

        def all_printed() -> bool:
            listen()
            for block in blocks:
                assert block.process.poll() is None, f"{block.code}\n{block.said()}"
            return all("cam0" in block.said() for block in blocks)

        mien.until(all_printed, f"all examples print: {[block.said()[-200:] for block in blocks]}", 90)
        answer = control.ask(mien.config, "snapshot", "snapshot", timeout_s=30, camera="cam0")
        assert answer.ok, answer.error
        # There is no correction when nobody is mistaken, and nothing public unless it is configured.
        wanted = set(VALIDATORS) - {"corrections", "public"}
        mien.until(lambda: wanted <= set(listen()), f"all kinds of messages: {heard}", 60)
        # What the broker was told is the truth.
        told = blocks[-1]

        def newest(topic: str) -> Any:
            found = [line.partition(" ")[2] for line in told.said().splitlines() if line.startswith(f"{topic} ")]
            return json.loads(found[-1]) if found and found[-1].startswith("{") else found and found[-1]

        assert newest("mien/status") == "online" and "homeassistant/sensor/" not in told.said()
        mien.until(lambda: newest("mien/cam0/people")["people"] == 1, "one woman is in view", 60)
        assert newest("mien/cam0/people")["expression"] in (*EXPRESSIONS, "pending", "cannot assess")
        alert = mien.until(lambda: (n := newest("mien/cam0/alert"))["open"] == "ON" and n, "an alert is open", 60)
        answer = control.ask(mien.config, "alerts", "acknowledge", timeout_s=30, episode=alert["episode"], by="Kim")
        assert answer.ok, answer.error
        step = mien.until(lambda: newest("mien/cam0/alerts"), "the step comes", 30)
        assert (step["event"], step["by"], step["episode"]) == ("acknowledged", "Kim", alert["episode"])
        mien.until(lambda: newest("mien/cam0/alert")["unacknowledged"] == 0, "the state follows", 30)
