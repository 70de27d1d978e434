"""The People page: who is enrolled, with faces, roles and consent; and strangers who may be named or merged."""

from __future__ import annotations

import html
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import Response
from nicegui import events, ui
from sqlalchemy import select
from starlette.requests import Request

from common import forgetting, people
from common.page import told
from common.page.access import User
from common.page.frame import Page, asked, frame
from common.page.guard import Guard
from common.page.site import Site, user_of
from common.people import MAX_NOTES, PeopleError, Person, Stranger
from common.person import consent_end
from common.schema import REFERENCE, UNKNOWN_CROP
from common.settings import Config
from common.store import Store

PHOTO_BYTES = 40 * 2**20
PHOTOS = 30
NAMED = 10  # of the files that were not taken, so many are named
STRANGERS = 60  # are shown at first, the last seen; more when asked for
ROLES = ("patient", "staff", "visitor")


def register(app: FastAPI, site: Site, guard: Guard) -> None:
    """Add the page's route, and those of the faces on it."""

    @app.get("/people/{person}/face", include_in_schema=False)
    async def face(request: Request, person: int, reference: int | None = None) -> Response:
        operator = user_of(request.scope).may("operator")
        if not operator and await site.desk.store(None, people.is_withheld, person):
            return Response(status_code=404)
        return _jpeg(await site.desk.store(None, _crop, person, reference))

    @app.get("/unknown/{number}/face", include_in_schema=False)
    async def unknown_face(request: Request, number: int) -> Response:
        if not _shows_strangers(site.config, user_of(request.scope)):
            return Response(status_code=404)
        return _jpeg(await site.desk.store(None, _unknown_crop, number))

    @ui.page("/people")
    async def gallery(request: Request) -> None:
        with frame(site, guard, request, "people") as page:
            await Gallery(page).build()


class Gallery:
    """One open People page."""

    def __init__(self, page: Page) -> None:
        self._page = page
        self._t = page.t
        self._desk = page.site.desk
        self._known: ui.element
        self._strangers: ui.element
        self._most = STRANGERS
        self._more: ui.button
        self._search: ui.input
        self._here: dict[int, ui.label] = {}

    async def build(self) -> None:
        t = self._t
        with ui.element("div").classes("page-head"):
            ui.label(t("people")).classes("heading")
            self._search = ui.input(t("search"), on_change=self.fill).props("outlined dense clearable debounce=300")
            ui.space()
            if self._page.may("operator"):
                ui.button(t("add_person"), icon="person_add", on_click=lambda: self._upload(None)).props(
                    "no-caps unelevated"
                ).mark("add-person")
        self._known = ui.element("div").classes("gallery").mark("gallery")
        with ui.element("div").classes("page-head"):
            ui.label(t("unknown_people")).classes("heading")
            if self._page.may("operator"):
                ui.label(t("drag_hint")).classes("quiet")
        self._strangers = ui.element("div").classes("gallery small").mark("strangers")
        self._more = ui.button(t("more"), on_click=self._show_more).props("flat no-caps").mark("more-strangers")
        ui.on("mien-drop", self._dropped)
        ui.add_head_html('<script type="module" src="/page/open/people.js"></script>')
        await self.fill()
        last = [await self._desk.store(None, lambda store: store.generation())]

        async def follow() -> None:
            now = await self._desk.store(None, lambda store: store.generation())
            if now != last[0]:
                last[0] = now
                await self.fill()
            here = self._who_is_here()
            for person, label in self._here.items():
                label.set_visibility(person in here)

        ui.timer(2.0, follow)

    def _who_is_here(self) -> set[int | None]:
        return {trail.face.identity.person for trail in self._page.site.recent.here(time.monotonic())}

    async def _show_more(self) -> None:
        self._most += STRANGERS
        await self.fill()

    async def fill(self) -> None:
        """Show everybody as they are now."""
        t = self._t
        everybody = await self._desk.store(None, people.everybody)
        strangers = await self._desk.store(None, people.unknown_people)
        now = time.time()
        if not self._page.may("operator"):  # who has not agreed is nobody's to see but theirs who look after that
            everybody = [person for person in everybody if not person.withheld(now)]
        wanted = people.name_key(self._search.value or "")
        found = [person for person in everybody if wanted in people.name_key(person.name)]
        here = self._who_is_here()
        self._known.clear()
        self._here.clear()
        with self._known:
            for person in found:
                self._person(person, here=person.id in here, now=now)
            if not found:
                ui.label(t("nobody_enrolled")).classes("quiet empty wide")
        self._strangers.clear()
        with self._strangers:
            for stranger in strangers[: self._most]:
                self._stranger(stranger)
            if not strangers:
                ui.label(t("no_unknown")).classes("quiet empty wide")
        self._more.set_visibility(len(strangers) > self._most)

    def _person(self, person: Person, *, here: bool, now: float) -> None:
        t = self._t
        card = ui.element("article").classes("card person").mark(f"person-{person.id}")
        card.props(f'data-person="{person.id}"')
        with card:
            picture = f'<img src="/people/{person.id}/face?v={person.references}" alt="" loading="lazy">'
            ui.html(picture if person.references else '<span class="no-face"></span>', sanitize=False).classes("face")
            with ui.element("div").classes("person-text"):
                ui.label(person.name).classes("person-name")
                ui.label(f"{t(person.role)} · {self._pictures(person.references)}").classes("quiet")
                self._here[person.id] = ui.label(t("is_here")).classes("here")
                self._here[person.id].set_visibility(here)
                if person.withheld(now) or person.consent_until:
                    ui.label(f"{t('consent')}: {consent_text(self._page, person, now)}").classes(
                        "refused" if person.withheld(now) else "quiet"
                    )
            if self._page.may("operator"):
                with ui.button(icon="more_vert").props(f'flat round dense aria-label="{t("menu")}"').classes("more"):
                    self._menu(person)

    def _pictures(self, count: int) -> str:
        return self._t("one_picture") if count == 1 else self._t("pictures_count", count=count)

    def _menu(self, person: Person) -> None:
        t = self._t
        with ui.menu():
            ui.menu_item(t("edit"), lambda: self._edit(person)).mark("edit")
            ui.menu_item(t("add_pictures"), lambda: self._upload(person)).mark("add-pictures")
            if not person.withheld(time.time()):
                ui.menu_item(t("see_history"), lambda: ui.navigate.to(f"/history?person={person.id}"))
            ui.menu_item(t("merge"), lambda: self._merge(person))
            if person.references > 1:
                ui.menu_item(t("split"), lambda: self._split(person))
            if self._page.may("admin"):
                ui.separator()
                ui.menu_item(t("forget"), lambda: self._forget(person)).mark("forget-person")

    def _stranger(self, stranger: Stranger) -> None:
        t = self._t
        may = self._page.may("operator")
        card = ui.element("article").classes("card person").mark(f"unknown-{stranger.number}")
        card.props(f'data-unknown="{stranger.number}" draggable={"true" if may else "false"}')
        with card:
            picture = f'<img src="/unknown/{stranger.number}/face?v={stranger.looks // 50}" alt="" loading="lazy">'
            shown = _shows_strangers(self._page.site.config, self._page.user)
            ui.html(picture if shown else '<span class="no-face"></span>', sanitize=False).classes("face")
            with ui.element("div").classes("person-text"):
                ui.label(t("unknown_number", number=stranger.number)).classes("person-name")
                ui.label(t("last_seen", time=told.moment(t, stranger.last_at))).classes("quiet")
                if may:
                    ui.button(t("is_person"), on_click=lambda: self._name(stranger)).props("flat dense no-caps")

    # --- what can be done ---

    async def _do(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        await self._page.must("operator")
        done = await self._desk.store(self._page.user.name, function, *args, **kwargs)
        await self._changed()
        return done

    async def _changed(self) -> None:
        self._page.site.recent.forget()
        await self._hint()
        await self.fill()

    async def _hint(self) -> None:
        with self._page.told():
            await self._desk.ask("conductor", "people", timeout_s=2.0)

    def _edit(self, person: Person) -> None:
        t = self._t
        dialog, card = asked(person.name)
        with card:
            name = ui.input(t("name"), value=person.name).props("outlined").classes("wide").mark("edit-name")
            role = _roles(self._page, person.role)
            consent = (
                ui.select({key: t(key) for key in ("given", "refused")}, value=person.consent, label=t("consent"))
                .props("outlined")
                .classes("wide")
            )
            until = ui.input(t("until"), value=_day_of(person.consent_until))
            until.props("outlined type=date stack-label").classes("wide")
            notes = ui.textarea(t("notes"), value=person.notes).props(f"outlined maxlength={MAX_NOTES}").classes("wide")

            async def save() -> None:
                with self._page.told():
                    changes = changed(
                        person, until.value or "",
                        name=name.value or "", role=role.value, notes=notes.value or "", consent=consent.value,
                    )  # fmt: skip
                    if changes:
                        await self._do(people.change, f"#{person.id}", **changes)
                    dialog.close()

            _buttons(self._page, dialog, save)
        dialog.open()

    def _upload(self, person: Person | None) -> None:
        t = self._t
        dialog, card = asked(t("add_person") if person is None else person.name, text=t("upload_hint"))
        chosen: list[tuple[str, bytes]] = []  # several may have one name: telephones call each of theirs image.jpg
        with card:
            name = ui.input(t("name"), value=person.name if person else "").props("outlined").classes("wide")
            name.mark("upload-name").set_visibility(person is None)
            role = _roles(self._page, "patient")
            role.set_visibility(person is None)

            async def took(event: events.UploadEventArguments) -> None:
                busy(+1)
                try:
                    chosen.append((event.file.name, await event.file.read()))
                finally:
                    busy(-1)

            def taken_back(event: events.GenericEventArguments) -> None:
                for file in event.args:
                    place = next((index for index, (name, _) in enumerate(chosen) if name == file), None)
                    if place is not None:
                        del chosen[place]

            def refused(event: events.GenericEventArguments) -> None:
                files = ", ".join(event.args[:NAMED]) + ("…" if len(event.args) > NAMED else "")
                why = t("photos_refused", files=files, size=PHOTO_BYTES // 2**20, count=PHOTOS)
                ui.notify(why, type="warning", timeout=10000, close_button=True, multi_line=True)

            upload = ui.upload(
                label=t("upload"), multiple=True, max_file_size=PHOTO_BYTES, max_files=PHOTOS, auto_upload=True,
                on_upload=took,
            ).props('accept="image/*,.heic,.heif" flat bordered').classes("wide").mark("upload")  # fmt: skip
            upload.on("removed", taken_back, js_handler="(removed) => emit(removed.map((one) => one.name))")
            upload.on("rejected", refused, js_handler="(refused) => emit(refused.map((one) => one.file.name))")
            upload.on("start", lambda: busy(+1))
            upload.on("finish", lambda: busy(-1))
            agreed = ui.checkbox(t("consent_needed"), value=person is not None).mark("consent")
            agreed.set_visibility(person is None)

            async def enrol(*, alike: bool = False) -> None:
                with self._page.told():
                    await self._page.must("operator")
                    wanted = people.checked_name(name.value or "") if person is None else person.name
                    if not chosen:
                        raise PeopleError(t("upload"))
                    save.props("loading")
                    ui.notify(t("reading_photos"), timeout=3000)
                    try:
                        if person is None:
                            done = await self._read(chosen, wanted, str(role.value), "alike" if alike else "new")
                        else:  # whatever they are called by now
                            how = "more-alike" if alike else "more"
                            done = await self._read(chosen, f"#{person.id}", person.role, how)
                    finally:
                        save.props(remove="loading")
                    left_out = [t("left_out", file=file, why=t(key) if key else why)
                                for file, key, why in done["left_out"]]  # fmt: skip
                    if done["refused"] == "somebody_else":
                        _all_the_same(self._page, " · ".join(left_out[:NAMED]), lambda: enrol(alike=True))
                        return
                    for text in left_out:
                        ui.notify(text, type="warning", timeout=10000, close_button=True)
                    if done["refused"] == "alike":
                        ask_alike(self._page, wanted, done["other"], lambda: enrol(alike=True))
                        return
                    if done["refused"]:
                        raise PeopleError(t(done["refused"], name=wanted))
                    if done["pictures"]:
                        dialog.close()
                        pictures = self._pictures(done["pictures"])
                        ui.notify(t("enrolled", name=wanted, pictures=pictures), type="positive")
                    await self._hint()
                    await self.fill()

            save = _buttons(self._page, dialog, enrol)
            under_way = 0

            def busy(more: int) -> None:
                nonlocal under_way
                under_way += more
                ready()

            def ready() -> None:  # what is still on its way here would be missing
                save.set_enabled(bool(agreed.value) and not under_way)

            agreed.on_value_change(ready)
            ready()

        def closed() -> None:  # a hidden dialog would hold its photographs as long as the page is open
            chosen.clear()
            dialog.delete()

        dialog.on("hide", closed)
        dialog.open()

    async def _read(self, chosen: list[tuple[str, bytes]], who: str, role: str, how: str) -> dict[str, Any]:
        """Have photographs looked at by a process of its own: the networks would stay in this one's memory.

        ``who``, ``how`` and what comes: see ``common/page/enrol.py``.
        """
        with tempfile.TemporaryDirectory(prefix="mien-page-") as place:
            folder = Path(place) / "photos"
            folder.mkdir()
            for index, (file, data) in enumerate(chosen):
                (folder / f"{index:03d} {Path(file).name[-80:]}").write_bytes(data)
            arguments = [str(self._desk.saved_config(Path(place))), str(folder), who, role, self._page.user.name, how]
            done: dict[str, Any] = await self._desk.child("common.page.enrol", *arguments)
        return done

    def _name(self, stranger: Stranger, *, into: int | None = None) -> None:
        t = self._t
        dialog, card = asked(t("name_title"))
        with card:
            ui.html(f'<img src="/unknown/{stranger.number}/face" alt="">', sanitize=False).classes("face large")
            choices: dict[int, str] = {0: t("new_name")}
            who = ui.select(choices, value=0, label=t("is_person"), with_input=True).props("outlined").classes("wide")
            name = ui.input(t("name")).props("outlined").classes("wide").mark("new-name")
            name.bind_visibility_from(who, "value", lambda value: not value)
            role = _roles(self._page, "patient")
            role.bind_visibility_from(who, "value", lambda value: not value)
            agreed = ui.checkbox(t("consent_needed")).mark("consent")

            async def load() -> None:
                everybody = await self._desk.store(None, people.everybody)
                who.set_options({0: t("new_name"), **{p.id: p.name for p in everybody}}, value=into or 0)

            async def save() -> None:
                with self._page.told():
                    await self._do(
                        name_stranger, stranger.number, int(who.value or 0), name.value or "", str(role.value)
                    )
                    dialog.close()

            _buttons(self._page, dialog, save).bind_enabled_from(agreed, "value")
        ui.timer(0.01, load, once=True)
        dialog.open()

    def _merge(self, person: Person, *, into: int | None = None) -> None:
        t = self._t
        dialog, card = asked(t("merge"))
        with card:
            who = ui.select({}, label=t("merge_with")).props("outlined").classes("wide")
            warning = ui.label().classes("quiet")

            async def load() -> None:
                everybody = await self._desk.store(None, people.everybody)
                who.set_options({p.id: p.name for p in everybody if p.id != person.id}, value=into)

            who.on_value_change(
                lambda event: warning.set_text(
                    t("merge_into", gone=person.name, kept=who.options[event.value]) if event.value else ""
                )
            )

            async def save() -> None:
                with self._page.told():
                    if who.value:
                        await self._do(people.merge, f"#{person.id}", f"#{who.value}")
                        dialog.close()

            _buttons(self._page, dialog, save)
        ui.timer(0.01, load, once=True)
        dialog.open()

    async def _split(self, person: Person) -> None:
        t = self._t
        dialog, card = asked(t("split"), text=t("split_hint"))
        references = await self._desk.store(None, people.references_of, f"#{person.id}")
        with card:
            boxes: dict[int, ui.checkbox] = {}
            with ui.element("div").classes("faces"):
                for number, reference in references:
                    with ui.element("label").classes("face-choice"):
                        ui.html(
                            f'<img src="/people/{person.id}/face?reference={number}" '
                            f'alt="{html.escape(reference.source, quote=True)}">',
                            sanitize=False,
                        ).classes("face")
                        boxes[number] = ui.checkbox()
            name = ui.input(t("name")).props("outlined").classes("wide")

            async def save() -> None:
                with self._page.told():
                    chosen = [number for number, box in boxes.items() if box.value]
                    await self._do(people.split, f"#{person.id}", name.value or "", chosen)
                    dialog.close()

            _buttons(self._page, dialog, save)
        dialog.open()

    def _forget(self, person: Person) -> None:
        t = self._t
        dialog, card = asked(t("forget_title", name=person.name), text=t("forget_text"))
        with card:
            typed = ui.input(t("name")).props("outlined").classes("wide").mark("forget-name")

            async def forget() -> None:
                with self._page.told():
                    await self._page.must("admin")
                    if people.name_key((typed.value or "").strip()) != people.name_key(person.name):
                        raise PeopleError(t("names_differ"))
                    button.props("loading")
                    ui.notify(t("forgetting", name=person.name), timeout=3000)
                    config = self._page.site.config
                    try:
                        await self._desk.slowly(self._page.user.name, forgetting.forget, config, f"#{person.id}")
                    finally:
                        button.props(remove="loading")
                    dialog.close()
                    ui.notify(t("forgotten", name=person.name), type="positive")
                    await self._changed()

            button = _buttons(self._page, dialog, forget, label=t("forget")).props("color=negative").mark("forget")
        dialog.open()

    async def _dropped(self, event: events.GenericEventArguments) -> None:
        """A stranger was dragged onto a person."""
        if not self._page.may("operator") or not isinstance(event.args, dict):
            return
        number, person = int(event.args.get("unknown", 0)), int(event.args.get("person", 0))
        strangers = await self._desk.store(None, people.unknown_people)
        stranger = next((one for one in strangers if one.number == number), None)
        if stranger is not None:
            self._name(stranger, into=person)


def ask_alike(page: Page, name: str, other: str | None, enrol: Callable[[], Awaitable[None]]) -> None:
    """Somebody looks like another one who is enrolled: have them enrolled all the same if the user says so."""
    t = page.t
    _all_the_same(page, t("alike_text", name=name, other=other or t("not_agreed_somebody")), enrol)


def _all_the_same(page: Page, text: str, enrol: Callable[[], Awaitable[None]]) -> None:
    t = page.t
    dialog, card = asked(t("alike_title"), text=text)
    with card:

        async def all_the_same() -> None:
            dialog.close()
            await enrol()

        _buttons(page, dialog, all_the_same, label=t("all_the_same")).mark("all-the-same")
    dialog.open()


def name_stranger(store: Store, number: int, person: int, name: str, role: str) -> Person:
    """Name an unknown person, or add their pictures and sightings to a person who is enrolled. Raises PeopleError."""
    if not person:
        return people.from_unknown(store, number, name, role=role)
    kept = people.find(store, f"#{person}")
    new = people.from_unknown(store, number, f"unknown person {number} ({time.time_ns():x})", role=kept.role)
    return people.merge(store, f"#{new.id}", f"#{kept.id}")


def changed(person: Person, until: str, **said: str) -> dict[str, Any]:
    """Return what a form says otherwise than the person whom it was filled in with, as ``people.change`` takes it.

    Nothing else is changed: what others have done since the form was opened stays.

    Args:
        until: the last day of consent, "2027-03-31"; "" for none.

    Raises:
        PeopleError: that is no day.
    """
    changes: dict[str, Any] = {key: value for key, value in said.items() if value != getattr(person, key)}
    if until != _day_of(person.consent_until):
        changes |= {"consent_until": consent_end(until)} if until else {"forever": True}
    return changes


def consent_text(page: Page, person: Person, now: float) -> str:
    """Return a person's consent in words."""
    t = page.t
    if person.consent != "given":
        return t("refused")
    if person.consent_until is None:
        return t("given")
    day = _day_of(person.consent_until)
    return t("run_out" if now >= person.consent_until else "given_until", day=day)


# --- inside ---


def _buttons(
    page: Page, dialog: ui.dialog, save: Callable[[], Awaitable[None]], *, label: str | None = None
) -> ui.button:
    with ui.row().classes("buttons"):
        ui.button(page.t("cancel"), on_click=dialog.close).props("flat no-caps")
        return ui.button(label or page.t("save"), on_click=save).props("no-caps unelevated").mark("save")


def _roles(page: Page, value: str) -> ui.select:
    choices = {key: page.t(key) for key in ROLES}
    return ui.select(choices, value=value, label=page.t("role")).props("outlined").classes("wide")


def _shows_strangers(config: Config, user: User) -> bool:
    """Whether a user sees the faces of unknown people: where pictures hide them, only who may name them does."""
    return user.may("operator") or config.privacy.blur != "unknown"


def _day_of(until: float | None) -> str:
    """Return the last day before a moment, as a form has it."""
    return "" if until is None else time.strftime("%Y-%m-%d", time.localtime(min(until, people.LAST_END) - 1))


def _crop(store: Store, person: int, reference: int | None) -> bytes | None:
    chosen = select(REFERENCE.c.crop).where(REFERENCE.c.person_id == person, REFERENCE.c.crop.is_not(None))
    if reference is not None:
        chosen = chosen.where(REFERENCE.c.id == reference)
    with store.read() as connection:
        sealed = connection.execute(chosen.order_by(REFERENCE.c.quality.desc()).limit(1)).scalar()
    return None if sealed is None else store.open_crop(sealed)


def _unknown_crop(store: Store, number: int) -> bytes | None:
    chosen = select(UNKNOWN_CROP.c.crop).where(UNKNOWN_CROP.c.unknown_id == number)
    with store.read() as connection:
        sealed = connection.execute(chosen.order_by(UNKNOWN_CROP.c.quality.desc()).limit(1)).scalar()
    return None if sealed is None else store.open_crop(sealed)


def _jpeg(data: bytes | None) -> Response:
    return Response(status_code=404) if data is None else Response(data, media_type="image/jpeg")
