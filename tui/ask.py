"""Small windows that ask one thing. Escape always means: leave it as it is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Generic, TypeVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Button, Input, OptionList, Static
from textual.widgets.option_list import Option

Value = TypeVar("Value")


class Confirm(ModalScreen[bool]):
    """Yes or no, with what will change named."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"),
        Binding("n,escape", "answer(False)", "No"),
    ]

    def __init__(self, question: str, detail: Sequence[str] = (), *, danger: bool = False) -> None:
        super().__init__()
        self._question = question
        self._detail = "\n".join(detail)
        self._danger = danger

    def compose(self) -> ComposeResult:
        """The question, what it means, two buttons."""
        with Vertical(classes="window"):
            yield Static(self._question, classes="question", markup=False)
            if self._detail:
                with VerticalScroll(classes="detail"):
                    yield Static(self._detail, markup=False)
            with Horizontal(classes="buttons"):
                yield Button("Yes (y)", id="yes", variant="error" if self._danger else "primary")
                yield Button("No (n)", id="no")

    def on_mount(self) -> None:
        """No is what Enter means where something would be lost."""
        self.query_one("#no" if self._danger else "#yes", Button).focus()

    def on_button_pressed(self, event: Button.Pressed) -> None:
        """A button was pressed."""
        self.dismiss(event.button.id == "yes")

    def action_answer(self, yes: bool) -> None:
        """A key was pressed."""
        self.dismiss(yes)


class AskText(ModalScreen[str | None]):
    """One line of text."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Leave it")]

    def __init__(
        self,
        question: str,
        value: str = "",
        hint: str = "",
        check: Callable[[str], str | None] = lambda text: None,
        *,
        secret: bool = False,
    ) -> None:
        """`check` says what is wrong with a text, or None."""
        super().__init__()
        self._question, self._value, self._hint = question, value, hint
        self._check = check
        self._secret = secret

    def compose(self) -> ComposeResult:
        """The question, the line, what is wrong with it."""
        with Vertical(classes="window"):
            yield Static(self._question, classes="question", markup=False)
            yield Input(self._value, password=self._secret)
            yield Static(self._hint, classes="hint", markup=False)
            yield Static("Enter: keep · Esc: leave it as it is", classes="hint", markup=False)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Take the text, or say what is wrong with it."""
        wrong = self._check(event.value)
        if wrong is None:
            self.dismiss(event.value)
        else:
            hint = self.query(".hint").first(Static)
            hint.update(wrong)
            hint.add_class("wrong")

    def action_leave(self) -> None:
        """No answer."""
        self.dismiss(None)


class Choose(ModalScreen[Value | None], Generic[Value]):
    """One of a list."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Leave it")]

    def __init__(self, question: str, options: Sequence[tuple[str, Value]], at: int = 0) -> None:
        """`options`: what is shown, and what it stands for."""
        super().__init__()
        self._question, self._options, self._at = question, options, at

    def compose(self) -> ComposeResult:
        """The question and the list."""
        with Vertical(classes="window"):
            yield Static(self._question, classes="question", markup=False)
            yield OptionList(*(Option(name) for name, _ in self._options), markup=False)

    def on_mount(self) -> None:
        """Begin at the one that holds now."""
        self.query_one(OptionList).highlighted = self._at

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """One was chosen."""
        self.dismiss(self._options[event.option_index][1])

    def action_leave(self) -> None:
        """No answer."""
        self.dismiss(None)


class Show(ModalScreen[None]):
    """A text to read; any of the keys that close things closes it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,enter,question_mark", "leave", "Close")
    ]

    def __init__(self, title: str, text: str) -> None:
        super().__init__()
        self._title, self._text = title, text

    def compose(self) -> ComposeResult:
        """The title and the text."""
        with Vertical(classes="window wide"):
            yield Static(self._title, classes="question", markup=False)
            with VerticalScroll(classes="detail"):
                yield Static(self._text, markup=False)
            yield Static("Esc: close", classes="hint", markup=False)

    def on_mount(self) -> None:
        """Let the arrow keys scroll."""
        self.query_one(VerticalScroll).focus()

    def action_leave(self) -> None:
        """Close it."""
        self.dismiss(None)


class TooSmall(ModalScreen[None]):
    """Covers everything while the terminal is too small to be read."""

    def __init__(self, wanted: tuple[int, int]) -> None:
        super().__init__()
        self._wanted = wanted

    def compose(self) -> ComposeResult:
        """What is needed."""
        yield Static(id="too-small", markup=False)

    def on_resize(self, event: events.Resize) -> None:
        """Say what it has now."""
        width, height = event.size
        self.query_one(Static).update(
            f"geli review needs {self._wanted[0]} × {self._wanted[1]} characters;\n"
            f"this terminal has {width} × {height}. Make it larger, or press ctrl+q."
        )
