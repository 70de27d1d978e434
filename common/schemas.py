"""Writes ``docs/protocol.md`` from the message classes: ``python -m common.schemas``; ``--check`` only compares."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from common.expressions import EXPRESSIONS
from common.messages import (
    MAX_FACES,
    MAX_MAP_BYTES,
    PUBLIC,
    VERSION,
    Alert,
    CameraState,
    Control,
    Correction,
    Message,
    Preview,
    PublicResult,
    Reply,
    Result,
    Sample,
    Stats,
)
from common.schema_fields import fields

PROTOCOL = Path(__file__).resolve().parents[1] / "docs" / "protocol.md"

_LINE = 110  # characters
_AT = 1790000000.165
_REQUEST = "3f2b8c1e9d7a4f60b5c4d3e2f1a09876"
_SAD = dict(zip(EXPRESSIONS, (0.02, 0.01, 0.03, 0.01, 0.78, 0.01, 0.14), strict=True))
_KNOWN = {
    "status": "known",
    "person": 3,
    "name": "Ada",
    "number": None,
    "distance": 0.31,
    "confidence": 0.93,
    "withheld": False,
}
_RESULT: dict[str, Any] = {
    "v": 1, "at": _AT, "from": "conductor.ward.4711", "n": 1235, "camera": "cam0", "run": 1789999958123, "seq": 1234,
    "captured_at": 1790000000.123, "width": 640, "height": 360, "analysed": True, "quiet": False, "latency_ms": 41.7,
    "timings_ms": {"capture": 1.2, "detection": 24.9, "expression": 3.1}, "media_time_s": 41.133, "name": None,
    "selected": None, "following": True, "enrolling": {"track": 19, "pictures": 2, "wanted": 5, "turn": "left"},
    "faces": [
        {
            "track": 17, "box": [201.5, 88.0, 96.0, 121.5], "score": 0.98,
            "landmarks": [[228.1, 134.6], [268.9, 133.2], [249.0, 157.9], [233.4, 181.0], [265.2, 180.1]],
            "identity": _KNOWN,
            "expression": {
                "status": "ok", "reason": None, "label": "sad", "confidence": 0.71, "probabilities": _SAD,
                "smoothed": {**_SAD, "sad": 0.71, "neutral": 0.21},
            },
        },
        {
            "track": 19, "box": [480.0, 20.5, 21.0, 26.0], "score": 0.64,
            "landmarks": [[486.0, 30.5], [494.9, 30.4], [490.2, 36.0], [487.1, 41.2], [493.8, 41.0]],
            "identity": {
                "status": "pending", "person": None, "name": None, "number": None, "distance": None, "confidence": None,
                "withheld": False,
            },
            "expression": {
                "status": "cannot_assess", "reason": "small", "label": None, "confidence": None, "probabilities": None,
                "smoothed": None,
            },
        },
    ],
}  # fmt: skip

_PUBLIC: dict[str, Any] = {
    key: value for key, value in _RESULT.items()
    if key not in ("quiet", "timings_ms", "media_time_s", "name", "selected", "following", "enrolling", "faces")
} | {
    "from": "bus.ward.4710", "n": 87,
    "faces": [{key: face[key] for key in ("track", "box", "score", "expression")} for face in _RESULT["faces"]],
}  # fmt: skip

# Kind: (topic, example of its map)
EXAMPLES: dict[type[Message], tuple[str, dict[str, Any]]] = {
    Result: ("results.cam0", _RESULT),
    Sample: ("samples.cam0", _RESULT | {"n": 1236}),
    PublicResult: ("public.cam0", _PUBLIC),
    Correction: (
        "corrections.cam0",
        {
            "v": 1, "at": _AT, "from": "conductor.ward.4711", "n": 1236, "camera": "cam0", "run": 1789999958123,
            "track": 19, "from_seq": 1180,
            "was": {
                "status": "unknown", "person": None, "name": None, "number": 12, "distance": None, "confidence": None,
                "withheld": False,
            },
            "now": _KNOWN,
        },
    ),
    CameraState: (
        "camera.cam0",
        {
            "v": 1, "at": _AT, "from": "capture.ward.4720", "n": 3, "camera": "cam0", "state": "offline",
            "since": 1789999998.2, "reason": "the stream ended: trying again in 2 s",
            "source": "rtsp://camera.example:554/live", "paused": False,
        },
    ),
    Alert: (
        "alerts.cam0",
        {
            "v": 1, "at": _AT, "from": "alerts.ward.4730", "n": 8, "serial": 118, "camera": "cam0", "episode": 12,
            "event": "opened", "rule": "negative", "about": "expression", "person": 3, "name": "Ada", "number": None,
            "track": 17, "label": "sad", "since": 1789999955.0,
            "text": "Ada has looked sad for 0:45 – please check", "by": None, "until": None, "judgement": None,
            "why": None,
        },
    ),
    Preview: (
        "preview.cam0",
        {"v": 1, "at": _AT, "from": "preview.ward.4715", "n": 410, "analysed": True, "result": _RESULT},
    ),
    Stats: (
        "stats.detection",
        {
            "v": 1, "at": _AT, "from": "detection.ward.4712", "n": 42, "stage": "detection", "in_s": 15.0,
            "out_s": 15.0, "dropped": 0, "p50_ms": 24.9, "p95_ms": 27.3, "rss_mb": 141.2, "cpu": 0.39,
            "state": "running", "bad_messages": 0, "detail": {},
        },
    ),
    Control: (
        "control.snapshot",
        {
            "v": 1, "at": _AT, "from": "command.5c8c2f90a1b3", "n": 1, "request": _REQUEST, "do": "snapshot",
            "args": {"camera": "cam0"},
        },
    ),
    Reply: (
        f"reply.{_REQUEST}",
        {
            "v": 1, "at": _AT, "from": "snapshot.ward.4716", "n": 1, "request": _REQUEST, "ok": True,
            "result": {"cam0": "/home/ada/.local/share/mien/snapshots/cam0-20260921T141320.123Z-1234"}, "error": None,
        },
    ),
}  # fmt: skip

# What can be asked of each stage: (do, args, the answer's result).
REQUESTS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "capture": (
        ("pause", "`camera`", "`camera`, `paused`: true. Nothing of it is shown or analysed until it goes on"),
        ("resume", "`camera`", "`camera`, `paused`: false"),
        (
            "source", "`camera`; `source`: as after `--source`",
            "`camera`, `source`: what it shows now, once a picture of it has come; an error leaves all as it was",
        ),
    ),
    "conductor": (
        (
            "select", "`camera`; `track`, or `person`, or `number` of an unknown person; none of them: nobody",
            "`camera`, `track`: who is followed",
        ),
        (
            "enrol",
            "`camera`, `track`, `name`; `role` (`patient`, `staff`, `visitor`), `notes`, `consent` (`given`, "
            "`refused`), `consent_until` (unix seconds); `again`: true: more pictures of somebody of that name; "
            "`alike`: true: also who looks like somebody else, or unlike the pictures of that person",
            "`person`, when enough pictures have come, which takes seconds. Not done: `there`, `name` or `look`: "
            "somebody is called so, or looks so (`other`)",
        ),
        ("people", "–", "nothing: people were changed in the store, which is looked at now"),
    ),
    "snapshot": (
        (
            "snapshot", "`camera` (all)",
            "a camera's name: the path of its files without `.jpg`, `.annotated.jpg` and `.json`. An error names the "
            "cameras that gave no picture, and what was saved of the others",
        ),
    ),
    "alerts": (
        ("acknowledge", "`episode`, `by`", "`episode`, `serial` of the step; an error when somebody has already"),
        ("snooze", "`episode`, `by`; `minutes` (15)", "`episode`, `serial`"),
        ("judge", "`episode`, `by`, `judgement`: `useful` or `false alarm`", "`episode`, `serial`"),
        (
            "events", "`since`: a serial (0)",
            "`events`: the steps after it, a text that is a JSON list of `alerts` messages; `last`, `newest`, `more`",
        ),
        ("test-notification", "`target` (all), `timeout_s` (30)", "`sent`: the targets, once it has arrived there"),
    ),
}  # fmt: skip

_ASKED = """
## What can be asked

Sent as `control.<stage>`; any other `do` is answered with an error, and so is any `do` by a stage that is not listed.
`camera` may be left out where there is one camera; where there are several, the answer to that asks which is meant,
unless “all” stands beside it. In brackets: what counts when it is left out. From the command line:
`python launch.py pause`, `resume`, `snapshot`; without `--camera`, for all cameras.

| stage | `do` | `args` | `result` |
|---|---|---|---|
"""

_HEAD = f"""# The protocol, version {VERSION}

*Made from the message classes by `python -m common.schemas`; edit `common/messages.py`, not this file.*

Any program that speaks ZeroMQ can listen: connect a SUB socket to **`tcp://127.0.0.1:5561`** (`endpoints.news_out`) and
subscribe to topics by their beginning: `results.` for all cameras, `results.cam0` for one. `examples/subscribe.py` and
`examples/subscribe.js` do it in 20 lines. To ask for something, connect a PUB socket to `tcp://127.0.0.1:5560`
(`endpoints.news_in`). Pictures come from `tcp://127.0.0.1:5562` (`endpoints.previews`), and are made only while
somebody subscribes. Results without names, `public.<camera>`, are on `endpoints.news_public`, where that is set. From
other machines all of this takes keys, and requests go to `endpoints.control`: see [security.md](security.md).

A message has two parts or more: the **topic** (ASCII), one **msgpack map** of at most {MAX_MAP_BYTES // 1024} KiB, then
raw bytes where the table says so. No pickle, no base64, no msgpack extension types. Numbers are finite.

- `v` is the version, `at` the sender's clock (unix seconds), `from` the sending stage and instance, `n` the sender's
  own sequence under this topic: a gap is what was lost on the way to you.
- `crc`, where it is there, is the map's last field: the CRC-32 of the map's bytes before that number (an unsigned one
  of four bytes). Mien refuses a map whose `crc` does not fit. You need not look at it, nor send one.
- A result holds at most {MAX_FACES} faces. `box` is x, y, width, height in float pixels, inside the picture.
- `cannot_assess` (with its `reason`) and `pending` are answers of their own: neither means `neutral`.
- A subscription has at most a thousand bytes, and a subscriber at most some thousand of them: subscribe to `results.`
  rather than to each of very many cameras.
- What a `control` message asks is done once, however often it is repeated under the same `request`; repeat it until its
  `reply` comes.

## What may change

- Within a version fields and topics are added, and nothing else: no field is removed, renamed, given another type, unit
  or range, and no list of words (`known, unknown, pending`) gets longer. Ignore fields and topics that you do not know.
- Words without a list (`reason`, `rule`, `why`, `state` of `stats`) and the keys of `timings_ms` and `detail` are free:
  show them, and decide nothing by them.
- A field that may be null is always sent; one that was added later is missing in messages of older senders.
- Any other change makes `v` one more. Leave out messages whose `v` is not yours, as Mien itself does: they are not what
  you know.
- `tests/common/protocol-{VERSION}.json` records the fields of this version, and a test compares.

The same messages, as JSON: [Server-Sent Events, WebSocket, MQTT](integrations.md).

## Topics

| topic | what | parts after the map |
|---|---|---|
"""

_BLOBS: dict[type[Message], str] = {Preview: "one JPEG"}


def document() -> str:
    """Return the text of ``docs/protocol.md``."""
    rows, sections = [], []
    for kind in PUBLIC:
        topic, example = EXAMPLES[kind]
        about = topic.split(".", 1)[1]
        pattern = f"{kind.kind}.<{_ABOUT.get(kind, 'camera')}>"
        said = " ".join((kind.__doc__ or "").replace("``", "`").split()).split(": ", 1)[-1].split(" Blob: ")[0]
        rows.append(f"| `{pattern}` | {said} | {_BLOBS.get(kind, '–')} |\n")
        if kind is Sample:  # nothing that is not said above
            sections.append(
                f"\n## `{pattern}`\n\n{said[:1].upper()}{said[1:]} Its fields are those of `results.<camera>`.\n"
            )
            continue
        schema = kind.model_json_schema(by_alias=True)
        schema.pop("description", None)
        sections.append(
            f"\n## `{pattern}`\n\n{said[:1].upper()}{said[1:]}\n\n"
            f"Example, sent as `{kind.kind}.{about}`:\n\n{_fenced(example)}\n"
            f"{_table(kind)}\n"
            f"<details><summary>JSON Schema</summary>\n\n{_fenced(schema)}\n</details>\n"
        )
    asked = [
        f"| `{stage}` | `{do}` | {args} | {answer} |\n"
        for stage, requests in REQUESTS.items()
        for do, args, answer in requests
    ]
    return _HEAD + "".join(rows) + _ASKED + "".join(asked) + "".join(sections)


_ABOUT: dict[type[Message], str] = {Stats: "stage", Control: "stage", Reply: "request"}


def record() -> dict[str, dict[str, str]]:
    """Return what must not change within a version: each field of each kind, with its type and range."""
    return {kind.kind: {one.path: f"{one.type}: {one.range}" for one in fields(kind)} for kind in PUBLIC}


def _table(kind: type[Message]) -> str:
    rows = [f"| `{one.path}` | {one.type} | {_cell(one.range)} | {one.what} |\n" for one in fields(kind)]
    return "| field | type | range | what |\n|---|---|---|---|\n" + "".join(rows)


def _cell(text: str) -> str:
    return f"`{text}`" if text.startswith("^") else text


def _fenced(value: Any) -> str:
    return f"```json\n{_laid_out(value)}\n```\n"


def _laid_out(value: Any, indent: str = "") -> str:
    """Return JSON that keeps on one line what fits there."""
    text = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(text) <= _LINE or not isinstance(value, dict | list):
        return text
    inner = indent + "  "
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {_laid_out(part, inner)}" for key, part in value.items()]
    else:
        parts = [_laid_out(part, inner) for part in value]
    first, last = "{}" if isinstance(value, dict) else "[]"
    return f"{first}\n{inner}" + f",\n{inner}".join(parts) + f"\n{indent}{last}"


def main(argv: list[str]) -> int:
    """Write the document, or with ``--check`` tell whether it is up to date."""
    text = document()
    if "--check" in argv:
        fresh = PROTOCOL.is_file() and PROTOCOL.read_text(encoding="utf-8") == text
        print(f"{PROTOCOL} is {'up to date' if fresh else 'out of date: python -m common.schemas'}")
        return 0 if fresh else 1
    PROTOCOL.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
