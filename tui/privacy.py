"""Who consented to what, what is due for deletion, and everything about one person."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.widget import Widget
from textual.widgets import Static

from agent import corrections, retention
from agent.errors import GeliError
from agent.records import person_of
from agent.retention import Due
from agent.stats import Stats, count
from tui import correcting
from tui.app import Review
from tui.ask import AskText, Show
from tui.session import SessionScreen
from tui.session_table import SessionTable, TableHeader
from tui.sessions import export
from tui.tab import Tab
from tui.words import counted, day_and_time

NOTHING_DUE = """\
Nothing is due for deletion.

p   finds the sessions of one person by their token, which the page shows
d   in tab 1 deletes single sessions
"""
NOBODY = "No session is kept of this person.\n\nEsc goes back to what is due."


class Privacy(Tab):
    """What is kept of whom, and how it goes."""

    mode = "privacy"
    signs = """
Due is what is older than [retention] allows its class; nothing is deleted by itself.
Deleted text is overwritten in the database file; what had learned from it is named.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "person", "One person"),
        Binding("escape", "back", "What is due"),
        Binding("enter", "open", "Open"),
        Binding("d", "delete", "Delete this one"),
        Binding("a", "delete_all", "Delete all listed"),
        Binding("e", "export", "Export all listed"),
        Binding("c", "changes", "Corrections"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._person: str | None = None
        self._due: Sequence[Due] = ()

    def content(self) -> Iterable[Widget]:
        """Counts and the rule above, sessions below."""
        self._table = SessionTable(self.review.store.summaries, id="rows")
        yield Static(id="about", markup=False)
        yield TableHeader(self._table)
        yield self._table
        yield Static(id="empty", markup=False)
        yield Static(id="status", markup=False)

    def on_mount(self) -> None:
        """The keys go to the list."""
        self._table.focus()

    def on_screen_resume(self) -> None:
        """Read it, at first and whenever one comes back to it."""
        self.reload()

    def on_review_changed(self, message: Review.Changed) -> None:
        """The store holds something else than before."""
        self.reload()

    def reload(self) -> None:
        """Count, and read what is due or the person's sessions."""
        store, rule, person = self.review.store, self.review.config.retention, self._person

        def read() -> tuple[Stats, Sequence[Due], Sequence[str]]:
            due = retention.due(store, rule)
            ids = [one.id for one in due]
            return count(store), due, retention.of_person(store, person) if person else ids

        self.review.attempt(read, lambda found: self._show(*found), self._failed)

    def _failed(self, error: GeliError) -> None:
        self.query_one("#status", Static).update(f"! {error}")

    def _show(self, stats: Stats, due: Sequence[Due], ids: Sequence[str]) -> None:
        self._due = due
        self.query_one("#about", Static).update(self._about(stats))
        self._table.show(ids)
        self._table.display = bool(ids)
        header = self.query_one(TableHeader)
        header.display = bool(ids)
        header.update(self._table.header("started", True))
        empty = self.query_one("#empty", Static)
        empty.display = not ids
        empty.update(NOBODY if self._person else NOTHING_DUE)
        if ids and self.focused is None:
            self._table.focus()
        what = "of this person  (esc: what is due)" if self._person else "due for deletion"
        self.query_one("#status", Static).update(f"{counted(len(ids), 'session')} {what}")
        self.tell("one person" if self._person else "retention")

    def _about(self, stats: Stats) -> Text:
        """The counts and the rule."""
        days = self.review.config.retention.days
        overdue = {name: sum(one.consent == name for one in self._due) for name in days}
        out = Text()
        out.append("consent     kept      kept at most    due now\n", "bold")
        for consent, limit in days.items():
            kept = stats.by_consent.get(consent.value, 0)
            rule = "for good" if limit is None else f"{limit:g} days"
            out.append(f"{consent.value:<10}{kept:>6,}{rule:>18}{overdue[consent]:>11,}\n")
        not_kept = sum(stats.not_kept.values())
        out.append(f"talk_only      0   only counted: {counted(not_kept, 'call')}\n")
        out.append(f"Learning reads learn only, without the {stats.excluded:,} excluded.")
        return out

    # --- keys ---------------------------------------------------------------------------------

    def action_person(self) -> None:
        """Find one person's sessions by their token."""

        def wrong(text: str) -> str | None:
            try:
                person_of(text)
            except ValueError as error:
                return f"{error}."
            return None

        def answered(text: str | None) -> None:
            if text is not None:
                self._person = person_of(text)
                self.reload()

        self.app.push_screen(
            AskText(
                "The person's token",
                hint="Their browser shows it after a call; it is not kept here.",
                check=wrong,
                secret=True,
            ),
            answered,
        )

    def action_back(self) -> None:
        """Back to what is due."""
        self._person = None
        self.reload()

    def action_open(self) -> None:
        """Read the session at the cursor."""
        if self._table.current:
            self.app.push_screen(SessionScreen(self._table.current, self._table.ids))

    def action_delete(self) -> None:
        """Delete the session at the cursor."""
        if self._table.current:
            self._remove([self._table.current])

    def action_delete_all(self) -> None:
        """Delete everything that is listed."""
        if self._table.ids:
            self._remove(self._table.ids)
        else:
            self.app.notify("nothing is listed")

    def _remove(self, ids: Sequence[str]) -> None:
        status = self.query_one("#status", Static)

        def progress(done: int, of: int) -> None:
            size = round(20 * done / max(of, 1))
            text = f"deleting  {'█' * size}{'░' * (20 - size)}  {done:,} of {of:,}"
            self.app.call_from_thread(status.update, text)

        correcting.delete(self.review, ids, self.reload, progress)

    def action_export(self) -> None:
        """Write everything that is listed to a file."""
        export(self.review, self._table.ids)

    def action_changes(self) -> None:
        """All corrections, newest first."""

        def show(found: Sequence[corrections.Change]) -> None:
            lines = [
                f"{day_and_time(c.at, year=True)}  {c.by:<10} {c.session_id}\n    {c}"
                for c in found
            ]
            text = "\n".join(lines) or "Nothing was corrected yet."
            self.app.push_screen(Show("Corrections, newest first", text))

        self.review.attempt(lambda: corrections.listed(self.review.store), show)


SCREEN = Privacy
