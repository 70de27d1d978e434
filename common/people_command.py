"""What ``python launch.py people …`` does: enrol, list, change, merge, split, export, import and forget people."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from common import forgetting, options, people, transfer
from common.config import load
from common.control import NoAnswer, ask
from common.encryption import KeyProblem
from common.people import PeopleError, Person
from common.person import consent_end
from common.rundir import attached
from common.settings import Config
from common.store import Store, StoreError


def main(arguments: argparse.Namespace) -> int:
    """Do what the command line says; return the exit code (1: something was left out, 2: it could not be done)."""
    config = load(arguments.config, overrides=options.overrides_of(arguments))
    running = attached(config)
    if running.storage.data_dir == config.storage.data_dir:
        config = running
    try:
        if arguments.verb == "add" and arguments.track is not None:
            return _add_live(config, arguments)
        makes = arguments.verb in _MAKE
        with Store(config.storage.place, who=f"people {arguments.verb}", make=makes) as store:
            return _VERBS[arguments.verb](store, config, arguments)
    except (PeopleError, StoreError, KeyProblem) as error:
        print(error, file=sys.stderr)
        return 2


def _given(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what is said of a person, and nothing that is not."""
    fields = {"role": arguments.role, "notes": arguments.notes, "consent": arguments.consent}
    fields = {key: value for key, value in fields.items() if value is not None}
    if arguments.until is not None and arguments.until != "never":
        fields["consent_until"] = consent_end(arguments.until)
    return fields


def _changes(arguments: argparse.Namespace) -> dict[str, Any]:
    """The same for somebody who is enrolled already, whose consent may have had an end."""
    return _given(arguments) | ({"forever": True} if arguments.until == "never" else {})


def _add(store: Store, config: Config, arguments: argparse.Namespace) -> int:
    if arguments.unknown is not None:
        if arguments.name is None:
            raise PeopleError("a name is needed: people add NAME --unknown NUMBER")
        changes = _changes(arguments)
        person = people.from_unknown(
            store, arguments.unknown, arguments.name, again=arguments.again, alike=arguments.alike, **changes
        )
        print(f"unknown person {arguments.unknown} is now {_described(person)}")
        return 0
    if arguments.source is None:
        raise PeopleError("where are the pictures? people add --from FOLDER, or people add NAME --from PICTURE")
    from common import enrolment

    if arguments.name is None:
        planned = enrolment.plan(arguments.source)
    else:
        planned = {people.checked_name(arguments.name): enrolment.pictures(arguments.source)}
    reader = _photo_reader(config)
    total = sum(len(paths) for paths in planned.values())
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("enrolling", total=total)

        def told(path: Path) -> None:
            progress.update(task, advance=1, description=path.name[:40])

        report = enrolment.enrol(
            store, reader, planned, face=arguments.face, again=arguments.again, alike=arguments.alike, told=told,
            changes=_changes(arguments), **_given(arguments),
        )  # fmt: skip
    for person in report.enrolled:
        print(f"enrolled {_described(person)}")
    for person in report.extended:
        print(f"more pictures of {_described(person)}")
    hints = {
        people.NameTaken: " (--again adds pictures)",
        people.LooksAlike: f" ({'--alike adds them' if arguments.again else '--again enrols'} all the same)",
        enrolment.SomebodyElse: " (--alike adds it all the same)",
        enrolment.SeveralFaces: ": cut the picture, or say which one with --face N (from the left)",
    }
    for path, why in report.rejected:
        print(f"left out {path}: {why}{hints.get(type(why), '')}", file=sys.stderr)
    print(f"{len(report.enrolled)} enrolled, {len(report.extended)} extended, {len(report.rejected)} pictures left out")
    return 0 if report.enrolled or report.extended else 1


def _photo_reader(config: Config) -> Any:
    from common import enrolment
    from models.runtime import ModelError

    try:
        return enrolment.PhotoReader(config)
    except ModelError as error:
        raise PeopleError(str(error)) from error


def _add_live(config: Config, arguments: argparse.Namespace) -> int:
    if arguments.name is None:
        raise PeopleError("a name is needed: people add NAME --track TRACK")
    print("look at the camera, then turn your head slowly to both sides …", file=sys.stderr)
    try:
        reply = ask(
            config, "conductor", "enrol", timeout_s=25.0,
            camera=arguments.camera, track=arguments.track, name=arguments.name, again=arguments.again,
            alike=arguments.alike, **_given(arguments),
        )  # fmt: skip
    except NoAnswer as error:
        raise PeopleError(str(error)) from error
    if not reply.ok:
        look = "--alike adds them" if arguments.again else "--again enrols"
        hints = {"name": " (--again adds pictures)", "look": f" ({look} all the same)"}
        raise PeopleError((reply.error or "it was not done") + hints.get(str(reply.result.get("there")), ""))
    print(f"enrolled {reply.result['person']}")
    changes = _changes(arguments)
    if arguments.again and changes:  # where the pictures went to somebody who was there, nothing else has changed
        with Store(config.storage.place, who="people add") as store:
            print(_described(people.change(store, arguments.name, **changes)))
    return 0


def _list(store: Store, config: Config, arguments: argparse.Namespace) -> int:
    table = Table("number", "name", "role", "consent", "references", "notes")
    for person in people.everybody(store):
        notes = person.notes.split("\n")[0][:40]
        table.add_row(f"#{person.id}", person.name, person.role, _consent(person), str(person.references), notes)
    Console(markup=False, emoji=False).print(
        table if table.row_count else "nobody is enrolled (python launch.py people add --from FOLDER)"
    )
    return 0


def _show(store: Store, config: Config, arguments: argparse.Namespace) -> int:
    person = people.find(store, arguments.who)
    print(_described(person))
    if person.notes:
        print(person.notes)
    table = Table("reference", "quality", "from")
    for number, reference in people.references_of(store, f"#{person.id}"):
        table.add_row(str(number), f"{reference.quality:.2f}", reference.source)
    Console(markup=False, emoji=False).print(table)
    seen = people.sightings_of(store, person.id)
    for sighting in seen[:20]:
        print(f"{_at(sighting.begin_at)} – {_at(sighting.end_at)}  {sighting.camera}, track {sighting.track}")
    return 0


def _unknown(store: Store, config: Config, arguments: argparse.Namespace) -> int:
    table = Table("number", "first seen", "last seen", "looks", "crops")
    for row in people.unknown_people(store):
        table.add_row(str(row.number), _at(row.first_at), _at(row.last_at), str(row.looks), str(row.crops))
    Console(markup=False, emoji=False).print(table if table.row_count else "no unknown people are kept")
    return 0


def _change(store: Store, config: Config, arguments: argparse.Namespace) -> int:
    person = people.change(store, arguments.who, name=arguments.name, **_changes(arguments))
    print(_described(person))
    return 0


def _merge(store: Store, config: Config, arguments: argparse.Namespace) -> int:
    print(_described(people.merge(store, arguments.who, arguments.into)))
    return 0


def _split(store: Store, config: Config, arguments: argparse.Namespace) -> int:
    print(_described(people.split(store, arguments.who, arguments.name, arguments.references)))
    return 0


def _export(store: Store, config: Config, arguments: argparse.Namespace) -> int:
    path = arguments.file or transfer.default_path(config.storage.data_dir)
    count = transfer.write(store, path, arguments.who, force=arguments.force)
    print(f"{count} people written to {path}; whoever reads it needs this store's key")
    return 0


def _import(store: Store, config: Config, arguments: argparse.Namespace) -> int:
    report = transfer.read(store, arguments.file, key=arguments.key)
    for name in report.left_out:
        print(f"left out {name}: somebody of that name is enrolled already", file=sys.stderr)
    print(f"{report.added} people added, {len(report.left_out)} left out")
    return 1 if report.left_out else 0


def _forget(store: Store, config: Config, arguments: argparse.Namespace) -> int:
    if (arguments.who is None) == (arguments.unknown is None):
        raise PeopleError("who is to be forgotten? people forget NAME, or people forget --unknown NUMBER")
    if arguments.unknown is not None:
        forgetting.forget_unknown(store, config, arguments.unknown)
        print(f"unknown person {arguments.unknown} is forgotten")
        return 0
    done = forgetting.forget(store, config, arguments.who)
    print(f"forgotten: {done}")
    return 0


def _calibrate(store: Store, config: Config, arguments: argparse.Namespace) -> int:
    from common import calibration

    if arguments.reset:
        calibration.keep(store, None)
        print("the defaults are in force again")
        return 0
    if arguments.source is None:
        embeddings = [member.embeddings for member in people.gallery(store).members]
    else:
        embeddings = _embeddings_in(config, arguments.source)
    try:
        found = calibration.calibrate(embeddings)
    except calibration.CalibrationError as error:
        raise PeopleError(str(error)) from error
    calibration.keep(store, found)
    print(
        f"calibrated on {found.people} people, {found.pictures} pictures: "
        f"nearer {found.nearer:.3f}, lead {found.lead:.2f}\n"
        f"on these: {found.known:.1%} of known pictures named right, {found.mistaken:.2%} wrong, "
        f"{found.strangers:.2%} of strangers named"
    )
    return 0


def _embeddings_in(config: Config, folder: Path) -> list[Any]:
    import numpy as np

    from common import enrolment
    from common.photos import PhotoError

    reader, found = _photo_reader(config), []
    for paths in enrolment.plan(folder).values():
        references = []
        for path in paths:
            try:
                references.append(reader.reference(path).embedding)
            except (PhotoError, enrolment.Rejected) as error:
                print(f"left out {path}: {error}", file=sys.stderr)
        if references:
            found.append(np.stack(references))
    return found


def _audit(store: Store, config: Config, arguments: argparse.Namespace) -> int:
    for line in people.audit_log(store):
        print(f"{_at(line.at)}  {line.who}: {line.did}: {line.about}")
    return 0


def _described(person: Person) -> str:
    return f"#{person.id} {person.name} ({person.role}, consent {_consent(person)}, {person.references} references)"


def _consent(person: Person) -> str:
    if person.consent == "given" and person.withheld(time.time()):
        return f"expired {_day(person)}"
    return person.consent if person.consent_until is None else f"{person.consent} until {_day(person)}"


def _day(person: Person) -> str:
    return "" if person.consent_until is None else _at(person.consent_until - 1, "%Y-%m-%d")


def _at(seconds: float, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).astimezone().strftime(form)
    except (ValueError, OverflowError, OSError):  # one time that makes no sense must not hide everybody
        return f"a time beyond the calendar ({seconds:g})"


_VERBS = {
    "add": _add, "list": _list, "show": _show, "unknown": _unknown, "change": _change, "merge": _merge,
    "split": _split, "export": _export, "import": _import, "forget": _forget, "calibrate": _calibrate, "audit": _audit,
}  # fmt: skip

_MAKE = ("add", "import", "calibrate")  # a store where there is none; for the others there would be nobody in it
