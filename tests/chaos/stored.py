"""What is stored, held against what the test itself has heard meanwhile."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence

from tests.chaos.faults import Hit, Victim
from tests.receivers import WebServer

LATE_S = 5.0  # a second is written down so long after it began; what was not is lost with its process
MOST_FRAMES = 15  # of a row: ten looks make a second's, a few more while results come later and later; twice is twenty
SIGHTED_S = 2.0  # a track that had its name for so long is written down under it
LOSES = ("history", "bus", "launch.py")  # what these had in their hands is not written


class Heard:
    """What was said of the people who have names.

    Attributes:
        names: track: the name it had last.
        frames: (track, second): in how many frames it was, also before it had a name: history is kept from the first.
        spans: track: when it had a name first and last, unix seconds.
    """

    def __init__(self, runs: Sequence[Victim]) -> None:
        self.names: dict[int, str] = {}
        self.spans: dict[int, tuple[float, float]] = {}
        frames: Counter[tuple[int, int]] = Counter()
        for result in (result for mien in runs for result in mien.results if result.analysed):
            for face in result.faces:
                frames[face.track, int(result.captured_at)] += 1
                if face.identity.name is not None:
                    self.names[face.track] = face.identity.name
                    first, _ = self.spans.get(face.track, (result.captured_at, 0.0))
                    self.spans[face.track] = first, result.captured_at
        self.frames = Counter({key: count for key, count in frames.items() if key[0] in self.names})


def check_people(*runs: Victim) -> None:
    """Sightings and history are those of the people that were heard of, as long as those were there, and once."""
    mien, heard, now = runs[-1], Heard(runs), time.time()
    hits = [hit for one in runs for hit in one.hits]
    sightings = mien.stored("SELECT track, name, begin_at, end_at FROM sighting JOIN person ON person.id = person_id")
    sighted = {track: name for track, name, _, _ in sightings}
    other = [row for row in sightings if heard.names.get(row[0], row[1]) != row[1]]
    assert not other, (other, heard.names, heard.spans, hits)
    # Whose name was said only while nobody could hear it was there all the same.
    unheard = [row for row in sightings if row[0] not in heard.names]
    assert all(any(lost(second, hits) for second in range(int(row[2]), int(row[3]) + 2)) for row in unheard), (
        unheard, heard.names, heard.spans, hits,
    )  # fmt: skip
    for track, (first, last) in heard.spans.items():
        assert track in sighted or last - first < SIGHTED_S or now - last < LATE_S, (track, first, last)
    rows = mien.stored(
        "SELECT s.track, second, seen, name FROM history_second s JOIN history_track t ON t.track = s.track "
        "JOIN person ON person.id = t.person_id"
    )
    assert rows and {track: name for track, _, _, name in rows}.items() <= heard.names.items()
    frames = {(track, second): seen[0] for track, second, seen, _ in rows}
    # What has waited for the bus comes at once, and counts for the second of its coming.
    full = {row: count for row, count in frames.items() if count > MOST_FRAMES and not lost(row[1], hits)}
    assert not full, (full, hits)
    seconds = frames.keys()
    # Who listens hears the first and the last frames of a second in which the bus or the camera comes and goes, or not.
    near = (-1, 0, 1)
    assert all(any(heard.frames[track, second + i] for i in near) for track, second in seconds), "seconds are made up"
    assert len(seconds - heard.frames.keys()) <= 2 * len(hits) + 2
    missing = {
        (track, second)
        for (track, second), count in heard.frames.items()
        if count >= 10 and (track, second) not in seconds and now - second > LATE_S and not lost(second, hits)
    }
    assert not missing, (sorted(missing), hits)
    # Twice in one second is who was heard of twice in it: a track of a conductor, and one of the next.
    said = Counter((heard.names[track], second) for track, second in heard.frames)
    twice = Counter((name, second) for _, second, _, name in rows)
    for (name, second), count in twice.items():
        assert count <= max(1, *(said[name, second + i] for i in near)), (name, second, count)


def lost(second: int, hits: Sequence[Hit]) -> bool:
    """Whether a second may have been in the hands of a process that was killed, or came while it was gone."""
    return any(hit.began_at - LATE_S <= second <= hit.ended_at + 1 for hit in hits if hit.child.startswith(LOSES))


def check_alerts(mien: Victim, ward: WebServer) -> None:
    """Nobody has two episodes at once, and each step of an episode was told once."""
    open_ones = mien.stored("SELECT rule, person_id, unknown_id, track FROM episode WHERE closed_at IS NULL")
    named = [row[:2] for row in open_ones if row[1] is not None]
    assert len(named) == len(set(named)), open_ones
    told = mien.stored("SELECT episode_id, serial FROM notification")
    assert len(told) == len(set(told))
    mien.until(
        lambda: not mien.stored("SELECT 1 FROM notification WHERE state = 'waiting'"), "all that is to be told is told"
    )
    sent = mien.stored("SELECT 1 FROM notification WHERE state = 'sent'")
    assert len(ward.bodies) == len(sent)
