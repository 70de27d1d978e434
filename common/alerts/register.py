"""Who is who: which track is whose, who was seen last where, and who is followed."""

from __future__ import annotations

from dataclasses import dataclass, replace

from common.alerts.episode import Key
from common.alerts.rules import Party
from common.messages import Identity, Result

FORGET_S = 900.0  # whom nothing has been seen of for so long is not remembered


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What the rules need to know of an enrolled person."""

    name: str
    role: str
    withheld: bool = False


@dataclass(slots=True)
class Somebody:
    """Whom results are about: as they were seen last, and where, and when."""

    party: Party
    camera: str
    at: float


class Register:
    """Remembers whom the results of the last quarter of an hour were about.

    Attributes:
        people: enrolled people by number.
        keys: whose each track is.
    """

    def __init__(self) -> None:
        self.people: dict[int, Known] = {}
        self.keys: dict[int, Key] = {}
        self._somebody: dict[Key, Somebody] = {}
        self._followed: dict[str, Key | None] = {}

    def party(self, track: int, identity: Identity) -> Party:
        """Return whom a result says that a track is."""
        party = Party(
            person=identity.person if identity.status == "known" else None,
            name=identity.name,
            number=identity.number if identity.status == "unknown" else None,
            track=track,
            undecided=identity.status == "pending",
        )
        return self.named(party)

    def named(self, party: Party) -> Party:
        """Return a party with the name and role that the person has now."""
        known = self.people.get(party.person) if party.person is not None else None
        return party if known is None else replace(party, name=known.name, role=known.role)

    def withheld(self, party: Party) -> bool:
        """Whether nothing may be said or kept of somebody: a person whose consent is refused or over."""
        known = self.people.get(party.person) if party.person is not None else None
        return known is not None and known.withheld

    def saw(self, key: Key, party: Party, camera: str, at: float) -> None:
        """Somebody was seen."""
        if party.track is not None:
            self.keys[party.track] = key
        self._somebody[key] = Somebody(party, camera, at)

    def get(self, key: Key) -> Somebody | None:
        """Return who that is, if they were seen lately."""
        return self._somebody.get(key)

    def forget(self, key: Key) -> None:
        """Remember nothing of somebody."""
        self._somebody.pop(key, None)

    def strangers_to_the_store(self) -> list[Key]:
        """Return those who are remembered as people and are not enrolled any more."""
        return [key for key in self._somebody if key[0] == "person" and key[1] not in self.people]

    def follow(self, result: Result) -> None:
        """Notice whom somebody follows on a camera (``selected``), also while their face is not in the picture."""
        followed = self._followed.get(result.camera)
        if not result.following:
            self._followed.pop(result.camera, None)
        elif result.selected is not None:
            self._followed[result.camera] = self.keys.get(result.selected, followed)
        elif followed is not None and any(self.keys.get(face.track) == followed for face in result.faces):
            self._followed[result.camera] = None

    def shift(self, seconds: float) -> None:
        """The clock was set by so much."""
        for somebody in self._somebody.values():
            somebody.at += seconds

    def is_followed(self, key: Key) -> bool:
        return key in self._followed.values()

    def old(self, now: float) -> list[Key]:
        """Return whom nothing has been seen of for long; what belongs to no one any more is forgotten."""
        self.keys = {track: key for track, key in self.keys.items() if key in self._somebody}
        return [key for key, one in self._somebody.items() if now - one.at > FORGET_S]
