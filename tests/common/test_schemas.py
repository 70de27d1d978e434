"""The protocol's document says what the message classes say, and its examples are valid."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgpack
import pytest
from jsonschema import Draft202012Validator

from common import config as configuration
from common import schemas
from common.keys import KeyRing
from common.messages import PUBLIC, VERSION, Message, Result, kind_of, pack, unpack
from common.news import NewsWriter
from common.schema_fields import fields
from common.settings import Config, SecurityConfig
from common.transport import key_pair
from tests.conftest import ROOT, end, stage_environment, start_stage, wait_until
from tests.node import node_folder


def test_the_document_is_up_to_date() -> None:
    assert schemas.PROTOCOL.read_text(encoding="utf-8") == schemas.document(), "run: python -m common.schemas"


def test_every_public_message_has_an_example() -> None:
    assert set(schemas.EXAMPLES) == set(PUBLIC)


def test_every_request_that_a_stage_understands_is_in_the_document() -> None:
    assert {stage: {do for do, _, _ in rows} for stage, rows in schemas.REQUESTS.items()} == {
        path.stem: understood for path in (ROOT / "stages").glob("*.py") if (understood := _understood(path))
    }


def _understood(path: Path) -> set[str]:
    """Return the words that a stage compares ``request.do`` with."""
    found: set[str] = set()
    parts: Sequence[ast.AST]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Compare):
            asked, parts = node.left, node.comparators
        elif isinstance(node, ast.Match):
            asked, parts = node.subject, [case.pattern for case in node.cases]
        else:
            continue
        if isinstance(asked, ast.Attribute) and asked.attr == "do":
            words = (one.value for part in parts for one in ast.walk(part) if isinstance(one, ast.Constant))
            found |= {word for word in words if isinstance(word, str)}
    return found


@pytest.mark.parametrize("kind", PUBLIC, ids=lambda kind: kind.kind)
def test_each_example_is_a_message_and_comes_back_unchanged(kind: type[Message]) -> None:
    topic, example = schemas.EXAMPLES[kind]
    assert kind_of(topic.encode()) is kind
    message = unpack(kind, msgpack.packb(example))
    said = msgpack.unpackb(pack(message))
    assert said.popitem()[0] == "crc"
    assert json.loads(json.dumps(said)) == example


@pytest.mark.parametrize("kind", PUBLIC, ids=lambda kind: kind.kind)
def test_each_example_shows_every_field(kind: type[Message]) -> None:
    _, example = schemas.EXAMPLES[kind]
    names = {field.alias or name for name, field in kind.model_fields.items()}
    assert set(example) == names


def test_the_schemas_in_the_document_are_json_and_describe_the_common_fields() -> None:
    blocks = [json.loads(text) for text in re.findall(r"```json\n(.*?)\n```", schemas.document(), re.DOTALL)]
    described: list[dict[str, Any]] = [block for block in blocks if "properties" in block]
    assert len(described) == len(PUBLIC) - 1, "a sample is described by its result"
    for schema in described:
        assert {"v", "at", "from", "n"} <= set(schema["properties"])


@pytest.mark.parametrize("kind", PUBLIC, ids=lambda kind: kind.kind)
def test_each_example_satisfies_the_schema_as_another_program_reads_it(kind: type[Message]) -> None:
    validator = Draft202012Validator(kind.model_json_schema(by_alias=True))
    _, example = schemas.EXAMPLES[kind]
    validator.validate(example)
    assert not validator.is_valid(example | {"v": 2})


def test_every_field_says_what_it_means_and_numbers_in_which_unit_or_range() -> None:
    for kind in PUBLIC:
        for field in fields(kind):
            assert field.what, f"{kind.kind}: {field.path} has no description (common/messages.py)"
            if "number" in field.type and not field.range and "string" not in field.type:
                assert re.search("unix seconds|pixels|corners", field.what), f"{kind.kind}: {field.path}: which unit?"


def test_nothing_of_this_version_was_changed_or_taken_away() -> None:
    path = ROOT / "tests" / "common" / f"protocol-{VERSION}.json"
    recorded, now = json.loads(path.read_text(encoding="utf-8")), schemas.record()
    for kind, known in recorded.items():
        kept = {field: now[kind].get(field) for field in known}
        assert kept == known, f"{kind}: fields are only added within a version (docs/protocol.md)"
    assert now == recorded, f"fields were added: write common.schemas.record() to {path.name}"


def test_check_tells_a_stale_document(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemas, "PROTOCOL", tmp_path / "protocol.md")
    assert schemas.main(["--check"]) == 1
    assert schemas.main([]) == 0
    assert schemas.main(["--check"]) == 0


@pytest.mark.parametrize("keys", [False, True], ids=["on this machine", "with a key"])
@pytest.mark.parametrize("name", ["subscribe.py", "subscribe.js"])
def test_the_example_subscribers_print_what_is_seen(config: Config, name: str, keys: bool) -> None:
    script = ROOT / "examples" / name
    assert len(script.read_text().splitlines()) <= 20
    ring = KeyRing(config.run_dir / "keys", key_pair)
    _, key_file = ring.make("reading-room", ("subscriber",))
    config = config.model_copy(update={"security": SecurityConfig(loopback=keys, keys_dir=ring.folder)})
    configuration.save(config, config.run_dir / "config.json")
    command = [sys.executable, str(script)]
    if name.endswith(".js"):  # it finds its packages from where it lies
        command = ["node", shutil.copy(script, node_folder())]
    bus = start_stage("bus", config)
    process = subprocess.Popen(
        [*command, config.endpoints.news_out, *([str(key_file)] if keys else [])],
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
        end(process)
        thread.join(5)
        out.close()
        writer.close()
        end(bus)
    assert lines[:2] == ["results.cam0 1234 Ada sad\n", "results.cam0 1234 pending small\n"]
