#!/usr/bin/env python3
"""Known faults of the packages that are installed: by a short list that is here, and by pip-audit where it can ask.

Exit code 1 when something installed has a known fault. Where the service behind pip-audit cannot be reached that is
found out within seconds, said, and is no failure: the list is all that was asked then.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version

from packaging.version import Version

ASKS_FOR_S = 300.0  # for one answer a package, one after the other
ANSWERS_WITHIN_S = 8.0  # … and for that of one package, to see whether anybody answers

# package: (first version without the fault, what it was). Packages that Mien takes in, directly or through others.
FIXED_IN = {
    "cryptography": ("44.0.1", "CVE-2024-12797"),
    "h11": ("0.16.0", "CVE-2025-43859: request smuggling"),
    "jinja2": ("3.1.6", "CVE-2025-27516: a way out of the sandbox"),
    "pillow": ("11.3.0", "CVE-2025-48379: a buffer written beyond its end"),
    "python-multipart": ("0.0.18", "CVE-2024-53981: a form that takes for ever"),
    "requests": ("2.32.4", "CVE-2024-47081: credentials to another host"),
    "setuptools": ("78.1.1", "CVE-2025-47273: files outside the target"),
    "starlette": ("0.49.1", "CVE-2025-62727: a Range header that takes for ever"),
    "urllib3": ("2.5.0", "CVE-2025-50181: redirects that were switched off"),
}


def listed() -> list[str]:
    """Return what is installed and on the list."""
    faults = []
    for package, (fixed, what) in FIXED_IN.items():
        try:
            have = version(package)
        except PackageNotFoundError:
            continue
        if Version(have) < Version(fixed):
            faults.append(f"{package} {have}: {what}; {fixed} is without")
    return faults


def asked() -> tuple[list[str], str]:
    """Return what pip-audit finds, and why it could not ask, if so."""
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as one:
        print(f"pip=={version('pip')}", file=one, flush=True)
        _, unasked = _audit(ANSWERS_WITHIN_S, "--requirement", one.name, "--disable-pip", "--no-deps")
    return ([], unasked) if unasked else _audit(ASKS_FOR_S, "--local")


def _audit(most_s: float, *which: str) -> tuple[list[str], str]:
    command = [sys.executable, "-m", "pip_audit", *which, "--progress-spinner", "off", "--timeout", "4"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=most_s, stdin=subprocess.DEVNULL, errors="replace"
        )
    except subprocess.TimeoutExpired:
        return [], f"no answer within {most_s:.0f} s"
    if done.returncode == 0:
        return [], ""
    if "vulnerabilit" in done.stderr and "Name" in done.stdout:
        return done.stdout.splitlines(), ""
    return [], (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]


def main() -> int:
    """Print what is found; return how it ended."""
    faults = listed()
    for line in faults:
        print(line)
    print(f"faults on the list of {len(FIXED_IN)}: {len(faults)}")
    more, unasked = asked()
    for line in more:
        print(line)
    print(
        f"pip-audit was NOT asked: {unasked}" if unasked else f"pip-audit: {'faults, above' if more else 'no faults'}"
    )
    return 1 if faults or more else 0


if __name__ == "__main__":
    sys.exit(main())
