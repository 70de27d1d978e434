"""The Live page: pictures as they come, who is in view, and the selected person's face and last minutes.

Pictures, overlay and panel are drawn by the browser (``static/live.js``); here is what a click may do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nicegui import events, ui
from starlette.requests import Request

from common.history_store import HistoryError, Subject
from common.page.desk import DeskError
from common.page.frame import Page, asked, frame
from common.page.guard import Guard
from common.page.people import ask_alike
from common.page.site import Site
from common.people import PeopleError, checked_name
from common.snapshots import PICTURE
from common.sources.spec import DEFAULT_REGION, without_password

ENROL_S = 45.0  # a busy machine looks at a turning head less often
SWITCH_S = 15.0


def register(site: Site, guard: Guard) -> None:
    """Add the page's route."""

    @ui.page("/")
    def live(request: Request) -> None:
        with frame(site, guard, request, "live") as page:
            _build(page)


def _build(page: Page) -> None:
    from common.page.alerts import open_list

    t = page.t
    ui.add_head_html('<script type="module" src="/page/open/live.js"></script>')
    with ui.element("div").classes("phone-tabs").props('role="tablist"'):
        for key in ("picture", "person", "alerts"):
            ui.html(
                f'<button type="button" role="tab" data-part="{key}" aria-selected="{str(key == "picture").lower()}">'
                f"{t(key)}</button>",
                sanitize=False,
            )
    with ui.element("div").classes("live").props('data-shown="picture"'):
        with ui.element("section").classes("part part-picture").props(f'aria-label="{t("picture")}"'):
            ui.element("div").props("id=mien-views").classes("views")
            with ui.element("div").classes("strip"):
                ui.element("div").props(f'id=mien-cameras aria-label="{t("cameras")}"').classes("chips")
                ui.space()
                if page.may("operator"):
                    ui.button(t("snapshot"), icon="photo_camera", on_click=lambda: ask_browser("snapshot")).props(
                        "flat no-caps dense"
                    ).mark("snapshot")
                    ui.button(t("source"), icon="videocam", on_click=lambda: ask_browser("source")).props(
                        "flat no-caps dense"
                    ).mark("source")
            ui.element("div").props(f'id=mien-in-view aria-label="{t("in_view")}"').classes("in-view")
        with ui.element("aside").classes("part part-person").props(f'aria-label="{t("person")}"'):
            ui.element("div").props("id=mien-panel").classes("card panel")
        with ui.element("section").classes("part part-alerts").props(f'aria-label="{t("open_alerts")}"'):
            ui.label(t("open_alerts")).classes("heading")
            open_list(page)

    async def act(event: events.GenericEventArguments) -> None:
        said = event.args if isinstance(event.args, dict) else {}
        camera = str(said.get("camera") or "")
        if camera not in page.site.config.cameras:
            return
        done = {
            "snapshot": _snapshot,
            "source": _source,
            "name": _name,
            "follow": _follow,
            "unfollow": _follow,
            "note": _note,
        }.get(str(said.get("do")))
        if done is not None:
            with page.told():
                await page.must("operator")
                await done(page, camera, said)

    ui.on("mien-act", act)


def ask_browser(do: str) -> None:
    """Have the browser say which camera and face it shows: it alone knows."""
    ui.run_javascript(f"window.mienAct({do!r})")


async def _snapshot(page: Page, camera: str, said: dict[str, Any]) -> None:
    done = await page.site.desk.ask("snapshot", "snapshot", camera=camera)
    await page.site.desk.audit(page.user.name, "snapshot", camera)
    ui.notify(page.t("saved_snapshot", file=Path(str(done.get(camera))).name + PICTURE), type="positive")


async def _follow(page: Page, camera: str, said: dict[str, Any]) -> None:
    track = _whole(said.get("track")) if said.get("do") == "follow" else None
    await page.site.desk.ask("conductor", "select", camera=camera, track=track)
    await page.site.desk.audit(page.user.name, "follow", f"{camera}, {f'track {track}' if track else 'nobody'}")


async def _name(page: Page, camera: str, said: dict[str, Any]) -> None:
    t = page.t
    track = int(said["track"])
    dialog, card = asked(t("name_title"), text=t("name_live"))
    with card:
        name = ui.input(t("name")).props("autofocus outlined").classes("wide").mark("new-name")
        role = ui.select({key: t(key) for key in ("patient", "staff", "visitor")}, value="patient", label=t("role"))
        role.props("outlined").classes("wide")
        agreed = ui.checkbox(t("consent_needed")).mark("consent")

        async def enrol(*, alike: bool = False) -> None:
            with page.told():
                await page.must("operator")
                chosen = checked_name(name.value or "")
                dialog.close()  # the picture says how far it is, and where to turn the head
                ui.notify(t("looking"), timeout=3000)
                try:
                    done = await page.site.desk.ask(
                        "conductor", "enrol", timeout_s=ENROL_S, camera=camera, track=track, name=chosen,
                        role=str(role.value), consent="given", alike=alike,
                    )  # fmt: skip
                except DeskError as error:
                    if error.result.get("there") == "name":
                        raise PeopleError(t("name_taken", name=chosen)) from error
                    if error.result.get("there") != "look":
                        raise
                    ask_alike(page, chosen, error.result.get("other"), lambda: enrol(alike=True))
                    return
                await page.site.desk.audit(page.user.name, "enrolled", f"{done.get('person')}, from the live picture")
                ui.notify(t("named", person=chosen), type="positive")

        with ui.row().classes("buttons"):
            ui.button(t("cancel"), on_click=dialog.close).props("flat no-caps")
            save = ui.button(t("save"), on_click=enrol).props("no-caps unelevated").mark("enrol")
            save.bind_enabled_from(agreed, "value")
        name.on("keydown.enter", lambda: enrol() if agreed.value else None)
    dialog.open()


async def _note(page: Page, camera: str, said: dict[str, Any]) -> None:
    from common.page.history import note_dialog

    person, number = _whole(said.get("person")), _whole(said.get("number"))
    if person is None and number is None:
        raise HistoryError(page.t("note_of_nobody"))
    await note_dialog(page, Subject(person=person) if person is not None else Subject(unknown=number))


async def _source(page: Page, camera: str, said: dict[str, Any]) -> None:
    t = page.t
    configured = page.site.config.cameras[camera].source
    dialog, card = asked(t("source_of", camera=camera))
    kinds = {
        "configured": t("configured_source", source=without_password(configured)),
        "webcam": t("webcam"), "screen": t("screen"), "file": t("file"), "address": t("address"), "demo": t("demo"),
    }  # fmt: skip
    hints = {
        "webcam": "webcam_number", "screen": "screen_region", "file": "file_path", "address": "address_hint",
    }  # fmt: skip
    with card:
        kind = ui.radio(kinds, value="configured").mark("kind")
        detail = ui.input().props("outlined").classes("wide").mark("detail")
        detail.bind_visibility_from(kind, "value", lambda value: value in hints)
        usual = ",".join(map(str, DEFAULT_REGION))
        kind.on_value_change(
            lambda event: (
                detail.props(f'label="{t(hints[event.value], region=usual)}"') if event.value in hints else None
            )
        )

        async def switch() -> None:
            with page.told():
                await page.must("operator")
                text = (detail.value or "").strip()
                source = {
                    "configured": configured,
                    "webcam": f"webcam:{text or 0}",
                    "screen": f"screen:{text}" if text else "screen",
                    "demo": "demo",
                }.get(str(kind.value), text)
                save.props("loading")
                try:
                    done = await page.site.desk.ask(
                        "capture", "source", timeout_s=SWITCH_S, camera=camera, source=source
                    )
                finally:
                    save.props(remove="loading")
                shown = str(done.get("source"))
                await page.site.desk.audit(page.user.name, "source", f"{camera} shows {shown}")
                dialog.close()
                ui.notify(t("source_changed", camera=camera, source=shown), type="positive")

        with ui.row().classes("buttons"):
            ui.button(t("cancel"), on_click=dialog.close).props("flat no-caps")
            save = ui.button(t("save"), on_click=switch).props("no-caps unelevated").mark("switch")
    dialog.open()


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) else None
