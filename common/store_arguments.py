"""The words of ``launch.py store …``; what they do is imported when it is asked for."""

from __future__ import annotations

import argparse
from typing import Any


def add_parser(commands: Any, everywhere: argparse.ArgumentParser) -> None:
    """Put ``store`` and what it can do into the command line."""
    top = commands.add_parser("store", parents=[everywhere], help="move what is kept to a database server")
    verbs = top.add_subparsers(title="what to do", metavar="WHAT", dest="verb", required=True)
    move = verbs.add_parser("move", parents=[everywhere], help="copy everything into an empty PostgreSQL database")
    move.add_argument(
        "--to", required=True, metavar="URL", help="postgresql://USER@HOST/DATABASE; a password belongs into ~/.pgpass"
    )
    move.set_defaults(function=_store)


def _store(arguments: argparse.Namespace) -> int:
    from common import store_command

    return store_command.main(arguments)
