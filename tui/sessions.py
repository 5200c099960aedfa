"""The list of sessions: sort, filter, search, mark, correct many at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Static

from agent.errors import GeliError
from agent.records import Consent
from agent.store import Filter
from agent.store_query import Order
from tui import correcting
from tui.app import Review
from tui.ask import AskText, Choose
from tui.filters import FilterForm, described
from tui.session import SessionScreen
from tui.session_table import SORTABLE, SessionTable, TableHeader
from tui.tab import Tab
from tui.words import counted

EMPTY = """\
No sessions yet.

Hold a call and choose to keep it:   make call,  then open the page
Run a recording through the agent:   geli replay --audio a.wav --video v.mp4 --consent learn
Bring sessions from elsewhere:       geli sessions import FILE.jsonl
"""


class Sessions(Tab):
    """All sessions that the filter lets through."""

    mode = "sessions"
    signs = """
› cursor   ■ marked   × excluded from learning   ✎ has a note   ● live: going on now
pos.    positive windows among those with a face
labels  agent turns with a label among all agent turns
seen    windows with a face among all
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Open"),
        Binding("slash", "search", "Search"),
        Binding("f", "filter", "Filter"),
        Binding("s", "sort", "Sort"),
        Binding("S", "reverse", "Reverse"),
        Binding("space", "mark", "Mark"),
        Binding("a", "mark_all", "Mark all"),
        Binding("r", "rate", "Rate"),
        Binding("x", "exclude", "Exclude/include"),
        Binding("t", "tag", "Tag"),
        Binding("n", "note", "Note"),
        Binding("u", "undo", "Undo"),
        Binding("e", "export", "Export"),
        Binding("d", "delete", "Delete"),
        Binding("escape", "clear", "Clear", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.only = Filter()
        self.order: Order = "started"
        self.descending = True

    def content(self) -> Iterable[Widget]:
        """Titles, rows, and what to do where there are none."""
        self._table = SessionTable(self.review.store.summaries, id="rows")
        yield TableHeader(self._table)
        yield self._table
        yield Static(EMPTY, id="empty", markup=False)
        yield Static(id="status", markup=False)

    def on_mount(self) -> None:
        """The keys go to the list."""
        self._table.focus()

    def on_screen_resume(self) -> None:
        """Read the list, at first and whenever one comes back to it."""
        self.reload()

    def reload(self) -> None:
        """Read the list anew; the cursor stays on its session."""
        only, order, descending = self.only, self.order, self.descending
        self.review.attempt(
            lambda: self.review.store.ids(only, order, descending), self._show, self._failed
        )

    def _show(self, ids: Sequence[str]) -> None:
        self._table.show(ids)
        nothing = not ids
        self.query_one("#empty").display = nothing
        self._table.display = not nothing
        if nothing:
            filtered = described(self.only)
            text = f"No session is {filtered}.\n\nEsc shows all again." if filtered else EMPTY
            self.query_one("#empty", Static).update(text)
        elif self.focused is None:
            self._table.focus()
        self._head()

    def _failed(self, error: GeliError) -> None:
        self.query_one("#status", Static).update(f"! {error}")
        self.review.fail(error)

    def _head(self) -> None:
        header = self.query_one(TableHeader)
        header.update(self._table.header(self.order, self.descending))
        header.display = bool(self._table.ids)
        marked = len(self._table.marked)
        parts = [counted(len(self._table.ids), "session")]
        if self._table.ids:
            parts.append(f"at {self._table.cursor + 1:,}")
        if marked:
            parts.append(f"{marked:,} marked")
        if filtered := described(self.only):
            parts.append(f"only: {filtered}  (esc: all)")
        self.query_one("#status", Static).update(" · ".join(parts))
        self.tell(Path(self.review.store.name).name)

    # --- what happens underneath --------------------------------------------------------------

    def on_review_changed(self, message: Review.Changed) -> None:
        """The store holds something else than before."""
        self.reload()

    def on_session_table_moved(self) -> None:
        """The cursor or the marks changed."""
        self._head()

    def on_resize(self) -> None:
        """The columns may be others."""
        self.call_after_refresh(self._head)

    def on_session_table_failed(self, message: SessionTable.Failed) -> None:
        """Rows could not be read."""
        self._failed(message.error)

    def on_session_table_opened(self, message: SessionTable.Opened) -> None:
        """A row was double-clicked."""
        self.action_open()

    def on_table_header_sorted(self, message: TableHeader.Sorted) -> None:
        """A title was clicked: sort by it, or the other way round."""
        self.descending = not self.descending if message.order == self.order else True
        self.order = message.order
        self.reload()

    # --- keys ---------------------------------------------------------------------------------

    def action_open(self) -> None:
        """Open the session under the cursor."""
        if self._table.current:
            self.app.push_screen(SessionScreen(self._table.current, self._table.ids))

    def action_search(self) -> None:
        """Search the transcripts."""

        def answered(text: str | None) -> None:
            if text is not None:
                self.only = replace(self.only, says=text.strip())
                self.reload()

        self.app.push_screen(
            AskText("Transcripts that hold", self.only.says, 'words, or a "phrase"'), answered
        )

    def action_filter(self) -> None:
        """Choose what is listed."""

        def answered(only: Filter | None) -> None:
            if only is not None:
                self.only = only
                self.reload()

        store = self.review.store
        self.review.attempt(
            lambda: (store.policies(), store.tags()),
            lambda known: self.app.push_screen(FilterForm(self.only, *known), answered),
        )

    def action_clear(self) -> None:
        """Take the marks off; then show all sessions."""
        if self._table.marked:
            self._table.marked.clear()
            self._table.refresh()
            self._head()
        else:
            self.only = Filter()
            self.reload()

    def action_sort(self) -> None:
        """Choose what to sort by."""

        def answered(order: Order | None) -> None:
            if order is not None:
                self.order = order
                self.reload()

        options = [(order, order) for order in SORTABLE]
        self.app.push_screen(Choose("Sort by", options, SORTABLE.index(self.order)), answered)

    def action_reverse(self) -> None:
        """The other way round."""
        self.descending = not self.descending
        self.reload()

    def action_mark(self) -> None:
        """Mark the row."""
        self._table.mark()

    def action_mark_all(self) -> None:
        """Mark every row."""
        self._table.mark_all()

    def action_rate(self) -> None:
        """Rate what is marked, or the row."""
        if ids := self._table.chosen:
            row = self._table.row(ids[0]) if len(ids) == 1 else None
            correcting.rate(self.review, ids, row.overall_affect if row else None, self.reload)

    def action_exclude(self) -> None:
        """Exclude what is marked, or include it where the row under the cursor is excluded."""
        if ids := self._table.chosen:
            row = self._table.row(ids[0])
            correcting.exclude(self.review, ids, bool(row and row.excluded), self.reload)

    def action_tag(self) -> None:
        """Tag what is marked, or the row."""
        if ids := self._table.chosen:
            row = self._table.row(ids[0])
            correcting.tag(self.review, ids, row.tags if row else (), self.reload)

    def action_note(self) -> None:
        """Note something about the row."""
        session_id = self._table.current
        if session_id is not None:
            review = self.review
            review.attempt(
                lambda: review.store.get(session_id).note,
                lambda now: correcting.note(review, session_id, now, self.reload),
            )

    def action_undo(self) -> None:
        """Undo the newest change of the row."""
        if self._table.current:
            correcting.undo(self.review, self._table.current, self.reload)

    def action_delete(self) -> None:
        """Delete what is marked, or the row."""
        if ids := self._table.chosen:
            correcting.delete(self.review, ids, self.reload)

    def action_export(self) -> None:
        """Export what is marked, or all that are listed."""
        ids = self._table.chosen if self._table.marked else list(self._table.ids)
        export(self.review, ids)


def export(app: Review, ids: Sequence[str]) -> None:
    """Ask for a file, then write those sessions to it as JSON Lines."""
    if not ids:
        app.notify("there is nothing to export")
        return

    def answered(text: str | None) -> None:
        if text is None:
            return
        path = Path(text).expanduser()

        def write() -> int:
            from agent.jsonl import export_sessions

            wanted = set(ids)
            every = app.store.iter_sessions((Consent.KEEP, Consent.LEARN), None)
            return export_sessions((one for one in every if one.id in wanted), path)

        app.attempt(
            write, lambda n: app.notify(f"{counted(n, 'session')} written to {path}", markup=False)
        )

    app.push_screen(
        AskText(
            f"Export {counted(len(ids), 'session')} as JSON Lines to",
            "sessions.jsonl.gz",
            "They hold what people said: keep the file as private as the store.",
            lambda text: None if text.strip() else "Name a file.",
        ),
        answered,
    )


SCREEN = Sessions
