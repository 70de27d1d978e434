"""The Live page: pictures as they come, who is in view, and the selected person's face and last minutes.

Pictures, overlay and panel are drawn by the browser (``static/live.js``); here is what a click may do.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
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
from common.store import StoreError

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
                    # Which of the two is to be seen, the browser decides by the camera that it shows.
                    with ui.element("div").props('id=mien-pausing data-paused="false"').classes("pausing"):
                        for do, icon in (("pause", "pause"), ("resume", "play_arrow")):
                            ui.button(t(do), icon=icon, on_click=lambda do=do: ask_browser(do)).props(
                                f"flat no-caps dense data-do={do}"
                            ).mark(do)
            ui.element("div").props(f'id=mien-in-view aria-label="{t("in_view")}"').classes("in-view")
        with ui.element("aside").classes("part part-person").props(f'aria-label="{t("person")}"'):
            ui.element("div").props("id=mien-panel").classes("card panel")
        with ui.element("section").classes("part part-alerts").props(f'aria-label="{t("open_alerts")}"'):
            ui.label(t("open_alerts")).classes("heading")
            open_list(page)

    async def act(event: events.GenericEventArguments) -> None:
        said = event.args if isinstance(event.args, dict) else {}
        camera = str(said.get("camera") or "")  # empty: all are shown, and nobody is selected
        if camera and camera not in page.site.config.cameras:
            return
        do = str(said.get("do"))
        of_all = {"snapshot": _snapshot, "source": _source, "pause": _pause, "resume": _pause}
        of_one = {"name": _name, "follow": _follow, "unfollow": _follow, "note": _note}
        done = of_all.get(do) or (of_one.get(do) if camera else None)
        if done is not None:
            with page.told():
                await page.must("operator")
                await done(page, camera, said)

    ui.on("mien-act", act)


def ask_browser(do: str) -> None:
    """Have the browser say which camera and face it shows: it alone knows."""
    ui.run_javascript(f"window.mienAct({do!r})")


async def _snapshot(page: Page, camera: str, said: dict[str, Any]) -> None:
    desk = page.site.desk
    # One by one: what one camera cannot give does not hide what was saved of the others.
    cameras = [camera] if camera else list(page.site.config.cameras)
    answers = await asyncio.gather(
        *(desk.ask("snapshot", "snapshot", camera=one) for one in cameras), return_exceptions=True
    )
    done = {one: str(path) for answer in answers if isinstance(answer, dict) for one, path in answer.items()}
    if done:
        files = ", ".join(Path(path).name + PICTURE for _, path in sorted(done.items()))
        ui.notify(page.t("saved_snapshot", file=files), type="positive", multi_line=True)
    failed = [answer for answer in answers if isinstance(answer, BaseException)]
    if done:
        try:
            await desk.audit(page.user.name, "snapshot", ", ".join(sorted(done)))
        except StoreError as error:
            failed.append(error)
    if failed:
        raise failed[0] if len(failed) == 1 else DeskError("; ".join(map(str, failed)))


async def _pause(page: Page, camera: str, said: dict[str, Any]) -> None:
    """Let one camera go on at once; before one stops, or where it is not clear which is meant, ask."""
    t, cameras = page.t, [camera] if camera else list(page.site.config.cameras)

    async def pause(camera: str, do: str) -> None:
        await page.site.desk.ask("capture", do, camera=camera)
        ui.notify(t("pause_done" if do == "pause" else "resume_done", camera=camera), type="positive")
        await page.site.desk.audit(page.user.name, do, camera)

    if camera and said.get("do") == "resume":
        await pause(camera, "resume")
        return
    dialog, card = asked(t("pause_title", camera=camera) if camera else t("pause_which"), text=t("pause_means"))

    def choosing(one: str, do: str) -> Callable[[], Awaitable[None]]:
        async def choose() -> None:
            with page.told():
                await page.must("operator")
                dialog.close()
                await pause(one, do)

        return choose

    with card, ui.row().classes("buttons"):
        ui.button(t("cancel"), on_click=dialog.close).props("flat no-caps")
        for one in cameras:
            state = page.site.states.get(one)
            do = "resume" if state is not None and state[0].paused else "pause"
            text = t(do) if camera else f"{t(do)}: {one}"
            ui.button(text, on_click=choosing(one, do)).props("no-caps unelevated").mark(f"{do}-{one}")
    dialog.open()


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
    if not camera and len(page.site.config.cameras) > 1:
        _which(page, lambda chosen: _source(page, chosen, said))
        return
    camera = camera or next(iter(page.site.config.cameras))
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


def _which(page: Page, then: Callable[[str], Awaitable[None]]) -> None:
    """Ask which camera is meant."""
    dialog, card = asked(page.t("which_camera"))

    def choosing(camera: str) -> Callable[[], Awaitable[None]]:
        async def choose() -> None:
            dialog.close()
            await then(camera)

        return choose

    with card, ui.row().classes("buttons"):
        ui.button(page.t("cancel"), on_click=dialog.close).props("flat no-caps")
        for camera in page.site.config.cameras:
            ui.button(camera, on_click=choosing(camera)).props("no-caps unelevated").mark(f"which-{camera}")
    dialog.open()


def _whole(value: Any) -> int | None:
    return int(value) if isinstance(value, int | float) else None
