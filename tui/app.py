"""The application: its tabs, the pulse of the store, and work that must not hold up the keys."""

from __future__ import annotations

import getpass
import importlib
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from textual import events, work
from textual.app import App, SystemCommand
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.screen import Screen

from agent.config import Config
from agent.errors import GeliError
from agent.store import Store
from learning.registry import Registry
from tui.ask import Show, TooSmall
from tui.jobs import Commands
from tui.keys import TABS

Result = TypeVar("Result")
SMALLEST = (60, 16)
"""Columns and rows below which nothing can be read."""
PULSE_S = 2.0
"""How often the store is asked whether something changed."""


def _opener(mode: str) -> Callable[[], Screen[Any]]:
    """Makes a tab's screen; its module is loaded when it is opened."""

    def open_screen() -> Screen[Any]:
        screen: Screen[Any] = importlib.import_module(f"tui.{mode}").SCREEN()
        return screen

    return open_screen


class Review(App[None]):
    """`geli review`."""

    CSS_PATH = "review.tcss"
    TITLE = "geli review"
    MODES = {mode: _opener(mode) for mode in TABS}
    DEFAULT_MODE = "sessions"
    BINDINGS: ClassVar[list[BindingType]] = [
        *(
            Binding(str(n), f"switch_mode('{mode}')", title, show=False)
            for n, (mode, title) in enumerate(TABS.items(), start=1)
        ),
        Binding("question_mark", "help", "Help"),
        Binding("ctrl+p", "command_palette", "Commands"),
        Binding("T", "theme", "Light/dark"),
        Binding("ctrl+q", "quit", "Quit"),
    ]

    class Changed(Message):
        """The store or the registry holds something else than before."""

    def __init__(
        self,
        store: Store,
        registry: Registry,
        config: Config,
        arguments: Sequence[str] = (),
        by: str | None = None,
        first: str | None = None,
    ) -> None:
        """Everything a screen needs.

        Args:
            store: the sessions.
            registry: rewards and policies.
            config: the configuration.
            arguments: `--config` and `--set` as given, for commands that are run.
            by: who corrects; default: the user of this terminal.
            first: a session to open at once.
        """
        super().__init__()
        self.store, self.registry, self.config = store, registry, config
        self.arguments = tuple(arguments)
        self.by = by or getpass.getuser()
        self.first = first
        self.commands = Commands()
        self.unrolled: dict[tuple[str, str], dict[int, float]] = {}
        """Reward and session to the reward of each turn, mean removed."""
        self._pulse: tuple[Any, ...] | None = None
        self._lost = False

    # --- screens ------------------------------------------------------------------------------

    def on_mount(self) -> None:
        """Begin to watch the store."""
        self.set_interval(PULSE_S, self._beat)
        if self.first is not None:
            from tui.session import SessionScreen

            self.push_screen(SessionScreen(self.first, [self.first]))

    def on_unmount(self) -> None:
        """Short commands end with the review; jobs go on."""
        self.commands.end()

    def on_resize(self, event: events.Resize) -> None:
        """Cover everything while the terminal is too small."""
        small = event.size.width < SMALLEST[0] or event.size.height < SMALLEST[1]
        covered = isinstance(self.screen, TooSmall)
        if small and not covered:
            self.push_screen(TooSmall(SMALLEST))
        elif covered and not small:
            self.pop_screen()

    def action_theme(self) -> None:
        """Light or dark."""
        dark = self.current_theme.dark
        self.theme = "textual-light" if dark else "textual-dark"

    def action_help(self) -> None:
        """All keys of the screen, and what its signs mean."""
        from tui.help import help_of

        self.push_screen(Show("Help", help_of(self.screen)))

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """The command palette: the tabs, and every key of the screen by its name."""
        for mode, title in TABS.items():
            yield SystemCommand(f"Go to {title}", f"tab {title}", partial(self.switch_mode, mode))
        for active in screen.active_bindings.values():
            binding = active.binding
            if binding.show and active.enabled and binding.action != "command_palette":
                key = self.get_key_display(binding)
                run = partial(self.simulate_key, binding.key)
                yield SystemCommand(binding.description, f"key {key}", run)

    # --- work in the background ---------------------------------------------------------------

    def attempt(
        self,
        function: Callable[[], Result],
        then: Callable[[Result], object] | None = None,
        failed: Callable[[GeliError], object] | None = None,
    ) -> None:
        """Run something in a thread; a mistake is shown, and nothing else happens.

        Args:
            function: what to do.
            then: called with its result.
            failed: called instead of showing the mistake.
        """
        self._attempt(function, then, failed or self.fail)

    @work(thread=True, exit_on_error=False, group="attempts")
    def _attempt(
        self,
        function: Callable[[], Result],
        then: Callable[[Result], object] | None,
        failed: Callable[[GeliError], object],
    ) -> None:
        try:
            result = function()
        except GeliError as error:
            self.call_from_thread(failed, error)
            return
        if then is not None:
            self.call_from_thread(then, result)

    def fail(self, error: GeliError) -> None:
        """Say what is wrong and what to do about it."""
        self.notify(error.way_out or " ", title=error.problem, severity="error", markup=False)

    # --- the store underneath -----------------------------------------------------------------

    @work(thread=True, exclusive=True, exit_on_error=False, group="pulse")
    def _beat(self) -> None:
        try:
            now = (*self.store.pulse(), *_stamps(self.registry.root, self.registry.root.parent))
        except GeliError as error:
            if not self._lost:
                self._lost = True
                self.call_from_thread(self.fail, error)
            return
        if self._lost:
            self._lost = False
            self.call_from_thread(self.notify, "the store answers again")
        before, self._pulse = self._pulse, now
        if before != now:  # also at first: something may have come since the list was read
            self.call_from_thread(self._changed)

    def _changed(self) -> None:
        for screen in self.screen_stack:
            screen.post_message(self.Changed())


def _stamps(registry: Path, data: Path) -> tuple[int, ...]:
    """Times of what changes when an entry is added, one is promoted, or a round goes on."""
    places = [registry, registry / "policies", registry / "rewards", registry / "marks"]
    places += [*data.glob("rounds/*/round.json"), *data.glob("jobs/*.json")]
    out = []
    for place in places:
        try:
            out.append(place.stat().st_mtime_ns)
        except OSError:
            out.append(0)
    return tuple(out)
