"""A table of any number of sessions: it holds ids, and reads only the rows that are seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

from rich.segment import Segment
from textual import events, work
from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.message import Message
from textual.reactive import reactive
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Static

from agent.errors import GeliError
from agent.store import SessionSummary
from agent.store_query import Order
from tui.columns import COLUMNS, fit, line

PAGE = 128
"""Rows read at a time."""


class SessionTable(ScrollView, can_focus=True):
    """Rows of sessions with a cursor and marks."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "table--row", "table--cursor", "table--marked", "table--excluded", "table--cursor-blurred",
    }  # fmt: skip
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("pagedown,ctrl+f", "page(1)", "Page down", show=False),
        Binding("pageup,ctrl+b", "page(-1)", "Page up", show=False),
        Binding("home,g", "to(0)", "First", show=False),
        Binding("end,G", "to(-1)", "Last", show=False),
    ]
    cursor = reactive(0)

    class Opened(Message):
        """A row was chosen."""

        def __init__(self, session_id: str) -> None:
            super().__init__()
            self.session_id = session_id

    class Moved(Message):
        """The cursor, the marks or the rows changed."""

    class Failed(Message):
        """The store did not answer."""

        def __init__(self, error: GeliError) -> None:
            super().__init__()
            self.error = error

    def __init__(
        self, read: Callable[[Sequence[str]], Sequence[SessionSummary]], *, id: str | None = None
    ) -> None:
        super().__init__(id=id)
        self._read = read
        self.ids: Sequence[str] = ()
        self.marked: set[str] = set()
        self._rows: dict[str, SessionSummary] = {}
        self._asked: set[int] = set()
        self._cells = fit(80)

    # --- what it shows ------------------------------------------------------------------------

    def show(self, ids: Sequence[str]) -> None:
        """Show these sessions; the cursor stays on its session where that is still there."""
        at = self.current
        self.ids = ids
        known = set(ids)
        self.marked &= known
        self._rows.clear()
        self._asked.clear()
        self.virtual_size = Size(self.size.width, len(ids))
        self.cursor = ids.index(at) if at in known else min(self.cursor, max(len(ids) - 1, 0))
        self.refresh()
        self._scroll_to_cursor()
        self.post_message(self.Moved())

    @property
    def current(self) -> str | None:
        """The session under the cursor."""
        return self.ids[self.cursor] if 0 <= self.cursor < len(self.ids) else None

    @property
    def chosen(self) -> list[str]:
        """The marked sessions in their order, or the one under the cursor."""
        if self.marked:
            return [i for i in self.ids if i in self.marked]
        return [self.current] if self.current else []

    def row(self, session_id: str) -> SessionSummary | None:
        """What is known of a session on the screen."""
        return self._rows.get(session_id)

    # --- drawing ------------------------------------------------------------------------------

    def on_resize(self, event: events.Resize) -> None:
        """Choose the columns anew."""
        self._cells = fit(self.scrollable_content_region.width - 2)
        self.virtual_size = Size(self.size.width, len(self.ids))

    def header(self, order: Order, descending: bool) -> str:
        """The line of titles, with the sign of the order."""
        arrow = "↓" if descending else "↑"
        titles = [
            column.title[: width - 1] + arrow if column.order == order else column.title
            for column, width in self._cells
        ]
        return "  " + line(self._cells, titles)

    def order_at(self, x: int) -> Order | None:
        """What the column at that cell of the header sorts by."""
        at = 2
        for column, width in self._cells:
            if at <= x < at + width + 1:
                return column.order
            at += width + 1
        return None

    def render_line(self, y: int) -> Strip:
        """One row."""
        index = self.scroll_offset.y + y
        width = self.size.width
        if index >= len(self.ids):
            return Strip.blank(width, self.rich_style)
        session_id = self.ids[index]
        summary = self._rows.get(session_id)
        if summary is None:
            self._ask(index // PAGE)
            text = "…"
        else:
            text = line(self._cells, [column.cell(summary) for column, _ in self._cells])
        marked = session_id in self.marked
        names = ["table--row"]
        if summary is not None and summary.excluded:
            names.append("table--excluded")
        if marked:
            names.append("table--marked")
        if index == self.cursor:
            names.append("table--cursor" if self.has_focus else "table--cursor-blurred")
        style = self.get_component_rich_style(names[0])
        for name in names[1:]:
            style += self.get_component_rich_style(name)
        sign = ("›" if index == self.cursor else " ") + ("■" if marked else " ")
        return Strip([Segment(sign + text, style)]).adjust_cell_length(width, style)

    def _ask(self, page: int) -> None:
        if page not in self._asked:
            self._asked.add(page)
            self._fetch(self.ids, page)

    @work(thread=True, exit_on_error=False, group="rows")
    def _fetch(self, ids: Sequence[str], page: int) -> None:
        try:
            rows = self._read(ids[page * PAGE : (page + 1) * PAGE])
        except GeliError as error:
            self.post_message(self.Failed(error))
            return
        self.app.call_from_thread(self._fill, ids, rows)

    def _fill(self, ids: Sequence[str], rows: Sequence[SessionSummary]) -> None:
        if ids is self.ids:  # else another list is shown by now
            self._rows.update((row.id, row) for row in rows)
            self.refresh()
            self.post_message(self.Moved())

    # --- moving and marking -------------------------------------------------------------------

    def watch_cursor(self) -> None:
        """Keep the cursor in sight."""
        self._scroll_to_cursor()
        self.refresh()
        self.post_message(self.Moved())

    def watch_has_focus(self, has_focus: bool) -> None:
        """The cursor looks different without the focus."""
        super().watch_has_focus(has_focus)
        self.refresh()

    def _scroll_to_cursor(self) -> None:
        height = self.size.height
        top = self.scroll_offset.y
        if height and not top <= self.cursor < top + height:
            to = self.cursor if self.cursor < top else self.cursor - height + 1
            self.scroll_to(y=to, animate=False)

    def _to(self, index: int) -> None:
        self.cursor = min(max(index, 0), max(len(self.ids) - 1, 0))

    def action_move(self, by: int) -> None:
        """Down or up."""
        self._to(self.cursor + by)

    def action_page(self, by: int) -> None:
        """A screen down or up."""
        self._to(self.cursor + by * max(self.size.height - 1, 1))

    def action_to(self, index: int) -> None:
        """To the first row, or with -1 to the last."""
        self._to(index if index >= 0 else len(self.ids) - 1)

    def mark(self) -> None:
        """Mark the row or take its mark off, and go on to the next."""
        if self.current is not None:
            self.marked ^= {self.current}
            self._to(self.cursor + 1)
            self.refresh()
            self.post_message(self.Moved())

    def mark_all(self) -> None:
        """Mark all rows; when all are marked, none."""
        self.marked = set() if len(self.marked) == len(self.ids) else set(self.ids)
        self.refresh()
        self.post_message(self.Moved())

    def on_click(self, event: events.Click) -> None:
        """The cursor goes to the row; a second click opens it."""
        index = self.scroll_offset.y + event.y
        if index < len(self.ids):
            self._to(index)
            if event.chain == 2 and self.current:
                self.post_message(self.Opened(self.current))


class TableHeader(Static):
    """The titles above a `SessionTable`; a click sorts."""

    class Sorted(Message):
        """A title was clicked."""

        def __init__(self, order: Order) -> None:
            super().__init__()
            self.order: Order = order

    def __init__(self, table: SessionTable) -> None:
        super().__init__(markup=False)
        self._table = table

    def on_click(self, event: events.Click) -> None:
        """Sort by the column that was clicked."""
        order = self._table.order_at(event.x)
        if order is not None:
            self.post_message(self.Sorted(order))


SORTABLE: tuple[Order, ...] = tuple(c.order for c in COLUMNS if c.order is not None)
