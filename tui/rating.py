"""Rating blind: one history, its replies, eight questions, one key a question."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from rich.style import Style
from rich.text import Text
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widget import Widget
from textual.widgets import Static

from agent.errors import GeliError
from learning.compare.questions import QUESTIONS
from tui.agreement import AgreementScreen
from tui.app import Review
from tui.rating_results import unblinded
from tui.rating_sheet import MOST, Answers, Cell
from tui.tab import Tab
from tui.words import plain

LETTERS = "abcdefgh"[:MOST]
WIDE = 116
"""Columns from which every question stands in full."""
NAME = 17
WORD = {True: "yes", False: "no ", None: "–  "}
MEANING = {
    "connection": "yes: an emotional connection",
    "positivity": "yes: leaves good feelings",
    "social": "yes: grasps the social situation",
    "no_further_talk": "yes: would NOT talk to it again",
    "interesting": "yes: interesting; no: dull",
    "reuse": "yes: would choose to talk to it again",
    "not_specific": "yes: NOT about what was said",
    "no_sense": "yes: makes NO sense here",
}
"""A question's column and what its answers mean, in a few words."""


class Rating(Tab):
    """One history after the other; every answer is on the disk before the cursor moves on."""

    mode = "blind"
    signs = """
› the question that the next key answers   – no answer
Of two replies, a says yes for A and no for B. Of more, a letter turns that reply's yes on and off,
and Enter says no for the rest. A reply may get yes from = too: several may get the same answer.
0 or Backspace leaves a question open: you cannot say.
A capital letter, or a click on an answer, changes that one: yes, no, none.
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        *(Binding(key, f"give('{key}')", f"yes {key.upper()}") for key in LETTERS),
        Binding("equals_sign", "all(True)", "all", key_display="="),
        Binding("minus", "all(False)", "none", key_display="-"),
        Binding("enter", "rest", "no for the rest"),
        Binding("0,backspace", "skip", "cannot say"),
        Binding("A", "one('a')", "one alone", key_display="A…"),
        *(Binding(key.upper(), f"one('{key}')", "", show=False) for key in LETTERS[1:]),
        Binding("down", "step(1)", "Question", key_display="↑↓"),
        Binding("up", "step(-1)", "Question before", show=False),
        Binding("right", "history(1)", "History", key_display="←→"),
        Binding("left", "history(-1)", "History before", show=False),
        Binding("n", "next", "Next open"),
        Binding("pageup", "scroll(-1)", "Earlier turns", key_display="PgUp"),
        Binding("pagedown", "scroll(1)", "Later turns", show=False),
        Binding("r", "agreement", "Agreement"),
        Binding("escape", "back", "List"),
    ]

    def __init__(self, answers: Answers) -> None:
        super().__init__()
        self.answers, self.sheet = answers, answers.sheet
        self.at = answers.next
        self._drawn: int | None = None
        self._seen: tuple[str, ...] = ()

    def content(self) -> Iterable[Widget]:
        """The conversation with the replies, the questions, how far one is."""
        self._reading = VerticalScroll(
            Static(id="history", markup=False), Static(id="replies", markup=False), id="reading"
        )
        self._reading.can_focus = False
        yield self._reading
        yield Static(id="asked", markup=False)
        yield Static(id="status", markup=False)

    def on_screen_resume(self) -> None:
        """Show where one is."""
        self._seen = unblinded(self.sheet.folder)
        self.draw()

    def on_resize(self) -> None:
        """Draw for the new size."""
        self._drawn = None
        self.call_after_refresh(self.draw)

    # --- where one is -------------------------------------------------------------------------

    @property
    def history(self) -> int:
        """Index of the history."""
        return self.at // len(QUESTIONS)

    @property
    def question(self) -> int:
        """Index of the question."""
        return self.at % len(QUESTIONS)

    @property
    def cells(self) -> list[Cell]:
        """The cells at the cursor, one a reply."""
        return self.sheet.cells(self.history, self.question)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Only the letters that are replies here; Enter where there are more than two."""
        replies = len(self.sheet.histories[self.history].items)
        if action in ("give", "one"):
            return LETTERS.index(str(parameters[0])) < replies
        return replies > 2 if action == "rest" else True

    # --- drawing ------------------------------------------------------------------------------

    def draw(self) -> None:
        """The history at the cursor, its questions, how far one is."""
        one = self.sheet.histories[self.history]
        if self._drawn != self.history:
            self._drawn = self.history
            self.query_one("#history", Static).update(_conversation(one.text))
            self.query_one("#replies", Static).update(_replies(one.replies))
            self.refresh_bindings()
            self.call_after_refresh(self._to_the_replies)
        self.query_one("#asked", Static).update(self._questions(self.size.width))
        self._head()

    def _to_the_replies(self) -> None:
        """The end of the conversation, unless the replies alone need all the room."""
        replies = self.query_one("#replies")
        if replies.size.height > self._reading.size.height:
            self._reading.scroll_to_widget(replies, top=True, animate=False)
        else:
            self._reading.scroll_end(animate=False)
        self.call_after_refresh(self._head)

    def _head(self) -> None:
        whole, answered = self.sheet.whole, sum(self.answers.answered)
        histories = len(self.sheet.histories)
        self.tell(f"{self.history + 1} of {histories}")
        parts = [
            f"history {self.history + 1} of {histories}, {answered} of {whole} answers",
            f"rater {self.answers.rater}",
        ]
        if self.answers.rater in self._seen:
            parts.append("! not blind any more")
        if self._reading.scroll_offset.y > 0:
            parts.append("↑ earlier turns: PgUp")
        elif self._reading.max_scroll_y > 0:
            parts.append("↓ more: PgDn")
        self.query_one("#status", Static).update(" · ".join(parts))

    def _questions(self, width: int) -> Text:
        out = Text(no_wrap=True, overflow="ellipsis")
        letters = LETTERS[: len(self.cells)].upper()
        for n, question in enumerate(QUESTIONS):
            here = n == self.question
            style = Style(meta={"@click": f"screen.to({n})"}, bold=here, reverse=here)
            name = question.column.replace("_", " ")
            out.append(f"{'›' if here else ' '} {name:<{NAME}}", style)
            cells = self.sheet.cells(self.history, n)
            for letter, cell in zip(letters, cells, strict=True):
                yes = self.answers.said.get(cell)
                click = Style(meta={"@click": f"screen.change({n}, '{letter.lower()}')"})
                out.append(f" {letter} ", click + Style(dim=True))
                out.append(f"{WORD[yes]} ", click + Style(bold=bool(yes), dim=yes is None))
            if width >= WIDE:
                out.append(f"  {question.text}", Style(dim=not here))
            elif len(letters) <= 3:
                out.append(f"  {MEANING[question.column]}", Style(dim=not here))
            out.append("\n")
        out.rstrip()
        if width < WIDE:
            asked = Text(QUESTIONS[self.question].text, style="bold")
            return Text("\n").join([asked, out])
        return out

    # --- answering ----------------------------------------------------------------------------

    def _give(self, answers: dict[Cell, bool | None], *, then_on: bool = True) -> None:
        """Keep answers, and go on; a mistake leaves everything as it was."""
        try:
            self.answers.give(answers)
        except GeliError as error:
            self.review.fail(error)
            return
        if then_on:
            self._on()
        self.draw()

    def _on(self) -> None:
        if self.at + 1 < self.sheet.whole:
            self.at += 1
            return
        missing = self.answers.answered.count(False)
        if missing:
            open_ones = "1 question is" if missing == 1 else f"{missing} questions are"
            self.app.notify(f"this was the last one; {open_ones} still open (n goes there)")
        else:
            self.app.notify("every question is answered")
            self.action_agreement()

    def action_give(self, letter: str) -> None:
        """Yes for one reply: of two it means no for the other, of more it is turned on and off."""
        cells = self.cells
        wanted = cells[LETTERS.index(letter)]
        if len(cells) > 2:
            self._give({wanted: not self.answers.said.get(wanted, False)}, then_on=False)
        else:
            self._give({cell: cell == wanted for cell in cells})

    def action_all(self, yes: bool) -> None:
        """The same answer for every reply."""
        self._give(dict.fromkeys(self.cells, yes))

    def action_rest(self) -> None:
        """No for the replies without an answer."""
        self._give({cell: False for cell in self.cells if cell not in self.answers.said})

    def action_skip(self) -> None:
        """Leave it open."""
        self._give(dict.fromkeys(self.cells))

    def action_one(self, letter: str) -> None:
        """Change one answer: yes, no, none."""
        self.action_change(self.question, letter)

    def action_change(self, question: int, letter: str) -> None:
        """Change the answer that was clicked."""
        self.at = self.history * len(QUESTIONS) + question
        cell = self.cells[LETTERS.index(letter)]
        after: dict[bool | None, bool | None] = {None: True, True: False, False: None}
        self._give({cell: after[self.answers.said.get(cell)]}, then_on=False)

    # --- moving -------------------------------------------------------------------------------

    def action_step(self, by: int) -> None:
        """One question down or up, over the borders of histories."""
        self.at = min(max(self.at + by, 0), self.sheet.whole - 1)
        self.draw()

    def action_to(self, question: int) -> None:
        """To the question that was clicked."""
        self.at = self.history * len(QUESTIONS) + question
        self.draw()

    def action_history(self, by: int) -> None:
        """To the first question of the history before or after."""
        to = min(max(self.history + by, 0), len(self.sheet.histories) - 1)
        self.at = to * len(QUESTIONS)
        self.draw()

    def action_next(self) -> None:
        """To the next question without an answer, from the top again after the last."""
        done = self.answers.answered
        order = [*range(self.at + 1, len(done)), *range(self.at + 1)]
        at = next((i for i in order if not done[i]), None)
        if at is None:
            self.app.notify("every question is answered")
            return
        self.at = at
        self.draw()

    def action_scroll(self, by: int) -> None:
        """Earlier or later turns."""
        height = max(self._reading.size.height - 1, 1)
        self._reading.scroll_relative(y=by * height, animate=False)
        self.call_after_refresh(self._head)

    def action_agreement(self) -> None:
        """How far the raters agree."""
        self.app.push_screen(AgreementScreen(self.sheet.folder, self.answers.rater))

    def on_review_changed(self, message: Review.Changed) -> None:
        """Nothing of the store is shown here."""

    def action_back(self) -> None:
        """Back to the list."""
        self.dismiss()


def _conversation(history: str) -> Text:
    out = Text()
    for line in history.splitlines() or ["(nothing was said before)"]:
        who, colon, said = line.partition(": ")
        named = bool(colon) and who in ("User", "AI")
        out.append(f"{who:>4}  " if named else "      ", "dim")
        out.append(f"{plain(said if named else line)}\n")
    return out


def _replies(replies: Iterable[str]) -> Text:
    out = Text()
    for letter, reply in zip(LETTERS.upper(), replies, strict=False):
        out.append(f"   {letter}  ", "bold")
        out.append(f"{plain(reply.strip()) or '(says nothing)'}\n")
    out.rstrip()
    return out
