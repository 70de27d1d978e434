"""The words of ``python launch.py keys …``; what they do is imported when it is asked for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_parser(commands: Any, everywhere: argparse.ArgumentParser) -> None:
    """Put ``keys`` and what it can do into the command line."""
    top = commands.add_parser("keys", parents=[everywhere], help="who may connect from other machines")
    top.set_defaults(function=_keys)
    verbs = top.add_subparsers(title="what to do", metavar="WHAT", dest="verb", required=True)

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = verbs.add_parser(name, parents=[everywhere], help=text)
        parser.set_defaults(function=_keys)
        return parser

    make = verb("make", "make a key for another machine or program, where the bus runs; 'server' for this one's own")
    make.add_argument("name", help="of the machine or program it is for")
    make.add_argument(
        "--role",
        metavar="ROLE,…",
        default="",
        help="camera, worker, publisher, subscriber, controller, viewer, public; several with commas",
    )
    verb("list", "which keys there are, and what they open")
    verb("rotate", "replace a key by a new one; the old one opens nothing any more").add_argument("name")
    verb("revoke", "let a key in no more, and end what it has open").add_argument("name")
    verb("import", "make a key that was made elsewhere this machine's own").add_argument("file", type=Path)


def _keys(arguments: argparse.Namespace) -> int:
    from common import keys_command

    return keys_command.main(arguments)
