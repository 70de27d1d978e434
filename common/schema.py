"""The store's tables, and the steps that bring an older store to them without losing a row."""

from __future__ import annotations

from sqlalchemy import (
    Column,
    Connection,
    Float,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)

METADATA = MetaData()

# Numbers of people and unknown people are never used twice, not after a deletion either: a name in somebody's notes
# or an old result must not come to mean another person (``sqlite_autoincrement``).

META = Table("meta", METADATA, Column("key", String(64), primary_key=True), Column("value", LargeBinary))

PERSON = Table(
    "person",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("name", String(100), nullable=False),
    Column("name_key", String(200), nullable=False, unique=True),  # the name as it is compared: case and form folded
    Column("role", String(16), nullable=False),
    Column("notes", Text, nullable=False, default=""),
    Column("consent", String(16), nullable=False),
    Column("consent_until", Float),  # unix seconds; null: until taken back
    Column("created_at", Float, nullable=False),
    Column("changed_at", Float, nullable=False),
    sqlite_autoincrement=True,
)

REFERENCE = Table(
    "reference",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("person_id", ForeignKey("person.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("embedding", LargeBinary, nullable=False),  # sealed, 128 float32
    Column("crop", LargeBinary),  # sealed JPEG of the 150×150 chip
    Column("model", String(64), nullable=False),  # embeddings of different networks do not compare
    Column("source", Text, nullable=False),
    Column("quality", Float, nullable=False),
    Column("created_at", Float, nullable=False),
    sqlite_autoincrement=True,
)

AUDIT = Table(
    "audit",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False),
    Column("who", String(128), nullable=False),
    Column("did", String(32), nullable=False),
    Column("about", Text, nullable=False),
    sqlite_autoincrement=True,
)

UNKNOWN = Table(
    "unknown",
    METADATA,
    Column("id", Integer, primary_key=True),
    Column("embedding", LargeBinary, nullable=False),  # sealed mean of its looks
    Column("weight", Float, nullable=False),
    Column("model", String(64), nullable=False),
    Column("first_at", Float, nullable=False),
    Column("last_at", Float, nullable=False, index=True),
    Column("looks", Integer, nullable=False),
    sqlite_autoincrement=True,
)

UNKNOWN_CROP = Table(
    "unknown_crop",
    METADATA,
    Column("id", Integer, primary_key=True),
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
    Column("track", Integer, primary_key=True, autoincrement=False),
    Column("camera", String(64), nullable=False),
    Column("person_id", ForeignKey("person.id", ondelete="CASCADE"), index=True),
    Column("unknown_id", Integer, index=True),  # outlives the unknown person's own row
    Column("begin_at", Float, nullable=False),
    Column("end_at", Float, nullable=False, index=True),
)

# One entry a version: the tables it adds, then statements for what it changes. A step that has been published is never
# edited; a change of the tables above is another step.
Step = tuple[tuple[Table, ...], tuple[str, ...]]
STEPS: tuple[Step, ...] = (
    ((META, PERSON, REFERENCE, AUDIT), ()),
    ((UNKNOWN, UNKNOWN_CROP, SIGHTING), ()),
)
VERSION = len(STEPS)


def advance(connection: Connection, version: int) -> None:
    """Bring a store of ``version`` (0: empty) one version on, inside the caller's transaction."""
    tables, statements = STEPS[version]
    METADATA.create_all(connection, tables=list(tables), checkfirst=False)
    for statement in statements:
        connection.execute(text(statement))
