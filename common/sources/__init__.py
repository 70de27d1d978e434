"""Sources of pictures: webcam, screen, video file, folder of images, network stream, and the two demo scenes.

All are one small interface (``Source``); ``open_source`` makes one from what a person writes after ``--source``. This
package imports no OpenCV until a source is made, so that the command line can check a source without it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import assert_never

from common.sources.base import Picture, Source, SourceError
from common.sources.spec import SourceSpec, parse_source, webcam_present

__all__ = ["Picture", "Source", "SourceError", "SourceSpec", "open_source", "parse_source", "webcam_present"]


def open_source(
    spec: str | SourceSpec, *, loop: bool | None = None, notify: Callable[[str], None] = lambda notice: None
) -> Source:
    """Make the source that ``spec`` describes; its ``open`` is still to be called.

    Args:
        spec: ``demo``, ``demo:crowd``, ``webcam[:N]``, ``screen[:X,Y,W,H][@MONITOR]``, a file, a folder or a URL.
        loop: begin again at the end. Default: the demo scenes do, files do not.
        notify: told what was skipped and why, one sentence each (a damaged image in a folder, a video cut short).

    Raises:
        SourceError: not a source, with what would be right.
    """
    what = parse_source(spec) if isinstance(spec, str) else spec
    match what.kind:
        case "demo" | "crowd":
            from common.sources.video import Video

            clip = partial(_demo_clip, what.kind, notify)
            return Video(clip, loop=loop is not False, notify=notify, description=what.description)
        case "video":
            from common.sources.video import Video

            return Video(what.place, loop=bool(loop), notify=notify)
        case "image" | "folder":
            from common.sources.folder import Folder

            return Folder(what.place, loop=bool(loop), notify=notify)
        case "webcam":
            from common.sources.webcam import Webcam

            return Webcam(what.index)
        case "screen":
            from common.sources.screen import Screen

            return Screen(what.region, what.index)
        case "stream":
            from common.sources.stream import Stream

            return Stream(what.place, what.description)
        case _:
            assert_never(what.kind)


def _demo_clip(kind: str, notify: Callable[[str], None]) -> Path:
    from common.media import MediaError, sample

    try:
        if kind == "demo":
            return sample("woman.mp4")
        from common.crowd import crowd_video

        return crowd_video(notify)
    except MediaError as error:
        raise SourceError(str(error)) from error
