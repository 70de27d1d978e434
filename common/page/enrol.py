"""Photographs that came over the page, made references by a process of its own.

``python -m common.page.enrol CONFIG FOLDER WHO ROLE USER HOW`` prints one line of JSON: how many pictures were taken,
which were left out and why, and why nobody was enrolled. HOW is ``new``: WHO is a new person's name; ``alike``: also if
they look like somebody enrolled; ``more``: the pictures are of somebody enrolled, ``#3``; ``more-alike``: also those
that show somebody else, or look like another one. Every file of the folder is one of the pictures, whatever its name
ends in. The networks need 200 MB; the page stays small without them.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from common import enrolment, people
from common.config import load
from common.enrolment import Report, SeveralFaces, SomebodyElse
from common.people import LooksAlike, NameTaken, NotEnrolled, PeopleError
from common.store import Store, StoreError
from models.runtime import ModelError


def main(argv: list[str]) -> int:
    """Enrol one person, or add pictures to one; return the exit code."""
    config_file, folder, who, role, user, how = argv
    config = load(Path(config_file), environment={})
    paths = sorted(Path(folder).iterdir())
    try:
        with Store(config.storage.place, who=f"{user} on the page") as store:
            reader = enrolment.PhotoReader(config)
            if how in ("more", "more-alike"):
                report = enrolment.extend(store, reader, who, paths, alike=how == "more-alike")
            else:
                planned = {people.checked_name(who): paths}
                report = enrolment.enrol(store, reader, planned, alike=how == "alike", role=role)
        said = _said(report, len(paths))
    except NotEnrolled:
        said = {"pictures": 0, "left_out": [], "refused": "not_enrolled", "other": None}
    except (PeopleError, StoreError, ModelError) as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(said))
    return 0


def _said(report: Report, count: int) -> dict[str, Any]:
    """Return what the page is told: with the keys of its words where it says them itself, else in words."""
    refused, other = None, None
    left_out = []
    for path, why in report.rejected:
        if isinstance(why, NameTaken):
            refused = "name_taken"
        elif isinstance(why, LooksAlike):
            refused, other = "alike", why.whom
        else:
            if isinstance(why, SomebodyElse) and not report.extended:  # of one among others it is enough to be told
                refused = "somebody_else"
            name = path.name.partition(" ")[2] or path.name
            left_out.append((name, "several_faces" if isinstance(why, SeveralFaces) else None, str(why)))
    return {"pictures": count - len(report.rejected), "left_out": left_out, "refused": refused, "other": other}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
