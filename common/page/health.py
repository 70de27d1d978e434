"""The Health page: every process, its rates and restarts, and where the time of a picture goes."""

from __future__ import annotations

import time

from nicegui import ui
from starlette.requests import Request

from common.page.frame import Page, frame
from common.page.guard import Guard
from common.page.site import Site
from common.status import SILENT_S, Row

EVERY_S = 2.0


def register(site: Site, guard: Guard) -> None:
    """Add the page's route."""

    @ui.page("/health")
    def health(request: Request) -> None:
        with frame(site, guard, request, "health") as page:
            _build(page)


def figures(row: Row) -> dict[str, str]:
    """Return a process's figures as they are shown; silent ones have none."""
    stats = row.stats
    shown = {"restarts": "" if row.restarts is None else str(row.restarts)}
    if stats is None or row.silent_s > SILENT_S:
        return shown
    timed = stats.p95_ms > 0
    return shown | {
        "in_per_s": f"{stats.in_s:.1f}",
        "out_per_s": f"{stats.out_s:.1f}",
        "dropped": str(stats.dropped),
        "median": f"{stats.p50_ms:.1f} ms" if timed else "",
        "p95": f"{stats.p95_ms:.1f} ms" if timed else "",
        "memory": f"{stats.rss_mb:.0f}",
        "cpu": f"{100 * stats.cpu:.0f} %",
    }


def _build(page: Page) -> None:
    t, site = page.t, page.site
    verdict = ui.label().classes("verdict card").props('role="status"').mark("verdict")
    ui.label(t("processes")).classes("heading section")
    names = ("in_per_s", "out_per_s", "dropped", "median", "p95", "memory", "cpu", "restarts")
    columns = [
        {"name": name, "label": t(name), "field": name, "align": "left" if name in ("process", "state") else "right"}
        for name in ("process", "state", *names)
    ]
    table = (
        ui.table(columns=columns, rows=[], row_key="process").props("flat dense hide-pagination").classes("wide card")
    )
    table.props('rows-per-page-options="[0]" :rows-per-page="0"').mark("processes")
    table.add_slot(
        "body-cell-state",
        "<q-td :props=\"props\"><span :class=\"props.row.well ? '' : 'refused'\">{{ props.value }}</span></q-td>",
    )
    ui.label(t("latency")).classes("heading section")
    latency = (
        ui.table(
            columns=[
                {"name": name, "label": t(name), "field": name, "align": "left" if name == "stage" else "right"}
                for name in ("stage", "median", "p95")
            ],
            rows=[],
            row_key="stage",
        )
        .props("flat dense hide-pagination")
        .classes("card narrow")
    )
    if page.may("operator"):
        ui.label(t("interface")).classes("heading section")
        ui.label(t("interface_hint")).classes("quiet")
        ui.html(
            '<a class="action" href="/api/">OpenAPI</a> <a class="action" href="/metrics">/metrics</a> '
            '<a class="action" href="/healthz">/healthz</a>',
            sanitize=False,
        ).classes("actions")

    def show() -> None:
        rows = site.board.rows(time.monotonic())
        wrong = [row for row in rows if row.style]
        down = [name for name, camera in site.cameras().items() if camera["state"] in ("offline", "stalled")]
        count = len(wrong) + len(down)
        text = t("not_well", count=count) if count > 1 else t("one_not_well" if count else "all_well")
        if not rows:
            text = t("nothing_heard")
        verdict.set_text(" ".join([text, *(f"{name}: {t('offline')}." for name in down)]))
        verdict.classes(add="bad" if count else "well", remove="well" if count else "bad")
        table.rows = [{"process": row.name, "state": row.state, "well": not row.style, **figures(row)} for row in rows]
        latency.rows = [
            {"stage": name, "median": f"{median:.0f} ms", "p95": f"{p95:.0f} ms"}
            for name, (median, p95) in site.latencies().items()
        ]

    show()
    ui.timer(EVERY_S, show)
