"""The words of ``python launch.py people …``; what they do is imported when it is asked for."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

ROLES = ("patient", "staff", "visitor")
CONSENTS = ("given", "refused")


def add_parser(commands: Any, everywhere: argparse.ArgumentParser) -> None:
    """Put ``people`` and what it can do into the command line."""
    top = commands.add_parser("people", parents=[everywhere], help="enrol, list, rename, merge, export, forget people")
    top.set_defaults(function=_people)
    verbs = top.add_subparsers(title="what to do", metavar="WHAT", dest="verb", required=True)

    def verb(name: str, text: str) -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = verbs.add_parser(name, parents=[everywhere], help=text)
        parser.set_defaults(function=_people)
        return parser

    add = verb("add", "enrol from pictures: a folder with one sub-folder or file a person, or one person's pictures")
    add.add_argument("name", nargs="?", help="who it is, when the pictures are all of one person")
    where = add.add_mutually_exclusive_group()
    where.add_argument("--from", dest="source", type=Path, metavar="PATH", help="folder, picture, or snapshot")
    where.add_argument("--unknown", type=int, metavar="NUMBER", help="name an unknown person instead")
    where.add_argument("--track", type=int, metavar="TRACK", help="enrol a face that is in view now instead")
    add.add_argument("--camera", metavar="NAME", help="the camera that sees it")
    add.add_argument("--face", type=int, metavar="N", help="which face of a picture with several, from the left")
    add.add_argument(
        "--again", action="store_true",
        help="add pictures to people who are enrolled already; --role, --notes, --consent, --until change them, too",
    )  # fmt: skip
    add.add_argument(
        "--alike", action="store_true",
        help="also who looks like somebody else who is enrolled, and pictures that look like somebody else's",
    )  # fmt: skip
    _fields(add)
    verb("list", "who is enrolled")
    show = verb("show", "one person's references and sightings")
    show.add_argument("who", help="name, or #number")
    verb("unknown", "unknown people that have been seen")
    change = verb("change", "rename, or change role, notes or consent")
    change.add_argument("who", help="name, or #number")
    change.add_argument("--name", help="another name")
    _fields(change)
    merge = verb("merge", "make two people one")
    merge.add_argument("who", help="the one that goes")
    merge.add_argument("into", help="the one that stays")
    split = verb("split", "make a new person of some references of another")
    split.add_argument("who")
    split.add_argument("name", help="the new person's name")
    split.add_argument("references", type=int, nargs="+", help="numbers that 'people show' gives")
    export = verb("export", "write people to a file, encrypted with this store's key")
    export.add_argument("file", type=Path, nargs="?", help="default: in the data directory's folder 'exports'")
    export.add_argument("--who", action="append", default=[], help="only this person; may be repeated")
    export.add_argument("--force", action="store_true", help="replace a file that is there already")
    bring = verb("import", "read people from a file that 'export' wrote")
    bring.add_argument("file", type=Path)
    bring.add_argument("--key", metavar="KEY", help="the key of the store that it comes from, when that is another one")
    forget = verb("forget", "delete all that is kept of somebody")
    forget.add_argument("who", nargs="?", help="name, or #number")
    forget.add_argument("--unknown", type=int, metavar="NUMBER", help="an unknown person instead")
    calibrate = verb("calibrate", "find thresholds that suit your pictures, from people who are known")
    calibrate.add_argument("--from", dest="source", type=Path, metavar="FOLDER", help="default: the enrolled people")
    calibrate.add_argument("--reset", action="store_true", help="back to the defaults")
    verb("audit", "what was done with people's data, and by whom")


def _fields(parser: argparse.ArgumentParser) -> None:
    # None: not said; people who are there already stay as they are, new ones get what common/people.py says.
    parser.add_argument("--role", choices=ROLES)
    parser.add_argument("--notes")
    parser.add_argument("--consent", choices=CONSENTS)
    parser.add_argument("--until", metavar="DATE", help="consent ends with this day: 2027-03-31; 'never'")


def _people(arguments: argparse.Namespace) -> int:
    from common import people_command

    return people_command.main(arguments)
