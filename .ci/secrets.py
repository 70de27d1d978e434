#!/usr/bin/env python3
"""Look through all committed files for secrets: private keys, tokens, passwords, keys like Mien's own.

Prints file and line of each, never the secret; exit code 1 when there is one. A line that only looks like one says so
itself, with the words "no secret". Tests may hold made-up passwords, not keys.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXCUSED = "no secret"
MOST_BYTES = 4_000_000  # models and the like hold no lines

RULES = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "a cloud access key": re.compile(r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[0-9A-Za-z_-]{35}\b"),
    "an access token": re.compile(
        r"\b(?:gh[pousr]_[A-Za-z0-9]{30,}|github_pat_\w{30,}|glpat-[\w-]{20,}|xox[abprs]-[\w-]{10,}|pypi-AgE[\w-]{20,}"
        r"|sk-[A-Za-z0-9_-]{20,}|hf_[A-Za-z0-9]{30,})"
    ),
    "a JSON web token": re.compile(r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}"),
    "a key in base64": re.compile(
        r"(?<![A-Za-z0-9+/=-])(?=[A-Za-z0-9+/]*\d)(?=[A-Za-z0-9+/]*[a-z])[A-Za-z0-9+/]{43}=(?!=)"
    ),
    "a CURVE key": re.compile(r"(?i)\b(?:secret|private)[\w -]*key[\"']?\s*[:=]\s*[\"'][!-~]{40}[\"']"),
}
PASSWORDS = {
    "a password in an address": re.compile(
        r"[a-z]{3,8}://[^\s:/@\"'{}<>]{1,64}:(?!(?i:pass)|[\s{<$%*.…])[^\s:/@\"'{}<>]{4,64}@"
    ),
    "a password": re.compile(
        r"(?i)\b(?:password|passwd|secret|api_?key|token)[\"']?\s*[:=]\s*[\"'](?![{<$%*.…])[^\s\"']{8,}[\"']"
    ),
}


def found(path: str, text: str) -> list[tuple[int, str]]:
    """Return line and kind of each secret in a file."""
    rules = RULES if path.startswith("tests/") else RULES | PASSWORDS
    return [
        (number, kind)
        for number, line in enumerate(text.splitlines(), 1)
        if EXCUSED not in line
        for kind, rule in rules.items()
        if rule.search(line)
    ]


def main() -> int:
    """Look through the files that git knows; return how it ended."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    names = [name for name in listed.decode().split("\0") if name]
    secrets = 0
    for name in names:
        path = ROOT / name
        if path.name.endswith((".key", ".key_secret", ".pem", ".p12", ".pfx")):
            print(f"{name}: a file of this name holds a key")
            secrets += 1
        if not path.is_file() or path.stat().st_size > MOST_BYTES:
            continue
        data = path.read_bytes()
        if b"\0" in data[:8000]:
            continue
        for number, kind in found(name, data.decode("utf-8", errors="replace")):
            print(f"{name}:{number}: looks like {kind}")
            secrets += 1
    print(f"secrets: {secrets} in {len(names)} files")
    return 1 if secrets else 0


if __name__ == "__main__":
    sys.exit(main())
