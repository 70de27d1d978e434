"""A person's history as a file, made by a process of its own: Parquet's library would stay in the page's memory.

``python -m common.page.export CONFIG FILE SUBJECT BEGIN END`` prints how many rows were written, as JSON. A subject
is a person's number, or minus an unknown person's.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from common import exports
from common.config import load
from common.history_store import Subject
from common.ledger import Ledger, LedgerError
from common.tables import TableError


def main(argv: list[str]) -> int:
    """Write the file; return the exit code."""
    config_file, file, number, begin, end = argv
    config = load(Path(config_file), environment={})
    subject = Subject(person=int(number)) if int(number) > 0 else Subject(unknown=-int(number))
    try:
        with Ledger(config.storage.place) as ledger:
            count = exports.write(ledger, Path(file), [subject], float(begin), float(end), step_s=1)
    except (exports.ExportError, LedgerError, TableError) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps({"rows": count}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
