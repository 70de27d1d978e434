"""The files that an analysis writes, under provisional names until they are complete."""

from __future__ import annotations

from pathlib import Path

from common.encoder import EncoderError, VideoEncoder
from common.tables import Table, check_format, create_table, unfinished

STILLS_SIDE = 640  # pixels; of a film of independent pictures, at least


class OutputError(Exception):
    """A file that cannot be written; the text says which, why, and what to do."""


class Outputs:
    """A table and perhaps an annotated video.

    Args:
        force: replace what is there.

    Raises:
        OutputError: a name that cannot be written to, or a file that is there already, without ``force``.
        TableError: a format that cannot be written.
    """

    def __init__(self, out: Path, annotated: Path | None, *, force: bool) -> None:
        check_format(out)
        if annotated is not None and annotated.suffix.lower() != ".mp4":
            raise OutputError(f"--annotated {annotated}: the video is written as .mp4; end the file's name in that")
        self.finals = [path for path in (out, annotated) if path is not None]
        for path in self.finals:
            if not path.parent.is_dir():
                raise OutputError(f"there is no folder {path.parent} to write {path.name} into: create it first")
            for existing in (path, unfinished(path)):
                if existing.is_dir():
                    raise OutputError(f"{existing} is a folder: give the name of a file")
                if existing.exists() and not force:
                    what = "exists" if existing == path else "was left by an analysis that did not end"
                    raise OutputError(f"{existing} {what}: choose another name, or replace it with --force")
        self.table: Table | None = None
        self.video: VideoEncoder | None = None
        self.failures: list[str] = []

    def spare(self, source: str) -> None:
        """Raise OutputError when writing would destroy the input."""
        read = Path(source)
        for path in self.finals:
            written = [name for name in (path, unfinished(path)) if name.exists()]
            if read.exists() and any(name.samefile(read) for name in written):
                raise OutputError(f"{path} is the input itself: choose another name for the output")

    def create(self, rate: float, *, still: bool = False) -> None:
        """Create the files, for a video or for ``still`` pictures. Raises OutputError: read-only folder, no space."""
        try:
            self.table = create_table(unfinished(self.finals[0]))
            for path in self.finals[1:]:
                unfinished(path).touch()
                # All pictures of a folder are fitted into the first one's size: a tiny one must not make all tiny.
                self.video = VideoEncoder(unfinished(path), rate, least_side=STILLS_SIDE if still else 1)
        except OSError as error:
            self.discard()
            raise OutputError(f"{error.filename or self.finals[0]} cannot be written: {error.strerror}") from error

    def close(self) -> None:
        """End both files; what cannot be written to its end is noted in ``failures``. Closing twice does nothing."""
        table, self.table = self.table, None
        video, self.video = self.video, None
        for file in (table, video):
            if file is not None:
                try:
                    file.close()
                except EncoderError as error:
                    self.failures.append(str(error))
                except OSError as error:
                    self.failures.append(f"{self.finals[0]} cannot be written: {error}")

    def publish(self) -> None:
        """Give the complete files their names. Raises OSError."""
        for path in self.finals:
            if unfinished(path).exists():
                unfinished(path).replace(path)

    def discard(self) -> None:
        """Remove what was begun."""
        self.close()
        for path in self.finals:
            unfinished(path).unlink(missing_ok=True)

    @property
    def kept(self) -> str:
        """The provisional names, for people."""
        return " and ".join(str(unfinished(path)) for path in self.finals if unfinished(path).exists())
