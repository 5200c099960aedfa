"""Blind sheets: which there are, how far the raters are; make one, open one, rate it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from agent.errors import GeliError
from agent.store_engine import data_dir
from learning.registry import BASE
from tui.agreement import AgreementScreen
from tui.app import Review
from tui.ask import AskText, Choose, Confirm
from tui.jobs import Cancelled
from tui.rating import Rating
from tui.rating_results import Listed, look, stamps
from tui.rating_sheet import Answers, safe_rater, wrong_rater
from tui.tab import Tab
from tui.words import clock, counted, plain

HISTORIES = 24
"""What is offered for a new sheet: half an hour of rating two policies."""
LOOK_S = 2.0
EMPTY = """\
No sheet to rate yet.

n   makes one: two policies answer the same histories, and nobody sees who wrote which
o   opens the folder of one that 'geli learn compare --sheet-out' wrote

Two policies are needed; base is one, a round (tab 3) learns others.
"""


class Blind(Tab):
    """The sheets in the data directory, and those that were opened."""

    mode = "blind"
    signs = """
✓ every question answered   ! cannot be read, and why   ▶ a sheet is being made
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "open", "Rate"),
        Binding("n", "new", "New sheet"),
        Binding("x", "cancel", "Cancel"),
        Binding("o", "other", "Open a folder"),
        Binding("r", "agreement", "Agreement"),
        Binding("i", "rater", "Who rates"),
        Binding("j", "step(1)", "Down", show=False),
        Binding("k", "step(-1)", "Up", show=False),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._opened: list[Path] = []
        self._listed: list[Listed] = []
        self._stamps: list[Any] | None = None
        self._making: tuple[str, datetime] | None = None
        self._rater: str | None = None
        self._tick: Timer | None = None

    def content(self) -> Iterable[Widget]:
        """The list, what to do where it is empty, who rates."""
        yield OptionList(id="sheets", markup=False)
        yield Static(EMPTY, id="empty", markup=False)
        yield Static(id="status", markup=False)

    @property
    def rater(self) -> str:
        """Whose answers are written."""
        return self._rater or safe_rater(self.review.by)

    @property
    def root(self) -> Path:
        """Where sheets are made."""
        return data_dir() / "sheets"

    def on_mount(self) -> None:
        """The keys go to the list; it follows the folders."""
        self.query_one(OptionList).focus()
        self._tick = self.set_interval(LOOK_S, self.reload)

    def on_screen_resume(self) -> None:
        """Read it anew whenever one comes back to it."""
        self._stamps = None
        self.reload()

    def on_review_changed(self, message: Review.Changed) -> None:
        """A policy may have come."""
        self.reload()

    # --- reading ------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read the sheets where something of them changed."""
        folders = self._folders()
        now = stamps(folders)
        if now == self._stamps:
            self._head()
            return
        self._stamps = now
        self.review.attempt(lambda: [look(folder) for folder in folders], self._show)

    def _folders(self) -> list[Path]:
        found = sorted((file.parent for file in self.root.glob("*/sheet.csv")), reverse=True)
        return [*found, *(path for path in self._opened if path not in found)]

    def _show(self, listed: list[Listed]) -> None:
        self._listed = listed
        rows = self.query_one(OptionList)
        at = rows.highlighted or 0
        rows.clear_options()
        rows.add_options([Option(_line(one, self.rater)) for one in listed])
        rows.display = bool(listed)
        self.query_one("#empty").display = not listed
        if listed:
            rows.highlighted = min(at, len(listed) - 1)
            if self.focused is None:
                rows.focus()
        self._head()

    def _head(self) -> None:
        parts = [counted(len(self._listed), "sheet"), f"you rate as {self.rater}"]
        if self._making is not None:
            name, since = self._making
            took = clock((datetime.now(UTC) - since).total_seconds())
            parts.append(f"▶ {name} is being made, {took} (x cancels)")
        self.query_one("#status", Static).update(" · ".join(parts))
        self.tell(f"rater {self.rater}")

    @property
    def _at(self) -> Listed | None:
        at = self.query_one(OptionList).highlighted
        return self._listed[at] if at is not None and at < len(self._listed) else None

    # --- rating -------------------------------------------------------------------------------

    def on_option_list_option_selected(self) -> None:
        """A sheet was chosen."""
        self.action_open()

    def action_open(self) -> None:
        """Go on rating the sheet at the cursor."""
        one = self._at
        if one is None:
            return
        if one.sheet is None:
            self.app.notify(one.problem, severity="error", markup=False)
            return
        sheet, rater = one.sheet, self.rater
        self.review.attempt(
            lambda: Answers(sheet, rater), lambda found: self.app.push_screen(Rating(found))
        )

    def action_agreement(self) -> None:
        """How far the raters of the sheet agree."""
        if self._at is not None:
            self.app.push_screen(AgreementScreen(self._at.folder, self.rater))

    def action_step(self, by: int) -> None:
        """One line down or up."""
        rows = self.query_one(OptionList)
        if rows.option_count:
            rows.highlighted = min(max((rows.highlighted or 0) + by, 0), rows.option_count - 1)

    def action_rater(self) -> None:
        """Rate under another name."""

        def answered(text: str | None) -> None:
            if text is not None:
                self._rater = text.strip()
                self._show(self._listed)

        self.app.push_screen(
            AskText(
                "Who rates?",
                self.rater,
                "The name of the file with the answers.",
                lambda text: wrong_rater(text.strip()),
            ),
            answered,
        )

    def action_other(self) -> None:
        """Open a sheet that lies elsewhere."""

        def answered(text: str | None) -> None:
            if text is not None:
                self._opened.append(Path(text).expanduser())
                self._stamps = None
                self.reload()

        self.app.push_screen(
            AskText(
                "Folder of the sheet",
                hint="The one given to --sheet-out.",
                check=lambda text: (
                    None
                    if (Path(text).expanduser() / "sheet.csv").is_file()
                    else "There is no sheet.csv in it."
                ),
            ),
            answered,
        )

    # --- making one ---------------------------------------------------------------------------

    def action_new(self) -> None:
        """Ask what a new sheet shall compare, then make it in the background."""
        if self._making is not None:
            self.app.notify("one sheet is being made already; x cancels it")
            return
        registry = self.review.registry

        def ask(found: tuple[list[str], list[str]]) -> None:
            policies, rewards = found
            if not policies:
                self.app.notify("base is the only policy: a round learns others (tab 3)")
            elif not rewards:
                self.app.notify("no reward to score the replies with: a round learns one (tab 3)")
            else:
                self._ask_policy(policies, rewards[0])

        self.review.attempt(
            lambda: (
                [one.id for one in registry.list("policy")],
                [one.id for one in registry.list("reward")],
            ),
            ask,
        )

    def _ask_policy(self, policies: Sequence[str], reward: str) -> None:
        def one(first: str | None) -> None:
            if first is None:
                return
            others = [BASE, *(p for p in policies if p != first)]
            self.app.push_screen(
                Choose(f"{first} beside", [(p, p) for p in others]),
                lambda second: self._ask_how_many((first, second), reward) if second else None,
            )

        self.app.push_screen(Choose("Rate which policy?", [(p, p) for p in policies]), one)

    def _ask_how_many(self, policies: tuple[str, str], reward: str) -> None:
        def answered(text: str | None) -> None:
            if text is not None:
                self._make(policies, reward, int(text))

        self.app.push_screen(
            AskText(
                "On how many held-out histories?",
                str(HISTORIES),
                "Each has eight questions. The sheet holds people's words: it lies beside the "
                "store and should go with them.",
                lambda text: None if text.isdecimal() and int(text) >= 2 else "2 or more.",
            ),
            answered,
        )

    def _make(self, policies: tuple[str, str], reward: str, histories: int) -> None:
        now = datetime.now(UTC)
        name = f"{now:%Y%m%dT%H%M%S}"
        folder = self.root / name
        arguments = [
            "learn", "compare", "--policies", ",".join(policies), "--data", "store",
            "--reward", reward, "--histories", str(histories),
            "--sheet-out", str(folder), "--out", str(folder / "compared"), "--json",
            *self.review.arguments,
        ]  # fmt: skip
        self._making = (name, now)
        self._head()
        self.refresh_bindings()

        def ended(error: GeliError | None) -> None:
            self._making = None
            self.refresh_bindings()
            if isinstance(error, Cancelled):
                self.app.notify(f"{name} was cancelled")
            elif error is not None:
                self.review.fail(error)
            self._stamps = None
            self.reload()

        commands = self.review.commands
        self.review.attempt(lambda: commands.json(arguments, "sheet"), lambda _: ended(None), ended)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Only what runs can be cancelled."""
        return True if action != "cancel" or self._making is not None else None

    def action_cancel(self) -> None:
        """End the making of a sheet."""

        def answered(yes: bool | None) -> None:
            if yes:
                self.review.commands.end("sheet")

        self.app.push_screen(Confirm("Cancel the sheet that is being made?"), answered)


def _line(one: Listed, rater: str) -> Text:
    out = Text(no_wrap=True, overflow="ellipsis")
    out.append(f"{plain(one.folder.name)}\n", "bold")
    if one.sheet is None:
        return out.append(f"   ! {plain(one.problem)}")
    replies = len(one.sheet.histories[0].items)
    n = len(one.sheet.histories)
    out.append(f"   {n} {'history' if n == 1 else 'histories'}, {replies} replies each")
    every = dict(one.raters)
    if rater not in one.unreadable:
        every.setdefault(rater, {})
    for name, said in every.items():
        done = sum(one.sheet.answered(said))
        sign = " ✓" if done == one.sheet.whole else ""
        out.append(f"  ·  {name} {done} of {one.sheet.whole}{sign}")
    for name, why in one.unreadable.items():
        out.append(f"\n   ! {name}: {plain(why)}")
    return out


SCREEN = Blind
