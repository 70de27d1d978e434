"""Which processes a run consists of: the table of stages, the configuration, and what the command line picks."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from common.child import ChildSpec, Needed
from common.config import ConfigError
from common.settings import Config
from stages import STAGES, StageRow


def plan(
    config: Config,
    *,
    only: Collection[str] = (),
    without: Collection[str] = (),
    screen: bool,
    rows: Iterable[StageRow] = STAGES.values(),
) -> list[ChildSpec]:
    """Return what to start, in the order of the table.

    Args:
        only: start these stages and no others; empty for all.
        without: do not start these.
        screen: there is a screen to show a window on; one that ``only`` names is started all the same.

    Raises:
        ConfigError: there is no such stage, or nothing is left to start.
    """
    table = {row.name: row for row in rows}
    for option, names in (("--only", only), ("--without", without)):
        for name in names:
            if name not in table:
                raise ConfigError(f"{option} {name}: there is no such stage; there are {', '.join(table)}")
    off = {name for name, on in (("dashboard", config.dashboard.enabled), ("mqtt", config.mqtt.url)) if not on}
    specs: list[ChildSpec] = []
    for row in table.values():
        wanted = (row.name in only) if only else (screen or row.runs != "screen")
        if row.name in off:
            wanted = False
        if row.name == "chain" and config.cell.hub_news_in is None:
            wanted = False
        if row.hub and config.cell.hub_news_in is not None and row.name not in only:
            wanted = False
        if wanted and row.name not in without:
            specs.extend(_processes(row, config))
    if not specs:
        raise ConfigError("nothing is left to start: name fewer stages with --without, or others with --only")
    return specs


def _processes(row: StageRow, config: Config) -> list[ChildSpec]:
    match row.runs:
        case "pool":
            count = getattr(config.workers, row.name)
            return [_spec(row, f"{row.name}.{number}") for number in range(1, count + 1)]
        case "camera":
            return [_spec(row, f"{row.name}.{camera}", "--camera", camera) for camera in config.own_cameras]
        case _:
            return [_spec(row, row.name)]


def _spec(row: StageRow, name: str, *arguments: str) -> ChildSpec:
    # A camera that cannot be read leaves the other cameras, a window that cannot open leaves the analysis.
    by_kind: dict[str, Needed] = {"camera": "one", "screen": "no"}
    return ChildSpec(
        name=name,
        stage=row.name,
        module=row.module,
        arguments=arguments,
        ends_run=row.ends_run,
        needed="no" if row.optional else by_kind.get(row.runs, "yes"),
    )
