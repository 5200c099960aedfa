"""A tab with a list and a page about its line: below it, beside it, or alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.containers import Container, VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from tui.tab import Tab

WIDE = 110
"""Columns from which the page stands beside the list."""


class Panes(Tab):
    """Enter gives the page the whole screen, Escape takes it back."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "read", "Read"),
        Binding("escape", "back", "Back", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._drawn: str | None = None

    def panes(self, listed: Widget) -> Iterable[Widget]:
        """The list with its page, and a line for what holds of all."""
        self.listed = listed
        self.page = VerticalScroll(Static(id="text", markup=False), id="page")
        yield Container(listed, self.page, classes="panes")
        yield Static(id="status", markup=False)

    def on_mount(self) -> None:
        """The keys go to the list."""
        self.listed.focus()

    def draw(self) -> None:
        """Write the page for the line at the cursor."""

    def write(self, key: str, text: Text) -> None:
        """Put a text on the page; another key's begins at its top."""
        self.query_one("#text", Static).update(text)
        if key != self._drawn:
            self._drawn = key
            self.page.scroll_home(animate=False)

    @property
    def width(self) -> int:
        """Cells of a line of the page."""
        return max(self.page.scrollable_content_region.width - 1, 20)

    def status(self, text: str) -> None:
        """Say something in the line above the keys."""
        self.query_one("#status", Static).update(text)

    def on_resize(self) -> None:
        """Beside each other where there is room."""
        self.set_class(self.size.width >= WIDE, "wide")
        self.call_after_refresh(self.draw)

    def action_read(self) -> None:
        """The page on the whole screen, and back."""
        reading = not self.has_class("reading")
        self.set_class(reading, "reading")
        (self.page if reading else self.listed).focus()
        self.call_after_refresh(self.draw)

    def action_back(self) -> None:
        """Back to the list."""
        if self.has_class("reading"):
            self.action_read()
