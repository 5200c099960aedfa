"""How far the raters of a sheet agree; and, once one asks for it, which policy got what."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from rich.text import Text
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from learning.compare.questions import QUESTIONS
from tui.app import Review
from tui.ask import AskText, Confirm
from tui.rating_results import Agreement, Listed, agreement, look, note_unblinding, result
from tui.rating_sheet import Answers, as_csv, read
from tui.tab import Tab
from tui.words import NONE, counted, number

if TYPE_CHECKING:
    from learning.compare.table import Comparison


class AgreementScreen(Tab):
    """Raters, alpha per question, and the result after a yes."""

    mode = "blind"
    signs = """
alpha   Krippendorff's, nominal: 1 the raters agree, 0 no better than chance
[low, high]   95 % interval, drawn by dialogue
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("u", "unblind", "Unblind"),
        Binding("e", "export", "Export mine"),
        Binding("escape", "back", "Back"),
    ]

    def __init__(self, folder: Path, rater: str) -> None:
        super().__init__()
        self.folder, self.rater = folder, rater
        self._found: tuple[Listed, list[Agreement]] | None = None
        self._result: Comparison | None = None

    def content(self) -> Iterable[Widget]:
        """The page."""
        yield VerticalScroll(Static("reading …", id="text", markup=False), id="page")
        yield Static(id="status", markup=False)

    def on_mount(self) -> None:
        """Let the arrow keys scroll."""
        self.query_one("#page").focus()
        self.tell(self.folder.name)

    def on_screen_resume(self) -> None:
        """Count, also anew when one comes back to it."""
        self.reload()

    def on_review_changed(self, message: Review.Changed) -> None:
        """Others may have rated meanwhile."""
        self.reload()

    def reload(self) -> None:
        """Read everybody's answers."""

        def read_all() -> tuple[Listed, list[Agreement]]:
            found = look(self.folder)
            said = found.raters.values()
            return found, agreement(found.sheet, said) if found.sheet is not None else []

        self.review.attempt(read_all, self._show)

    def _show(self, found: tuple[Listed, list[Agreement]]) -> None:
        self._found = found
        self.draw()

    def draw(self) -> None:
        """Write the page."""
        if self._found is None or not self.is_attached:
            return
        found, agreed = self._found
        text = page(found, agreed)
        if self._result is not None:
            text.append_text(told(self._result, self.size.width))
        elif found.sheet is not None:
            text.append("\nu shows which policy got what, and ends being blind.\n", "dim")
        self.query_one("#text", Static).update(text)
        raters = counted(sum(bool(said) for said in found.raters.values()), "rater")
        self.query_one("#status", Static).update(f"{raters} · you are {self.rater}")

    # --- keys ---------------------------------------------------------------------------------

    def action_unblind(self) -> None:
        """Ask, then show which policy got what."""
        if self._found is None or self._found[0].sheet is None or self._result is not None:
            return
        found = self._found[0]
        assert found.sheet is not None
        sheet = found.sheet
        mine = sum(sheet.answered(found.raters.get(self.rater, {})))
        used = [name for name, said in found.raters.items() if said]
        if not used:
            self.app.notify("nobody has answered anything yet")
            return

        def work() -> Comparison:
            files = [self.folder / "answers" / f"{name}.csv" for name in used]
            made = result(self.folder, files)
            note_unblinding(self.folder, self.rater, mine)
            return made

        def taken(made: Comparison) -> None:
            self._result = made
            self.reload()

        def answered(yes: bool | None) -> None:
            if yes:
                self.review.attempt(work, taken)

        self.app.push_screen(
            Confirm(
                "Show which policy got what?",
                [
                    "You are not blind any more then: what you rate of this sheet afterwards does "
                    "not count as blind.",
                    f"You, {self.rater}, have answered {mine} of {sheet.whole} questions. That you "
                    "looked is noted beside the sheet.",
                ],
                danger=mine < sheet.whole,
            ),
            answered,
        )

    def action_export(self) -> None:
        """Write one's answers to a file."""
        export(self.review, self.folder, self.rater)

    def action_back(self) -> None:
        """Back to where one came from."""
        self.dismiss()


def export(app: Review, folder: Path, rater: str) -> None:
    """Ask for a file, then write a rater's answers to it, with the rater's id in it."""

    def answered(text: str | None) -> None:
        if text is None:
            return
        path = Path(text.strip()).expanduser()

        def write() -> int:
            from learning.compare.files import write_text

            answers = Answers(read(folder), rater)
            write_text(path, as_csv(answers.sheet, answers.said, rater))
            return sum(answers.answered)

        app.attempt(
            write, lambda n: app.notify(f"{counted(n, 'answer')} written to {path}", markup=False)
        )

    app.push_screen(
        AskText(
            f"Export the answers of {rater} to",
            f"{folder.name}-{rater}.csv",
            "CSV with the conversations in it; geli learn compare --sheet-in reads it.",
            lambda text: None if text.strip() else "Name a file.",
        ),
        answered,
    )


# --- as text ------------------------------------------------------------------------------------


def page(found: Listed, agreed: list[Agreement]) -> Text:
    """The raters and how far they agree."""
    out = Text()
    if found.sheet is None:
        return out.append(f"! {found.problem}\n", "bold")
    sheet = found.sheet
    out.append("Raters\n", "bold")
    for name, said in found.raters.items():
        done = sum(sheet.answered(said))
        sign = "✓" if done == sheet.whole else " "
        seen = "  has seen the result" if name in found.unblinded else ""
        out.append(f"{sign} {name:<20} {done} of {sheet.whole} questions{seen}\n")
    for name, why in found.unreadable.items():
        out.append(f"! {name}: {why}\n", "bold")
    if not found.raters:
        out.append("  Nobody has rated yet.\n")
    out.append("\nAgreement, Krippendorff's alpha\n", "bold")
    if sum(bool(said) for said in found.raters.values()) < 2:
        out.append("  It takes two raters. A second one presses i for another name, or fills in\n")
        out.append("  a copy of sheet.csv and puts it into answers/ as NAME.csv.\n")
        return out
    out.append(f"  {'':<18} {'alpha':>6}   replies that two or more rated\n", "dim")
    for one in agreed:
        alpha = NONE if math.isnan(one.alpha) else f"{one.alpha:.2f}"
        out.append(f"  {one.column.replace('_', ' '):<18} {alpha:>6}   {one.shared}\n")
    if any(math.isnan(one.alpha) for one in agreed):
        out.append(f"  {NONE} too few answers, or all of them the same\n", "dim")
    return out


def told(made: Comparison, width: int) -> Text:
    """Which policy got what: one row a metric, one column a policy."""
    out = Text()
    out.append("\nResult, percent; more is better in every row\n", "bold")
    numbered = {row.policy: f"policy {n}" for n, row in enumerate(made.rows, start=1)}
    span = max(min((width - 18) // max(len(made.rows), 1) - 1, 20), 9)
    out.append(f"  {'':<13}", "dim")
    for name in numbered.values():
        out.append(f" {name:<{span}}", "dim")
    for question in QUESTIONS:
        out.append(f"\n  {question.title:<13}")
        for row in made.rows:
            cell = row.cells.get(question.metric)
            if cell is None or math.isnan(cell.value):
                text = NONE
            else:
                text = f"{100 * cell.value:.0f}"
                if not math.isnan(cell.low) and span >= 15:
                    text += f" [{100 * cell.low:.0f}, {100 * cell.high:.0f}]"
            out.append(f" {text:<{span}}")
    out.append("\n\n")
    first = made.rows[0].policy
    for row in made.rows:
        out.append(f"  {numbered[row.policy]}  {row.policy}\n")
        decided = [
            f"{q.title} {100 * d.value:+.0f}"
            for q in QUESTIONS
            if (d := row.differences.get(q.metric)) is not None and d.decided
        ]
        if row.policy != first:
            what = ", ".join(decided) or "nothing"
            out.append(f"            decided against {first}: {what}\n", "dim")
    n, dialogues = number(made.histories), number(made.dialogues)
    out.append(f"  {n} histories of {dialogues} dialogues; [95 % interval, by dialogue]\n", "dim")
    return out
