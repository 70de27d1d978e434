"""The store's tables, and the steps that bring an older store to them without losing a row."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

METADATA = MetaData()

# SQLite's integers are as long as they need to be, and its texts, too: PostgreSQL's shall be no shorter.
_WHOLE = BigInteger().with_variant(Integer, "sqlite")


def _words(length: int) -> String:
    return String(length).with_variant(Text, "postgresql")


# Numbers of people and unknown people are never used twice, not after a deletion either: a name in somebody's notes
# or an old result must not come to mean another person (``sqlite_autoincrement``).

META = Table("meta", METADATA, Column("key", _words(64), primary_key=True), Column("value", LargeBinary))

PERSON = Table(
    "person",
    METADATA,
    Column("id", _WHOLE, primary_key=True),
    Column("name", _words(100), nullable=False),
    Column("name_key", _words(200), nullable=False, unique=True),  # the name as it is compared: case and form folded
    Column("role", _words(16), nullable=False),
    Column("notes", Text, nullable=False, default=""),
    Column("consent", _words(16), nullable=False),
    Column("consent_until", Float),  # unix seconds; null: until taken back
    Column("created_at", Float, nullable=False),
    Column("changed_at", Float, nullable=False),
    sqlite_autoincrement=True,
)

REFERENCE = Table(
    "reference",
    METADATA,
    Column("id", _WHOLE, primary_key=True),
    Column("person_id", ForeignKey("person.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("embedding", LargeBinary, nullable=False),  # sealed, 128 float32
    Column("crop", LargeBinary),  # sealed JPEG of the 150×150 chip
    Column("model", _words(64), nullable=False),  # embeddings of different networks do not compare
    Column("source", Text, nullable=False),
    Column("quality", Float, nullable=False),
    Column("created_at", Float, nullable=False),
    sqlite_autoincrement=True,
)

AUDIT = Table(
    "audit",
    METADATA,
    Column("id", _WHOLE, primary_key=True),
    Column("at", Float, nullable=False),
    Column("who", _words(128), nullable=False),
    Column("did", _words(32), nullable=False),
    Column("about", Text, nullable=False),
    sqlite_autoincrement=True,
)

UNKNOWN = Table(
    "unknown",
    METADATA,
    Column("id", _WHOLE, primary_key=True),
    Column("embedding", LargeBinary, nullable=False),  # sealed mean of its looks
    Column("weight", Float, nullable=False),
    Column("model", _words(64), nullable=False),
    Column("first_at", Float, nullable=False),
    Column("last_at", Float, nullable=False, index=True),
    Column("looks", _WHOLE, nullable=False),
    sqlite_autoincrement=True,
)

UNKNOWN_CROP = Table(
    "unknown_crop",
    METADATA,
    Column("id", _WHOLE, primary_key=True),
    Column("unknown_id", ForeignKey("unknown.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("embedding", LargeBinary, nullable=False),
    Column("crop", LargeBinary, nullable=False),
    Column("quality", Float, nullable=False),
    Column("at", Float, nullable=False),
    sqlite_autoincrement=True,
)

SIGHTING = Table(
    "sighting",
    METADATA,
    Column("track", _WHOLE, primary_key=True, autoincrement=False),
    Column("camera", _words(64), nullable=False),
    Column("person_id", ForeignKey("person.id", ondelete="CASCADE"), index=True),
    Column("unknown_id", _WHOLE, index=True),  # outlives the unknown person's own row
    Column("begin_at", Float, nullable=False),
    Column("end_at", Float, nullable=False, index=True),
)

# An episode: somebody needs a look, from when that began until it was over.
EPISODE = Table(
    "episode",
    METADATA,
    Column("id", _WHOLE, primary_key=True),
    Column("rule", _words(100), nullable=False),
    Column("about", _words(16), nullable=False),  # expression, unseen or offline
    Column("camera", _words(64), nullable=False),  # where it was noticed last
    Column("person_id", ForeignKey("person.id", ondelete="CASCADE"), index=True),
    Column("unknown_id", _WHOLE, index=True),
    Column("track", _WHOLE),
    Column("label", _words(16)),  # the expression that weighed most
    Column("began_at", Float, nullable=False),
    Column("opened_at", Float, nullable=False, index=True),
    Column("escalated_at", Float),
    Column("acknowledged_at", Float),
    Column("acknowledged_by", _words(128)),
    Column("snoozed_until", Float),
    Column("judgement", _words(16)),  # useful or false alarm
    Column("judged_by", _words(128)),
    Column("closed_at", Float, index=True),
    Column("closed_why", _words(64)),
    Column("peak", Float),  # highest probability of the rule's expressions together
    Column("assessed_s", Float, nullable=False, default=0.0),
    Column("unassessed_s", Float, nullable=False, default=0.0),
    Column("text", Text, nullable=False),
    Column("snapshot", Text),  # path of a picture's file
    Column("memory", Text),  # JSON: what the alerts stage needs to go on with it after a restart
    sqlite_autoincrement=True,
)

# What was published of an episode; ``serial`` goes up by one a step and is never used twice.
EPISODE_STEP = Table(
    "episode_step",
    METADATA,
    Column("serial", _WHOLE, primary_key=True),
    Column("episode_id", ForeignKey("episode.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("event", _words(16), nullable=False),
    Column("by_whom", _words(128)),
    Column("message", Text, nullable=False),  # the news as it was published, JSON
    sqlite_autoincrement=True,
)

# What is to be told outside, until it has been told.
NOTIFICATION = Table(
    "notification",
    METADATA,
    Column("id", _WHOLE, primary_key=True),
    Column("episode_id", ForeignKey("episode.id", ondelete="CASCADE"), index=True),  # null: a test
    Column("serial", _WHOLE),
    Column("target", _words(64), nullable=False),  # a name of the configuration, never its address
    Column("title", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("camera", _words(64)),  # whose snapshot is to be attached
    Column("snapshot", Text),
    Column("created_at", Float, nullable=False),
    Column("state", _words(16), nullable=False, index=True),  # waiting, sent or failed
    Column("attempts", _WHOLE, nullable=False, default=0),
    Column("next_at", Float, nullable=False),
    Column("done_at", Float),
    Column("error", Text),
    sqlite_autoincrement=True,
)

# History. A track says whose its seconds are, so that a name found late is one changed row.
HISTORY_TRACK = Table(
    "history_track",
    METADATA,
    Column("track", _WHOLE, primary_key=True, autoincrement=False),
    Column("camera", _words(64), nullable=False),
    Column("person_id", ForeignKey("person.id", ondelete="CASCADE")),
    Column("unknown_id", _WHOLE),
    Column("begin_at", _WHOLE, nullable=False),
    Column("end_at", _WHOLE, nullable=False, index=True),
    Index("history_track_person", "person_id", "begin_at"),
    Index("history_track_unknown", "unknown_id", "begin_at"),
)

HISTORY_SECOND = Table(
    "history_second",
    METADATA,
    Column("track", ForeignKey("history_track.track", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("second", _WHOLE, primary_key=True, autoincrement=False),  # unix seconds
    Column("seen", LargeBinary, nullable=False),  # common/history_rows.py
    sqlite_with_rowid=False,
)

# What seconds become when they are old. ``subject``: a person's number, or minus an unknown person's.
HISTORY_MINUTE = Table(
    "history_minute",
    METADATA,
    Column("subject", _WHOLE, primary_key=True, autoincrement=False),
    Column("minute", _WHOLE, primary_key=True, autoincrement=False),  # unix seconds / 60
    Column("camera", _words(64), primary_key=True),
    Column("seen", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

# When a camera gave results: what lies between is time in which nobody could be seen.
HISTORY_WATCH = Table(
    "history_watch",
    METADATA,
    Column("id", _WHOLE, primary_key=True),
    Column("camera", _words(64), nullable=False),
    Column("begin_at", Float, nullable=False),
    Column("end_at", Float, nullable=False, index=True),
)

# What expressions are usual for a person, where a rule asks for it.
USUAL = Table(
    "usual",
    METADATA,
    Column("person_id", ForeignKey("person.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("learned_s", Float, nullable=False),
    Column("mean", Text, nullable=False),  # JSON, seven probabilities
)

NOTE = Table(
    "note",
    METADATA,
    Column("id", _WHOLE, primary_key=True),
    Column("person_id", ForeignKey("person.id", ondelete="CASCADE"), index=True),
    Column("unknown_id", _WHOLE, index=True),
    Column("at", Float, nullable=False, index=True),
    Column("text", Text, nullable=False),
    Column("who", _words(128), nullable=False),
    Column("created_at", Float, nullable=False),
    sqlite_autoincrement=True,
)

# Who may look at the page. Passwords as argon2 hashes; of sessions and tokens only the SHA-256 is kept.

PAGE_USER = Table(
    "page_user",
    METADATA,
    Column("id", _WHOLE, primary_key=True),
    Column("name", _words(100), nullable=False),
    Column("name_key", _words(200), nullable=False, unique=True),
    Column("hash", Text, nullable=False),
    Column("role", _words(16), nullable=False),
    Column("one_time", _WHOLE, nullable=False),  # 1: the password has to be replaced at the next log-in
    Column("created_at", Float, nullable=False),
    Column("seen_at", Float),
    sqlite_autoincrement=True,
)

PAGE_SESSION = Table(
    "page_session",
    METADATA,
    Column("id", LargeBinary(32), primary_key=True),
    Column("user_id", ForeignKey("page_user.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("began_at", Float, nullable=False),
    Column("seen_at", Float, nullable=False),
)

PAGE_TOKEN = Table(
    "page_token",
    METADATA,
    Column("id", _WHOLE, primary_key=True),
    Column("name", _words(100), nullable=False),
    Column("hash", LargeBinary(32), nullable=False, unique=True),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float),
    Column("seen_at", Float),
    sqlite_autoincrement=True,
)

# One entry a version: the tables it adds, then statements for what it changes, for each kind of database. A step that
# has been published is never edited; a change of the tables above is another step.
Step = tuple[tuple[Table, ...], dict[str, tuple[str, ...]]]
STEPS: tuple[Step, ...] = (
    ((META, PERSON, REFERENCE, AUDIT), {}),
    ((UNKNOWN, UNKNOWN_CROP, SIGHTING), {}),
    ((PAGE_USER, PAGE_SESSION, PAGE_TOKEN), {}),
    (
        (EPISODE, EPISODE_STEP, NOTIFICATION, HISTORY_TRACK, HISTORY_SECOND, HISTORY_MINUTE, HISTORY_WATCH, NOTE),
        {  # Whoever deletes a person deletes their minutes: a signed number cannot be a foreign key.
            "sqlite": (
                "CREATE TRIGGER history_minute_of_person AFTER DELETE ON person BEGIN "
                "DELETE FROM history_minute WHERE subject = OLD.id; END",
            ),
            "postgresql": (
                "CREATE FUNCTION history_minute_of_person() RETURNS trigger LANGUAGE plpgsql AS "
                "$$ BEGIN DELETE FROM history_minute WHERE subject = OLD.id; RETURN OLD; END $$",
                "CREATE TRIGGER history_minute_of_person AFTER DELETE ON person "
                "FOR EACH ROW EXECUTE FUNCTION history_minute_of_person()",
            ),
        },
    ),
    ((USUAL,), {}),
)
VERSION = len(STEPS)


def advance(connection: Connection, version: int) -> None:
    """Bring a store of ``version`` (0: empty) one version on, inside the caller's transaction."""
    tables, statements = STEPS[version]
    METADATA.create_all(connection, tables=list(tables), checkfirst=False)
    for statement in statements.get(connection.dialect.name, ()):
        connection.execute(text(statement))
