"""Standard output, whose reader may go away."""

from __future__ import annotations

import os
import sys
from typing import TextIO


def written(line: str, out: TextIO) -> bool:
    """Write a line; return False if nobody takes it (a closed pipe, a full disk): later ones go nowhere, then."""
    try:
        print(line, file=out, flush=True)
    except OSError:
        if out is sys.stdout:  # what is left in its buffer would be tried, and complained of, at the end
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), out.fileno())
        return False
    return True
