"""Rewards and policies: what was learned, how it was measured, and which of it speaks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.timer import Timer
from textual.widget import Widget

from agent.errors import GeliError
from learning.registry import BASE, Manifest
from tui import comparing, promoting, ratings, registry_pages, registry_view
from tui.app import Review
from tui.ask import AskText, Choose, Confirm
from tui.comparing import Comparison
from tui.entries import COMPARISONS, DAMAGE, RATINGS, REWARDS, Entries
from tui.panes import Panes
from tui.ratings import Ratings
from tui.registry_view import Known
from tui.words import counted


class Policies(Panes):
    """The registry as a tree, the entry at the cursor beside or below it."""

    mode = "policies"
    signs = """
› cursor   ■ marked for a comparison   + - folded and unfolded (left and right arrow)
● speaks: new calls are held with it   ○ candidate: a share of the new calls
✓ gates passed   ✗ gates failed   † sessions it learned from were deleted   ! damaged
↑ ↓ in a table: more is better, less is better
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("p", "promote", "Promote"),
        Binding("b", "roll_back", "Roll back"),
        Binding("c", "candidate", "Candidate"),
        Binding("v", "verify", "Verify"),
        Binding("space", "mark", "Mark"),
        Binding("m", "compare", "Compare"),
        Binding("x", "cancel", "Cancel"),
        Binding("g", "ratings", "Ratings"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.known: Known | None = None
        self.ratings: Ratings | None = None
        self.comparisons: list[Comparison] = []
        self._tick: Timer | None = None

    def content(self) -> Iterable[Widget]:
        """The tree and the page."""
        self._entries = Entries()
        yield from self.panes(self._entries)

    def on_mount(self) -> None:
        """Nothing runs yet that would have to be watched."""
        self._tick = self.set_interval(1.0, self._ticked, pause=True)

    def on_screen_resume(self) -> None:
        """Read it again: it may have changed while another tab was open."""
        self.reload()

    def on_review_changed(self, message: Review.Changed) -> None:
        """The store or the registry holds something else than before."""
        self.reload()

    # --- reading ------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read the registry and the ratings; the cursor stays on its entry."""
        review, before = self.review, self.ratings
        review.attempt(lambda: registry_view.read(review.registry), self._show)
        review.attempt(
            lambda: ratings.read(review.store, review.registry, review.config, before),
            self._rated,
            self._unrated,
        )

    def _show(self, known: Known) -> None:
        self.known = known
        self._entries.show(known, self.comparisons)
        self._head()
        self.draw()

    def _rated(self, found: Ratings) -> None:
        self.ratings = found
        self.draw()

    def _unrated(self, error: GeliError) -> None:
        self.status(f"! ratings: {error}")

    def _head(self) -> None:
        known = self.known
        if known is None:
            return
        speaks = known.state.promoted or BASE
        parts = [counted(len(known.policies), "policy").replace("policys", "policies")]
        parts.append(counted(len(known.rewards), "reward"))
        if known.unreadable:
            parts.append(f"! {len(known.unreadable)} cannot be read")
        parts.append(f"candidate {known.state.candidate or 'none'}")
        if self._entries.marked:
            parts.append(f"marked {self._entries.marked} (m on another compares, esc: none)")
        self.status(f"! {known.problem}" if known.problem else " · ".join(parts))
        self.tell("who speaks is not known" if known.problem else f"speaks: {speaks}")

    def draw(self) -> None:
        """Write the page for the line at the cursor."""
        known, key = self.known, self._entries.current
        if known is not None and key is not None:
            self.write(key, self._page_of(key, known, self.width))

    def _page_of(self, key: str, known: Known, width: int) -> Text:
        review = self.review
        entry = known.entry(key)
        if entry is not None:
            more = None
            if entry.kind == "policy" and self.ratings is not None:
                more = ratings.in_short(ratings.row_of(self.ratings, entry, review.config))
            folder = registry_pages.folder_of(review.registry, entry)
            return registry_view.entry(entry, known, folder, width, more)
        for one in self.comparisons:
            if one.id == key:
                return comparing.told(one, width)
        if key in known.unreadable or key == DAMAGE:
            return registry_pages.damage(key, known, review.registry.root)
        if key == REWARDS:
            return registry_pages.rewards(known)
        if key == COMPARISONS:
            return registry_pages.comparisons(self.comparisons)
        if key == BASE:
            return registry_pages.base(known, self.ratings, review.config)
        return registry_pages.ratings_page(known, self.ratings, width)

    # --- what happens -------------------------------------------------------------------------

    def on_tree_node_highlighted(self) -> None:
        """The cursor is on another line."""
        self.draw()
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys that do nothing at the cursor are shown dim."""
        entry = self._entry
        at = self._entries.current if hasattr(self, "_entries") else None
        is_policy = at == BASE or (entry is not None and entry.kind == "policy")
        able = {
            "promote": is_policy,
            "mark": is_policy,
            "compare": is_policy,
            "candidate": entry is not None and entry.kind == "policy",
            "verify": entry is not None,
            "cancel": self._under_way is not None,
        }
        return True if able.get(action, True) else None

    @property
    def _entry(self) -> Manifest | None:
        at = self._entries.current if hasattr(self, "_entries") else None
        return self.known.entry(at) if self.known is not None and at is not None else None

    @property
    def _under_way(self) -> Comparison | None:
        return next((one for one in self.comparisons if one.state == "running"), None)

    # --- keys ---------------------------------------------------------------------------------

    def action_back(self) -> None:
        """Back to the tree, or take the mark off."""
        if self._entries.marked and not self.has_class("reading"):
            self._mark(None)
        else:
            super().action_back()

    def action_ratings(self) -> None:
        """To the ratings, counted anew."""
        self._entries.go(RATINGS)
        self.reload()

    def action_promote(self) -> None:
        """Let the policy at the cursor speak."""
        promoting.promote(self.review, self._entry, self.reload)

    def action_roll_back(self) -> None:
        """Let the policy speak that spoke before."""
        promoting.roll_back(self.review, self.reload)

    def action_candidate(self) -> None:
        """Make it the candidate, or no longer."""
        if self._entry is not None:
            promoting.candidate(self.review, self._entry, self.reload)

    def action_verify(self) -> None:
        """Read the entry's files again."""
        entry, review = self._entry, self.review
        if entry is None:
            return
        self.status(f"reading the files of {entry.id} …")

        def told(found: Manifest) -> None:
            self._head()
            files = counted(len(found.files), "file")
            self.app.notify(f"{found.id}: {files}, as registered", markup=False)

        def failed(error: GeliError) -> None:
            self.status(f"! {error}")
            review.fail(error)

        review.attempt(lambda: review.registry.verify(entry.id), told, failed)

    # --- comparing ----------------------------------------------------------------------------

    def action_mark(self) -> None:
        """Mark the policy at the cursor, or take the mark off."""
        at = self._entries.current
        self._mark(None if at == self._entries.marked else at)

    def _mark(self, key: str | None) -> None:
        self._entries.marked = key
        self._entries.show_marks()
        self._head()

    def action_compare(self) -> None:
        """Hold the policy at the cursor against the marked one, or ask against which."""
        known, at, marked = self.known, self._entries.current, self._entries.marked
        if known is None or at is None:
            return
        if self._under_way is not None:
            self.app.notify("one comparison runs already; x cancels it")
        elif not known.rewards:
            self.app.notify("no reward to score the replies with yet: a round learns one (tab 3)")
        elif marked is not None and marked != at:
            self._how_many(at, marked)
        else:
            others = [one for one in (BASE, *(p.id for p in known.policies)) if one != at]
            if not others:
                self.app.notify("there is no other policy yet: a round learns one (tab 3)")
                return
            self.app.push_screen(
                Choose(f"Compare {at} with", [(one, one) for one in others]),
                lambda other: self._how_many(at, other) if other else None,
            )

    def _how_many(self, a: str, b: str) -> None:
        def answered(text: str | None) -> None:
            if text is not None:
                self._start(a, b, int(text))

        self.app.push_screen(
            AskText(
                f"{a} against {b}: on how many held-out histories?",
                str(comparing.HISTORIES),
                "Both answer them, and a reward scores the replies: a minute or more, "
                "in the background.",
                lambda text: None if text.isdecimal() and int(text) >= 2 else "2 or more.",
            ),
            answered,
        )

    def _start(self, a: str, b: str, histories: int) -> None:
        known, review = self.known, self.review
        if known is None:
            return
        entries = [entry for key in (a, b) if (entry := known.entry(key)) is not None]
        rewards = [e.reward for e in entries if e.reward and known.entry(e.reward)]
        one = Comparison(
            id=f"compare-{len(self.comparisons) + 1}",
            a=a,
            b=b,
            reward=rewards[0] if rewards else known.rewards[0].id,
            source=entries[0].data_source if entries else "store",
            histories=histories,
        )
        self.comparisons.append(one)
        self._mark(None)
        self._entries.show(known, self.comparisons)
        self._entries.go(one.id)
        if self._tick is not None:
            self._tick.resume()
        review.attempt(
            lambda: comparing.run(one, review.commands, review.arguments), self._compared
        )

    def _compared(self, one: Comparison) -> None:
        if self._tick is not None:
            self._tick.pause()
        if self.known is not None:
            self._entries.show(self.known, self.comparisons)
        self.draw()
        self.refresh_bindings()
        self.app.notify(f"{one.a} against {one.b}: {one.state}", markup=False)

    def _ticked(self) -> None:
        if self._entries.current == getattr(self._under_way, "id", None):
            self.draw()

    def action_cancel(self) -> None:
        """End the comparison that runs."""
        one = self._under_way
        if one is None:
            self.app.notify("nothing runs here")
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self.review.commands.end(one.id)

        self.app.push_screen(
            Confirm(f"Cancel {one.a} against {one.b}?", ["What it did so far is lost."]), answered
        )


SCREEN = Policies
