"""Photographs that came over the page, made references by a process of its own.

``python -m common.page.enrol CONFIG FOLDER NAME ROLE USER new|again`` prints one line of JSON: how many pictures were
taken, and which were left out and why. The networks need 200 MB; the page stays small without them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from common import enrolment, people
from common.config import load
from common.people import PeopleError
from common.store import Store, StoreError
from models.runtime import ModelError


def main(argv: list[str]) -> int:
    """Enrol one person; return the exit code."""
    config_file, folder, name, role, user, how = argv
    config = load(Path(config_file), environment={})
    again = how == "again"
    try:
        with Store(config.storage.place, who=f"{user} on the page") as store:
            reader = enrolment.PhotoReader(config)
            planned = {people.checked_name(name): enrolment.pictures(Path(folder))}
            report = enrolment.enrol(store, reader, planned, again=again, role=role)
    except (PeopleError, StoreError, ModelError) as error:
        print(error, file=sys.stderr)
        return 1
    left_out = [(path.name.partition(" ")[2] or path.name, why) for path, why in report.rejected]
    total = len(planned[people.checked_name(name)])
    print(json.dumps({"pictures": total - len(left_out), "left_out": left_out}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
