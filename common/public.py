"""The public view of a result: boxes and expressions, and nothing that says who it is."""

from __future__ import annotations

from common.messages import PublicFace, PublicResult, Result


def without_names(result: Result, sender: str, n: int) -> PublicResult:
    """Return what anybody may see of a result.

    Left out: identity, landmarks, the file's name (it may be a person's), who is followed or enrolled, timings.
    """
    return PublicResult(
        sender=sender,
        n=n,
        at=result.at,
        camera=result.camera,
        run=result.run,
        seq=result.seq,
        captured_at=result.captured_at,
        width=result.width,
        height=result.height,
        analysed=result.analysed,
        latency_ms=result.latency_ms,
        faces=tuple(
            PublicFace(track=face.track, box=face.box, score=face.score, expression=face.expression)
            for face in result.faces
        ),
    )
