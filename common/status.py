"""What a running Mien is doing: one line a process, from the figures that each publishes once a second."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from common.messages import Stats
from common.news import NewsReader
from common.settings import Config

SILENT_S = 5.0  # a process that says nothing this long is marked
WAITS_S = 10.0  # … and so is one whose work has waited for the store this long
_FORGET_S = 30.0  # … and, unless a supervisor still knows of it, no longer shown after this
_ANSWER_S = 3.0
_SETTLE_S = 3.0  # after the first answer: everybody has published by then

_CALM, _WARN, _BAD = "", "yellow", "bold red"


@dataclass(slots=True)
class _Heard:
    stats: Stats
    at: float
    name: str = ""  # as its supervisor calls it
    owner: str = ""  # that supervisor
    waits_since: float | None = None  # some of its work has not been written down


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One process.

    Attributes:
        name: ``detection.2``, or its instance when no supervisor here started it.
        stats: its last figures, None if none came.
        silent_s: seconds since then.
        waits_s: for how long some of its work has waited to be written down, seconds; 0 when none does.
        state, style: in words for people; how to show them.
        restarts: None when no supervisor counts them.
    """

    name: str
    stats: Stats | None
    silent_s: float
    waits_s: float
    state: str
    style: str
    restarts: int | None


class Board:
    """Keeps the last figures of every process. Fed with messages and the time; no socket here."""

    def __init__(self) -> None:
        self._heard: dict[str, _Heard] = {}

    def note(self, stats: Stats, now: float) -> None:
        """Take in one message."""
        known = self._heard.get(stats.sender)
        self._heard[stats.sender] = heard = _Heard(stats, now, known.name if known else "")
        if _number(stats.detail.get("waiting", 0.0)) > 0:
            since = now - _number(stats.detail.get("waiting_s", 0.0))
            heard.waits_since = since if known is None or known.waits_since is None else min(since, known.waits_since)
        for heard in list(self._heard.values()):
            if heard.stats.stage == "supervisor":
                self._name_children(heard.stats)

    def _name_children(self, supervisor: Stats) -> None:
        here = _host(supervisor.sender)
        by_pid = {int(_number(pid)): name for name, pid in _children(supervisor, "pid").items()}
        for sender, heard in list(self._heard.items()):
            if _host(sender) != here:
                continue
            name = by_pid.get(_pid(sender))
            if name is not None:
                heard.name, heard.owner = name, supervisor.sender
            elif heard.owner == supervisor.sender and heard.name in by_pid.values():
                del self._heard[sender]  # its successor runs under the same name

    @property
    def complete(self) -> bool:
        """Whether a supervisor was heard, and every process that it says is running."""
        rows = self.rows(time.monotonic())
        return any(row.name == "supervisor" for row in rows) and all(
            row.stats is not None for row in rows if row.state == "running"
        )

    def rows(self, now: float) -> list[Row]:
        """Return a row a process, in the order of their supervisor's list, then those that nobody here started."""
        for sender, heard in list(self._heard.items()):
            if now - heard.at > _FORGET_S and not heard.name:
                del self._heard[sender]
        rows: list[Row] = []
        shown: set[str] = set()
        for sender, supervisor in self._heard.items():
            if supervisor.stats.stage != "supervisor":
                continue
            rows.append(_row("supervisor", supervisor, now, None, None))
            shown.add(sender)
            restarts = _children(supervisor.stats, "restarts")
            silent = now - supervisor.at > SILENT_S
            for name, state in _children(supervisor.stats, "state").items():
                own = [
                    (other, heard)
                    for other, heard in self._heard.items()
                    if heard.name == name and heard.owner == sender
                ]
                shown.update(other for other, _ in own)
                heard_of = own[-1][1] if own else None
                # A silent supervisor knows nothing any more; what its children say themselves counts then.
                word = None if silent else str(state)
                rows.append(_row(name, heard_of, now, word, int(_number(restarts.get(name, 0.0)))))
        for sender, heard in self._heard.items():
            if sender not in shown:
                rows.append(_row(sender, heard, now, None, None))
        return rows

    def table(self, now: float) -> Group:
        """Return the rows as a table for a terminal, and their sum."""
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("process", no_wrap=True)
        table.add_column("state", no_wrap=True)
        for title in ("in/s", "out/s", "dropped", "p50 ms", "p95 ms", "MB", "cpu", "restarts", "bad"):
            table.add_column(title, justify="right", no_wrap=True)
        rows = self.rows(now)
        for row in rows:
            table.add_row(row.name, Text(row.state, row.style), *_figures(row))
        alive = [row.stats for row in rows if row.stats is not None and row.silent_s <= SILENT_S]
        total = (
            f"{len(alive)} processes, {sum(s.cpu for s in alive):.1f} cores, {sum(s.rss_mb for s in alive):.0f} MB "
            "resident (what processes share is counted in each)"
        )
        return Group(table, Text(total, "dim"))


def show(config: Config, *, once: bool) -> int:
    """Show the table, live until Ctrl-C; once if asked, and where it goes to no terminal.

    Returns the exit code: 1 when nobody answers.
    """
    console = Console()
    if not console.is_terminal:
        console, once = Console(width=140), True
    reader = NewsReader(config, ("stats.",))
    board = Board()
    try:
        if not _hear(reader, board, _ANSWER_S, first=True):
            print(f"no Mien is running here (news at {config.endpoint('news_out')})", file=sys.stderr)
            return 1
        if once:
            deadline = time.monotonic() + _SETTLE_S
            while not board.complete and time.monotonic() < deadline:
                _hear(reader, board, 0.1)
            console.print(board.table(time.monotonic()))
            return 0
        _show_live(reader, board, console)
    finally:
        reader.close()
    return 0


def _show_live(reader: NewsReader, board: Board, console: Console) -> None:
    from common.run import end_on_signals

    stop = threading.Event()
    end_on_signals(stop)
    with Live(board.table(time.monotonic()), console=console, auto_refresh=False) as live:
        while not stop.is_set():
            _hear(reader, board, 0.5)
            live.update(board.table(time.monotonic()), refresh=True)


def _hear(reader: NewsReader, board: Board, seconds: float, *, first: bool = False) -> bool:
    """Take in what comes within this time, or until the ``first`` message; return whether any came."""
    heard = False
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and not (first and heard):
        for _, message in reader.read(timeout_ms=max(1, int(left * 1000))):
            if isinstance(message, Stats):
                board.note(message, time.monotonic())
                heard = True
    return heard


def _row(name: str, heard: _Heard | None, now: float, state: str | None, restarts: int | None) -> Row:
    silent_s = now - heard.at if heard else float("inf")
    waits_s = now - heard.waits_since if heard and heard.waits_since is not None else 0.0
    style = _CALM
    if state is None:
        state = heard.stats.state if heard else "unknown"
    if state == "failed":
        state, style = "FAILED", _BAD
    elif state == "waiting":
        state, style = "waiting to be started again", _WARN
    elif state == "running" and heard is not None:
        state = heard.stats.state
    if state == "running" and heard is not None and waits_s > WAITS_S:
        waiting = _number(heard.stats.detail["waiting"])
        state = f"the store cannot be written: {waiting:.0f} entries wait for it, the first for {waits_s:.0f} s"
        style = _BAD
    if state not in ("FAILED", "finished", "stopped") and heard is not None and silent_s > SILENT_S:
        state, style = f"silent for {silent_s:.0f} s", _BAD
    return Row(
        name=name,
        stats=heard.stats if heard else None,
        silent_s=silent_s,
        waits_s=waits_s,
        state=state,
        style=style,
        restarts=restarts,
    )


def _figures(row: Row) -> list[str]:
    restarts = "" if row.restarts is None else str(row.restarts)
    stats = row.stats
    if stats is None or row.silent_s > SILENT_S:
        return ["", "", "", "", "", "", "", restarts, ""]
    timed = stats.p95_ms > 0
    return [
        f"{stats.in_s:.1f}",
        f"{stats.out_s:.1f}",
        str(stats.dropped),
        f"{stats.p50_ms:.1f}" if timed else "",
        f"{stats.p95_ms:.1f}" if timed else "",
        f"{stats.rss_mb:.0f}",
        f"{100 * stats.cpu:.0f} %",
        restarts,
        str(stats.bad_messages) if stats.bad_messages else "",
    ]


def _children(stats: Stats, what: str) -> dict[str, float | str]:
    """Return one figure of every child that a supervisor tells of, by the child's name."""
    end = f".{what}"
    return {key.removesuffix(end): value for key, value in stats.detail.items() if key.endswith(end)}


def _number(value: float | str) -> float:
    return value if isinstance(value, float) else 0.0


def _host(sender: str) -> str:
    return sender.split(".")[-2] if sender.count(".") >= 2 else ""


def _pid(sender: str) -> int:
    last = sender.rsplit(".", 1)[-1]
    return int(last) if last.isdecimal() and len(last) < 20 else -1
