"""The seven expressions, in the one order that every array and message uses."""

from typing import Literal

ExpressionName = Literal["angry", "disgusted", "fearful", "happy", "sad", "surprised", "neutral"]

EXPRESSIONS: tuple[ExpressionName, ...] = ("angry", "disgusted", "fearful", "happy", "sad", "surprised", "neutral")

# Okabe–Ito, safe for colour-blind eyes; (R, G, B). Always shown together with the word, never colour alone.
COLOURS = {
    "angry": (0xD5, 0x5E, 0x00),
    "disgusted": (0x00, 0x9E, 0x73),
    "fearful": (0xCC, 0x79, 0xA7),
    "happy": (0xF0, 0xE4, 0x42),
    "sad": (0x00, 0x72, 0xB2),
    "surprised": (0xE6, 0x9F, 0x00),
    "neutral": (0x99, 0x99, 0x99),
}
