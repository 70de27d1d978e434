"""Names of people: what can be one, and when two spellings are the same."""

from __future__ import annotations

import unicodedata

MAX_NAME = 100  # characters


class PeopleError(ValueError):
    """What was asked cannot be done; the text says why and what would work. Nothing was changed."""


class NotEnrolled(PeopleError):
    """Nobody of this name or number is enrolled, or is so any more."""


class NameTaken(PeopleError):
    """Somebody of this name is enrolled already."""


class LooksAlike(PeopleError):
    """Who is to be enrolled looks like somebody who is, under another name.

    Attributes:
        whom: their name; None: it is not to be said.
    """

    def __init__(self, why: str, whom: str | None) -> None:
        super().__init__(why)
        self.whom = whom


def checked_name(name: str) -> str:
    """Return a name as it is kept: one line, normal form, no spaces around it. Raises PeopleError: it cannot be one."""
    name = unicodedata.normalize("NFC", name).strip()
    if not name.strip("\u200d"):  # the joiner of emoji shows nothing by itself
        raise PeopleError("a name is needed: it is empty")
    if len(name) > MAX_NAME:
        raise PeopleError(f"a name has at most {MAX_NAME} characters, this one has {len(name)}")
    if not all(c.isprintable() or c == "\u200d" for c in name):
        raise PeopleError("a name cannot hold line breaks, tabs or other control characters")
    if is_number(unicodedata.normalize("NFKC", name)):
        raise PeopleError(f"{name!r} stands for the person of that number, and cannot be a name")
    return " ".join(name.split())


def is_number(who: str) -> bool:
    """Return whether this says who is meant by their number: ``#3``."""
    return who.startswith("#") and who[1:].isdecimal()


def name_key(name: str) -> str:
    """Return what two spellings of one name have in common: case and compatibility forms folded."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())
