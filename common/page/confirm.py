"""Asking once more before something is deleted that nobody can bring back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from nicegui import ui

from common.page.frame import Page, asked


def confirm(page: Page, title: str, do: Callable[[], Awaitable[object]], *, label: str, text: str = "") -> None:
    """Ask whether something shall be done, and do it if the user says so; ``label`` says what, in a word."""
    dialog, card = asked(title, text=text)

    async def really() -> None:
        dialog.close()
        with page.client:  # the dialog, which this would be drawn in, is gone by the time that it has been done
            await do()

    with card, ui.row().classes("buttons"):
        ui.button(page.t("cancel"), on_click=dialog.close).props("flat no-caps")
        ui.button(label, on_click=really).props("no-caps unelevated color=negative").mark("really")
    dialog.on("hide", dialog.delete)
    dialog.open()
