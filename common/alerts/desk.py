"""The desk: results, corrections, camera states and time go in, steps of episodes come out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from common.alerts import wording
from common.alerts.baseline import Usual
from common.alerts.condition import Condition
from common.alerts.episode import REMEMBERED, Happening, Key, Live, escalation_due, key_of
from common.alerts.presence import STARTING_S, Unseen, Watch
from common.alerts.register import Known, Register
from common.alerts.rules import Party, Rule, applies, covers
from common.expressions import EXPRESSIONS
from common.messages import CameraState, Correction, Face, Result

TIDY_S = 60.0
LOST = "not seen any more"

Place = tuple[str, Key]  # a rule, by name, and whom it is about


def seen_at(result: Result, now: float) -> float:
    """Return when a picture was taken, by this machine's clock: those of cameras elsewhere may be wrong."""
    return now - result.latency_ms / 1e3


class Desk:
    """Decides when an episode opens, escalates and closes.

    Args:
        rules: of the configuration.
        cameras: names of those that should give results.
        now: unix seconds, as everywhere here.

    Attributes:
        register: who is who; its people are kept up to date by ``refresh``.
        usual: what is usual for a person, by number.
        open: the open episodes by rule and subject.
    """

    def __init__(self, rules: Iterable[Rule], cameras: Iterable[str], now: float) -> None:
        self.rules = tuple(rules)
        self.register = Register()
        self.usual: dict[int, Usual] = {}
        self.open: dict[Place, Live] = {}
        self._looks = [rule for rule in self.rules if rule.about == "expression"]
        self._conditions: dict[Place, Condition] = {}
        self._unseen: dict[Place, Unseen] = {}
        self._watches = {camera: Watch(now + STARTING_S) for camera in cameras}
        self._closed: dict[Place, float] = {}
        self._happenings: list[Happening] = []
        self._tidy_at = now + TIDY_S

    def happenings(self) -> list[Happening]:
        """Return what has happened since the last call."""
        happened, self._happenings = self._happenings, []
        return happened

    def find(self, number: int) -> Live | None:
        """Return the open episode of this number."""
        return next((live for live in self.open.values() if live.number == number), None)

    # --- what comes in ---

    def result(self, result: Result, now: float) -> None:
        """Take one result."""
        self._watches.setdefault(result.camera, Watch(now)).result_at = now
        if not result.analysed:
            return
        at = seen_at(result, now)
        for face in result.faces:
            if face.identity.withheld:
                self._withhold(face.track, at)
            else:
                self._face(face, result.camera, at)
        self.register.follow(result)

    def correction(self, correction: Correction, now: float) -> None:
        """What was said of a track was somebody else."""
        if correction.now.withheld:
            self._withhold(correction.track, now)
            return
        was = self.register.keys.get(correction.track)
        party = self.register.party(correction.track, correction.now)
        if was is not None and was != key_of(party, correction.camera):
            self._move(was, party, correction.camera, correction.track, now)

    def camera(self, state: CameraState, now: float) -> None:
        """Take what a camera says of itself."""
        # Both moments are of the camera machine's clock, which may be wrong: only how far they lie apart is used.
        since = now - max(0.0, state.at - state.since)
        self._watches.setdefault(state.camera, Watch(since)).said(state.state, since, now, paused=state.paused)

    def refresh(self, people: dict[int, Known], now: float, rows: Iterable[Any] | None = None) -> None:
        """People have changed in the store.

        Args:
            rows: the open episodes there (``alert_store.memories``): who was forgotten, merged or named shows in them.
        """
        self.register.people = people
        self.usual = {person: usual for person, usual in self.usual.items() if person in people}
        there = None if rows is None else {row["id"]: (row["person_id"], row["unknown_id"]) for row in rows}
        for place, live in list(self.open.items()):
            owner, person = live.stored, live.party.person
            if there is not None and live.number is not None:
                owner = there.get(live.number)
            if live.number is not None and owner is None:
                self._erase(place, now)  # the store has deleted it
            elif owner != live.stored and owner is not None:
                live.stored = owner
                party = replace(live.party, person=owner[0], number=owner[1])
                self._move(place[1], self.register.named(party), live.camera, None, now)
            elif self.register.withheld(live.party) or (person is not None and person not in people):
                self._erase(place, now)
            else:
                live.party = self.register.named(live.party)
        for key in self.register.strangers_to_the_store():
            self._forget(key)

    def restore(self, lives: Iterable[Live], closed: Iterable[tuple[str, Key, float]], now: float) -> list[Live]:
        """Go on with what was open before a restart, and keep the cool-down of what was closed; after ``refresh``.

        Returns:
            Those that had been opened again while the store could not be read: people know of them already.
        """
        for rule, key, at in closed:
            self._closed[rule, key] = max(at, self._closed.get((rule, key), at))
        again: list[Live] = []
        for live in lives:
            if self.register.withheld(live.party):
                self._wipe(live, now)
                continue
            live.party = self.register.named(live.party)
            place = (live.rule.name, key_of(live.party, live.camera))
            here = self.open.get(place)
            if here is not None:
                if here.number is None:
                    self._go_on(place, here, live)
                    again.append(here)
                else:  # people were merged, or an unknown person was named, while nobody followed their episodes
                    self._end(live, now, f"the same as episode {here.number}")
                continue
            self.open[place] = live
            if live.rule.about == "expression":
                condition = self._condition(live.rule, place[1])
                condition.met, condition.began_at, condition.last_at = True, live.began_at, now
                condition.held_s, condition.peak = live.counted_s, live.peak or 0.0
                condition.assessed_s = live.assessed_s
                # Of the time in which this stage did not run, nobody knows anything.
                condition.unassessed_s = max(live.unassessed_s, now - live.began_at - live.assessed_s)
                condition.weights = [float(name in live.looks) for name in EXPRESSIONS]
            elif live.rule.about == "unseen":
                unseen = Unseen(live.rule.leave_s, unseen_s=live.counted_s, found_at=now, began_at=live.began_at)
                self._unseen[place] = unseen
            else:
                watch = self._watches.setdefault(live.camera, Watch(now + STARTING_S))
                if watch.result_at > now:  # nothing has come yet: a restart here is no picture there
                    watch.result_at = live.began_at
            self.register.saw(place[1], live.party, live.camera, now)
        return again

    def shift(self, seconds: float) -> None:
        """The clock was set by so much: every remembered moment moves along with it."""
        for condition in self._conditions.values():
            _move(condition, seconds, "began_at", "last_at")
        for unseen in self._unseen.values():
            _move(unseen, seconds, "found_at", "cleared_at", "ticked_at", "began_at")
        for watch in self._watches.values():
            _move(watch, seconds, "result_at", "since", "bright_at")
        for usual in self.usual.values():
            _move(usual, seconds, "last_at")
        for live in self.open.values():
            _move(live, seconds, "began_at", "opened_at", "escalated_at", "acknowledged_at", "snoozed_until")
        self._closed = {place: at + seconds for place, at in self._closed.items()}
        self._tidy_at += seconds
        self.register.shift(seconds)

    def tick(self, now: float) -> None:
        """Let time pass; a few times a second."""
        for place, condition in list(self._conditions.items()):
            if (live := self.open.get(place)) is not None:
                live.unassessed_s = condition.unassessed_by(now)
            if condition.lost(now):
                if place in self.open:
                    self._close(place, now, LOST)
                del self._conditions[place]
        for rule in self.rules:
            if rule.about == "unseen":
                self._tick_unseen(rule, now)
            elif rule.about == "offline":
                self._tick_offline(rule, now)
        for live in self.open.values():
            if escalation_due(live, now):
                live.escalated_at = now
                self._happen(Happening(event="escalated", live=live, at=now))
        if now >= self._tidy_at:
            self._tidy(now)

    # --- looks ---

    def _face(self, face: Face, camera: str, at: float) -> None:
        party = self.register.party(face.track, face.identity)
        if self.register.withheld(party):
            return  # whoever names faces learns of it in a moment
        key, was = key_of(party, camera), self.register.keys.get(face.track)
        if was is not None and was != key and (was[0] == "track" or key[0] == "person"):
            self._move(was, party, camera, face.track, at)
        self.register.saw(key, party, camera, at)
        smoothed = face.expression.smoothed
        assessed = face.expression.status == "ok" and smoothed is not None
        for rule in self.rules:
            if rule.about == "unseen" and key[0] != "track" and applies(rule, party, camera):
                self._unseen.setdefault((rule.name, key), Unseen(rule.leave_s)).face(at, assessed=assessed)
        if not assessed or smoothed is None:
            return
        seven = [getattr(smoothed, name) for name in EXPRESSIONS]
        for rule in self._looks:
            self._look(rule, key, party, camera, at, seven)
        if party.person is not None and any(rule.above_usual is not None for rule in self._looks):
            counts = (self._conditions.get((rule.name, key)) for rule in self._looks)
            calm = all(condition is None or condition.began_at is None for condition in counts)
            self.usual.setdefault(party.person, Usual()).learn(at, seven, calm=calm)

    def _look(self, rule: Rule, key: Key, party: Party, camera: str, at: float, seven: list[float]) -> None:
        if not covers(rule, camera):
            return  # what another camera shows says nothing about the count of those that the rule is for
        place = (rule.name, key)
        live = self.open.get(place)
        if not applies(rule, party, camera) and live is None and not party.undecided:
            self._conditions.pop(place, None)
            return
        own = [p if name in rule.expressions else 0.0 for name, p in zip(EXPRESSIONS, seven, strict=True)]
        value, enter, leave = sum(own), rule.min_probability, rule.leave
        usual = self.usual.get(party.person) if party.person is not None else None
        if rule.above_usual is not None and usual is not None:
            changed = usual.threshold(rule.expressions, rule.above_usual)
            if changed is not None:
                enter, leave = changed, max(0.0, changed - (rule.min_probability - rule.leave))
        if place not in self._conditions and value < enter:
            return
        condition = self._condition(rule, key)
        condition.look(at, value, enter=enter, leave=leave, seven=own, track=party.track)
        if live is not None:
            live.take(condition)
            live.party, live.camera = party, camera
            if condition.left:
                self._close(place, at, f"no longer looks {' or '.join(live.looks) or 'so'}")
                del self._conditions[place]
        elif condition.left:
            condition.reset()
        elif condition.met and applies(rule, party, camera) and self._cooled(place, rule, at):
            began = at if condition.began_at is None else condition.began_at
            live = Live(rule=rule, party=party, camera=camera, began_at=began, opened_at=at)
            live.take(condition)
            self._open(place, live)

    # --- presence ---

    def _tick_unseen(self, rule: Rule, now: float) -> None:
        for place, unseen in [item for item in self._unseen.items() if item[0][0] == rule.name]:
            somebody = self.register.get(place[1])
            if somebody is None:
                del self._unseen[place]
                continue
            watch = self._watches.get(somebody.camera)
            online = watch is None or (not watch.paused and watch.dark_since(now) is None)
            followed = self.register.is_followed(place[1])
            unseen.tick(now, online=online, followed=followed)
            there, live = followed or unseen.lately(now), self.open.get(place)
            if live is not None:
                gone = not there or (_seen_to(live, now) and not unseen.lately(now))
                live.counted_s, live.unassessed_s, live.party = unseen.unseen_s, unseen.unseen_s, somebody.party
                if unseen.seen_again:
                    self._close(place, now, "the face is seen again")
                elif gone and online and now - (unseen.found_at or now) > rule.pause_s:
                    self._close(place, now, LOST)
                    del self._unseen[place]
            elif not there:
                del self._unseen[place]
            elif unseen.unseen_s >= rule.min_duration_s and self._cooled(place, rule, now):
                began = unseen.began_at or now
                live = Live(
                    rule=rule, party=somebody.party, camera=somebody.camera, began_at=began, opened_at=now,
                    counted_s=unseen.unseen_s, unassessed_s=unseen.unseen_s, followed=followed,
                )  # fmt: skip
                self._open(place, live)

    def _tick_offline(self, rule: Rule, now: float) -> None:
        for camera, watch in self._watches.items():
            place: Place = (rule.name, (f"camera {camera}", 0))
            dark, live = watch.dark_since(now), self.open.get(place)
            if dark is not None:
                watch.bright_at = None
                if live is not None:
                    live.counted_s = live.unassessed_s = now - live.began_at
                elif now - dark >= rule.min_duration_s and applies(rule, Party(), camera):
                    self._open(place, Live(rule=rule, party=Party(), camera=camera, began_at=dark, opened_at=now))
                continue
            watch.bright_at = now if watch.bright_at is None else watch.bright_at
            if live is not None and now - watch.bright_at >= rule.leave_s:
                self._close(place, now, watch.why_bright)

    # --- who is who ---

    def _move(self, was: Key, party: Party, camera: str, track: int | None, at: float) -> None:
        """What was counted for one subject is another's, as far as it is this track's (None: all of it is)."""
        key, seen = key_of(party, camera), self.register.get(was)
        if track is not None:
            self.register.keys[track] = key
        whole = track is None or (seen is not None and seen.party.track == track)
        for place in [place for place in self._conditions if place[1] == was]:
            if self._conditions[place].mostly(track):
                condition, target = self._conditions.pop(place), (place[0], key)
                if place in self.open or target not in self._conditions:
                    self._conditions[target] = condition
                self._move_episode(place, target, party, camera, at)
        if whole:
            self.register.forget(was)
            self.register.saw(key, party, camera, at)
            for place in [place for place in self._unseen if place[1] == was]:
                self._unseen.setdefault((place[0], key), self._unseen.pop(place))
                self._move_episode(place, (place[0], key), party, camera, at)

    def _move_episode(self, place: Place, target: Place, party: Party, camera: str, at: float) -> None:
        live, other = self.open.get(place), self.open.get(target)
        if live is None:
            return
        live.party = party
        if place == target:
            return  # a correction said so before the store did
        if other is not None:
            self._close(place, at, f"the same as episode {other.number}")
        elif not applies(live.rule, party, camera) and not party.undecided:
            self._close(place, at, "somebody whom the rule is not for")
            self._conditions.pop(target, None)
        else:
            self.open[target] = self.open.pop(place)

    def _withhold(self, track: int, at: float) -> None:
        """Nothing may be kept of this track, nor of whom it was taken for if that is who may not be named."""
        key = self.register.keys.pop(track, None)
        if key is None:
            return
        known = self.register.people.get(key[1]) if key[0] == "person" else None
        if known is not None and not known.withheld:
            return  # another person than the one that it was taken for
        seen = self.register.get(key)
        alone = key[0] == "person" or (seen is not None and seen.party.track == track)
        for place in {place for place in (*self._conditions, *self._unseen, *self.open) if place[1] == key}:
            condition = self._conditions.get(place)
            if alone or (condition is not None and condition.mostly(track)):
                self._conditions.pop(place, None)
                self._unseen.pop(place, None)
                if place in self.open:
                    self._erase(place, at)

    # --- episodes ---

    def _go_on(self, place: Place, here: Live, before: Live) -> None:
        """What was opened here is the same as what was open before: what people did about that still holds."""
        for name in REMEMBERED:
            setattr(here, name, getattr(before, name))
        condition, unseen = self._conditions.get(place), self._unseen.get(place)
        if condition is not None:
            condition.began_at = before.began_at
            condition.held_s += before.counted_s
            condition.assessed_s += before.assessed_s
            condition.unassessed_s += before.unassessed_s
            condition.peak = max(condition.peak, before.peak or 0.0)
            here.take(condition)
        elif unseen is not None:
            unseen.began_at = before.began_at
            unseen.unseen_s += before.counted_s

    def _open(self, place: Place, live: Live) -> None:
        self.open[place] = live
        self._happen(Happening(event="opened", live=live, at=live.opened_at))

    def _close(self, place: Place, at: float, why: str) -> None:
        self._closed[place] = at
        self._end(self.open.pop(place), at, why)

    def _end(self, live: Live, at: float, why: str) -> None:
        live.closed_at, live.closed_why = at, why
        self._happen(Happening(event="closed", live=live, at=at, why=why))

    def _erase(self, place: Place, at: float) -> None:
        self._wipe(self.open.pop(place), at)
        self._conditions.pop(place, None)
        self._unseen.pop(place, None)

    def _wipe(self, live: Live, at: float) -> None:
        live.party, live.closed_at, live.closed_why, live.text = Party(), at, "erased", ""
        self._happenings.append(Happening(event="closed", live=live, at=at, why="erased", erase=True))

    def _happen(self, happening: Happening) -> None:
        live = happening.live
        live.text = wording.text(live, happening.event, happening.at)
        self._happenings.append(happening)

    def _condition(self, rule: Rule, key: Key) -> Condition:
        place = (rule.name, key)
        if place not in self._conditions:
            self._conditions[place] = Condition(rule.min_duration_s, rule.leave_s, rule.pause_s)
        return self._conditions[place]

    def _cooled(self, place: Place, rule: Rule, now: float) -> bool:
        return now - self._closed.get(place, -1e18) >= rule.cooldown_s

    def _forget(self, key: Key) -> None:
        self.register.forget(key)
        for counts in (self._conditions, self._unseen):
            for place in [place for place in counts if place[1] == key]:
                del counts[place]

    def _tidy(self, now: float) -> None:
        self._tidy_at = now + TIDY_S
        for key in self.register.old(now):
            if not any(place[1] == key for place in self.open):
                self._forget(key)
        longest = max((rule.cooldown_s for rule in self.rules), default=0.0)
        self._closed = {place: at for place, at in self._closed.items() if now - at < longest}


def _move(remembered: Any, seconds: float, *moments: str) -> None:
    for name in moments:
        at = getattr(remembered, name)
        if at is not None:
            setattr(remembered, name, at + seconds)


def _seen_to(live: Live, now: float) -> bool:
    """Whether somebody has taken care of it a while ago: whoever is followed and has left for good would be told of
    for ever, long after anybody could end the following."""
    return live.acknowledged_at is not None and now - live.acknowledged_at > live.rule.pause_s
