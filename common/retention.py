"""Retention: what has been kept for as long as the configuration says is deleted."""

from __future__ import annotations

import time

from sqlalchemy import delete, select

from common.schema import SIGHTING, UNKNOWN, UNKNOWN_CROP
from common.settings import Config
from common.store import Store


def sweep(store: Store, config: Config, *, at: float | None = None) -> dict[str, int]:
    """Delete what has been kept for long enough; returns how many rows of what."""
    now, privacy = time.time() if at is None else at, config.privacy
    day = 86400.0
    wanted = {
        "sightings": delete(SIGHTING).where(SIGHTING.c.end_at < now - privacy.sighting_days * day),
        "unknown people": delete(UNKNOWN).where(UNKNOWN.c.last_at < now - privacy.unknown_days * day),
        "crops": delete(UNKNOWN_CROP).where(UNKNOWN_CROP.c.at < now - privacy.unknown_crop_days * day),
    }
    with store.write() as connection:
        done = {what: connection.execute(statement).rowcount for what, statement in wanted.items()}
        newest = select(UNKNOWN.c.id).order_by(UNKNOWN.c.last_at.desc()).offset(config.identity.most_unknown)
        surplus = connection.execute(newest).scalars().all()
        connection.execute(delete(UNKNOWN).where(UNKNOWN.c.id.in_(surplus)))
        done["unknown people"] += len(surplus)
        if any(done.values()):
            told = ", ".join(f"{count} {what}" for what, count in done.items() if count)
            store.audit(connection, "retention", told)
            if done["unknown people"]:
                store.changed(connection)
    return done
