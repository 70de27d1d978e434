"""A name that is typed in the window, key by key, in any script that the keyboard gives."""

from __future__ import annotations

from typing import Literal

from common.names import MAX_NAME, PeopleError, checked_name

ENTER, BACKSPACE, ESC = 13, 8, 27
_SHIFTS = (0xFFE1, 0xFFE2)
# X11 has codes of its own for alphabets older than Unicode: their high byte says which, the low byte is a letter of …
_ALPHABETS = {
    0x01: "iso8859-2", 0x02: "iso8859-3", 0x03: "iso8859-4", 0x05: "iso8859-6", 0x06: "koi8-u", 0x07: "iso8859-7",
    0x0C: "iso8859-8", 0x0D: "tis-620", 0x13: "iso8859-15",
}  # fmt: skip
_UNICODE = 0x01000000  # … and from here on Unicode


def character(key: int) -> str:
    """Return the character that a key of OpenCV's window stands for, nothing for keys that stand for none."""
    if key < 0:  # OpenCV takes letters of Latin-1 for signed bytes
        key += 256
    if 0x20 <= key < 0x7F or 0xA0 <= key < 0x100:
        return chr(key)
    if _UNICODE <= key < _UNICODE + 0x110000:
        found = chr(key - _UNICODE)
    elif key >> 8 in _ALPHABETS:
        found = bytes([key & 0xFF]).decode(_ALPHABETS[key >> 8], "ignore")
    else:
        return ""
    return found if found.isprintable() else ""


class NameEntry:
    """A name while it is typed.

    Args:
        track: the face that is to have it.

    Attributes:
        text: what has been typed so far.
        problem: why the text cannot be a name yet, once Enter was pressed.
    """

    def __init__(self, track: int) -> None:
        self.track = track
        self.text = ""
        self.problem = ""
        self._shift = False

    def press(self, key: int) -> Literal["done", "cancelled"] | None:
        """Take a key; say when the name is there (``text``), or nobody wants to give one any more."""
        self.problem = ""
        if key == ESC:
            return "cancelled"
        if key in (ENTER, 10):
            try:
                self.text = checked_name(self.text)
            except PeopleError as error:
                self.problem = str(error)
                return None
            return "done"
        if key == BACKSPACE:
            self.text = self.text[:-1]
        elif key in _SHIFTS:
            self._shift = True  # OpenCV's window tells letters without their case, and Shift as a key of its own
        elif (letter := character(key)) and len(self.text) < MAX_NAME:
            plain = letter.lower() if key < 0 else letter  # those come as capitals, always
            self.text += letter.upper() if self._shift else plain
            self._shift = False
        return None
