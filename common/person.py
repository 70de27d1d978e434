"""An enrolled person and their reference faces, as the store has them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Row, func, select

from common.names import NotEnrolled, PeopleError, checked_name, is_number, name_key
from common.schema import PERSON, REFERENCE

Role = Literal["patient", "staff", "visitor"]
Consent = Literal["given", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """An enrolled person; times are unix seconds."""

    id: int
    name: str
    role: Role
    notes: str
    consent: Consent
    consent_until: float | None
    created_at: float
    references: int = 0

    def withheld(self, at: float) -> bool:
        """Whether nothing may be said or kept of this person: consent is refused, or has run out."""
        return self.consent != "given" or (self.consent_until is not None and at >= self.consent_until)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Reference:
    """One picture of somebody's face.

    Attributes:
        embedding: (128,) float32.
        crop: JPEG of the aligned chip, None where it was not kept.
        source: where it came from, for people.
        quality: 0 … 1.
    """

    embedding: NDArray[np.float32]
    crop: bytes | None
    source: str
    quality: float


def consent_end(day: str) -> float:
    """Return when consent ends that is given until a day, like 2027-03-31: the end of that day here, unix seconds.

    Raises:
        PeopleError: that is no day, or beyond the calendar.
    """
    try:
        # Of the calendar: a day may have 23 or 25 hours.
        return (datetime.strptime(day, "%Y-%m-%d") + timedelta(days=1)).timestamp()
    except (ValueError, OverflowError) as error:
        raise PeopleError(f"write the day like 2027-03-31, in the years 1970 to 9998, not {day[:20]!r}") from error


def select_people() -> Any:
    """Return the query for all people, with how many references each has."""
    count = select(func.count()).where(REFERENCE.c.person_id == PERSON.c.id).scalar_subquery().label("references")
    return select(PERSON, count)


def person_of(row: Row[Any]) -> Person:
    """Return the person of a row of ``select_people``."""
    names = ("id", "name", "role", "notes", "consent", "consent_until", "created_at", "references")
    return Person(**{name: getattr(row, name) for name in names})


def find_in(connection: Connection, who: str) -> Person:
    """Return the person of this name, or number when written ``#3``. Raises NotEnrolled: there is none."""
    if is_number(who):
        who = f"#{int(who[1:19])}"
        chosen = select_people().where(PERSON.c.id == int(who[1:]))
    else:
        who = checked_name(who)
        chosen = select_people().where(PERSON.c.name_key == name_key(who))
    row = connection.execute(chosen).first()
    if row is None:
        raise NotEnrolled(f"nobody called {who!r} is enrolled (python launch.py people list)")
    return person_of(row)
