"""The protocol's document says what the message classes say, and its examples are valid."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from typing import Any

import msgpack
import pytest

from common import schemas
from common.config import Config
from common.messages import PUBLIC, Message, Result, kind_of, pack, unpack
from common.news import NewsWriter
from tests.conftest import ROOT, end, stage_environment, wait_until


def test_the_document_is_up_to_date() -> None:
    assert schemas.PROTOCOL.read_text(encoding="utf-8") == schemas.document(), "run: python -m common.schemas"


def test_every_public_message_has_an_example() -> None:
    assert set(schemas.EXAMPLES) == set(PUBLIC)


@pytest.mark.parametrize("kind", PUBLIC, ids=lambda kind: kind.kind)
def test_each_example_is_a_message_and_comes_back_unchanged(kind: type[Message]) -> None:
    topic, example = schemas.EXAMPLES[kind]
    assert kind_of(topic.encode()) is kind
    message = unpack(kind, msgpack.packb(example))
    assert json.loads(json.dumps(msgpack.unpackb(pack(message)))) == example


@pytest.mark.parametrize("kind", PUBLIC, ids=lambda kind: kind.kind)
def test_each_example_shows_every_field(kind: type[Message]) -> None:
    _, example = schemas.EXAMPLES[kind]
    names = {field.alias or name for name, field in kind.model_fields.items()}
    assert set(example) == names


def test_the_schemas_in_the_document_are_json_and_describe_the_common_fields() -> None:
    blocks = [json.loads(text) for text in re.findall(r"```json\n(.*?)\n```", schemas.document(), re.DOTALL)]
    described: list[dict[str, Any]] = [block for block in blocks if "properties" in block]
    assert len(described) == len(PUBLIC)
    for schema in described:
        assert {"v", "at", "from", "n"} <= set(schema["properties"])


def test_check_tells_a_stale_document(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "PROTOCOL", tmp_path / "protocol.md")
    assert schemas.main(["--check"]) == 1
    assert schemas.main([]) == 0
    assert schemas.main(["--check"]) == 0


def test_the_example_subscriber_prints_what_is_seen(bus: subprocess.Popen[bytes], config: Config) -> None:
    script = ROOT / "examples" / "subscribe.py"
    assert len(script.read_text().splitlines()) <= 20
    process = subprocess.Popen(
        [sys.executable, str(script), config.endpoints.news_out],
        env=stage_environment(), stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    out = process.stdout
    assert out is not None
    writer = NewsWriter(config, "conductor.ward.1")
    result = Result.model_validate_json(json.dumps(schemas.EXAMPLES[Result][1]))
    try:
        lines: list[str] = []
        thread = threading.Thread(target=lambda: lines.extend(iter(out.readline, "")))
        thread.start()

        def printed() -> bool:
            writer.publish(result, "cam0")
            return len(lines) >= 2

        wait_until(printed, 20, "the subscriber prints")
    finally:
        end(process)  # type: ignore[arg-type]
        thread.join(5)
        out.close()
        writer.close()
    assert lines[:2] == ["results.cam0 1234 Ada sad\n", "results.cam0 1234 pending small\n"]
