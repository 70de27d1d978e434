"""The table of stages: one row a process. Read this first; it is the whole system on one screen.

A new stage is one module, one row, one test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRow:
    """One line of the table.

    Attributes:
        runs: ``once``; ``camera``: one process a camera; ``pool``: as many as the configuration says; ``screen``: once,
            where there is a screen.
        does: for people.
        optional: the run goes on when this one finds at its start that it cannot work.
        hub: of several cells, only the hub has it: there it sees all.
        ends_run: the run is over when all its processes say that they have finished (the window was closed, every
            frame of the files has its result).
    """

    name: str
    runs: Literal["once", "camera", "pool", "screen"]
    takes: str
    gives: str
    does: str
    ends_run: bool = False
    optional: bool = False
    hub: bool = False

    @property
    def module(self) -> str:
        return f"stages.{self.name}"


STAGES: dict[str, StageRow] = {
    row.name: row
    for row in (
        StageRow(
            name="bus", runs="once", takes="news", gives="news", does="forwards small messages to whoever subscribes"
        ),
        StageRow(
            name="chain",
            runs="once",
            takes="news of this cell, control from the hub",
            gives="the same, to the other bus",
            does="where there are several cells: one subscriber at the hub sees them all",
        ),
        StageRow(
            name="conductor",
            runs="once",
            takes="frames, findings, control",
            gives="jobs, results, picture+result",
            does="remembers and decides: newest frames, who gets which job, tracks, names, smoothing",
            ends_run=True,  # in every-frame mode, when all sources have ended and all is answered
        ),
        StageRow(
            name="detection",
            runs="pool",
            takes="frame jobs",
            gives="findings",
            does="boxes, landmarks, quality, and the crops the other two need",
        ),
        StageRow(
            name="identity",
            runs="pool",
            takes="patch jobs",
            gives="findings",
            does="face to 128-d embedding; knows no names",
        ),
        StageRow(
            name="expression",
            runs="pool",
            takes="crop jobs",
            gives="findings",
            does="crops to seven probabilities, batched",
        ),
        StageRow(
            name="preview",
            runs="once",
            takes="picture+result",
            gives="previews",
            does="encodes one JPEG for everybody, only while somebody watches",
        ),
        StageRow(
            name="snapshot",
            runs="once",
            takes="previews, control",
            gives="files",
            does="the picture plain and annotated, its result as JSON",
        ),
        StageRow(
            name="alerts",
            runs="once",
            takes="results, corrections, camera states, control",
            gives="alerts, notifications",
            does="who needs a look: episodes, acknowledged or escalated; tells people outside",
            hub=True,
        ),
        StageRow(
            name="history",
            runs="once",
            takes="results, corrections",
            gives="rows",
            does="one row a person and second in the store; minutes when it is old",
            hub=True,
        ),
        StageRow(
            name="capture",
            runs="camera",
            takes="a source",
            gives="frames",
            does="webcam, screen, file, folder, stream; reconnects; stamps time",
        ),
        StageRow(
            name="display",
            runs="screen",
            takes="previews, news",
            gives="a window",
            does="live picture, boxes, names, expressions, keys",
            ends_run=True,
        ),
        StageRow(
            name="dashboard",
            runs="once",
            takes="previews, news",
            gives="a web page, control",
            does="the page in the browser: live, people, alerts, history, health",
            optional=True,
            hub=True,
        ),
        StageRow(
            name="mqtt",
            runs="once",  # where mqtt.url is set
            takes="results, camera states, alerts",
            gives="MQTT messages",
            does="tells an MQTT broker and Home Assistant who is here, how they look, and what is open",
            optional=True,
            hub=True,
        ),
    )
}
