"""The table of channels: which sockets, who binds, what happens when one is full. The whole wiring on one screen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["push-pull", "pub-sub", "xpub-sub", "xpub-xsub"]

SMALL = 1024 * 1024  # a map and some arrays
LARGE = 256 * 1024 * 1024  # the largest picture, raw, and what belongs to it


@dataclass(frozen=True, slots=True, kw_only=True)
class Channel:
    """One line of the table.

    Attributes:
        binds: the stage that binds; everybody else connects.
        send_queue, receive_queue: high-water marks, in messages.
        max_bytes: longer parts are refused by the socket, and the sender is disconnected.
        when_full: for people.
    """

    name: str
    kind: Kind
    binds: str
    send_queue: int
    receive_queue: int
    max_bytes: int
    when_full: str


CHANNELS: dict[str, Channel] = {
    channel.name: channel
    for channel in (
        Channel(
            name="frames",
            kind="push-pull",
            binds="conductor",
            send_queue=1,
            receive_queue=2,
            max_bytes=LARGE,
            when_full="newest per camera wins, the rest is counted (every-frame mode: blocks the source)",
        ),
        Channel(
            name="jobs",
            kind="xpub-sub",
            binds="conductor",
            send_queue=64,
            receive_queue=8,
            max_bytes=LARGE,
            when_full="cannot fill: never more jobs out than were asked for",
        ),
        Channel(
            name="findings",
            kind="push-pull",
            binds="conductor",
            send_queue=16,
            receive_queue=256,
            max_bytes=64 * SMALL,
            when_full="blocks the worker",
        ),
        Channel(
            name="pictures",
            kind="xpub-sub",
            binds="conductor",
            send_queue=2,
            receive_queue=2,
            max_bytes=LARGE,
            when_full="dropped for that viewer",
        ),
        Channel(
            name="previews",
            kind="xpub-sub",
            binds="preview",
            send_queue=4,
            receive_queue=4,
            max_bytes=LARGE,
            when_full="dropped for that viewer",
        ),
        Channel(
            name="news_in",
            kind="xpub-xsub",
            binds="bus",
            send_queue=1000,
            receive_queue=1000,
            max_bytes=SMALL,
            when_full="dropped, counted by gaps in the publisher's sequence",
        ),
        Channel(
            name="news_out",
            kind="xpub-sub",
            binds="bus",
            send_queue=1000,
            receive_queue=1000,
            max_bytes=SMALL,
            when_full="dropped for that subscriber only",
        ),
        Channel(
            name="control",
            kind="xpub-xsub",
            binds="bus",
            send_queue=1000,
            receive_queue=1000,
            max_bytes=SMALL,
            when_full="dropped; whoever asks repeats it until it is answered",
        ),
        Channel(
            name="news_public",
            kind="xpub-sub",
            binds="bus",
            send_queue=1000,
            receive_queue=1000,
            max_bytes=SMALL,
            when_full="dropped for that subscriber only",
        ),
        Channel(
            name="archive",
            kind="push-pull",
            binds="the command that asked",
            send_queue=8,
            receive_queue=8,
            max_bytes=LARGE,
            when_full="blocks: nothing is lost",
        ),
    )
}
