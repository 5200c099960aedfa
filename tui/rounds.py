"""Rounds: from rated sessions to the next policy, run in the background and watched from here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from textual.binding import Binding, BindingType
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from agent.errors import GeliError
from learning.rounds import Round
from tui import promoting, round_state, round_view
from tui.app import Review
from tui.ask import Confirm, Show
from tui.jobs import Job, Jobs
from tui.panes import Panes
from tui.round_state import TITLE, Rounds, Seen
from tui.words import counted, plain

COMMAND = ("learn", "round", "--promote", "ask")
EMPTY = """\
No round yet.

A round learns a reward from the rated sessions and a policy from the reward, holds both \
against gates, and makes the policy the candidate; nothing speaks before you promote it. \
It needs {least} rated sessions that were given to learning.

n     says what a round would do, then begins one
"""
STARTING = """\
A round was begun and reads the sessions; it is listed here as soon as it has a folder.

l shows what it printed, x cancels it.
"""


class RoundList(OptionList):
    """The rounds; a click only moves the cursor."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter", "screen.read", "Read")]


class RoundsTab(Panes):
    """All rounds, newest first, the one at the cursor beside or below."""

    mode = "rounds"
    signs = """
▶ runs now   ■ stopped or cancelled: g goes on with it   ✗ a gate failed   ! cannot be read
✓ done, passed, or the candidate   ● its policy speaks   · not reached
█░ updates of the policy that are done
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("n", "new", "New round"),
        Binding("g", "go_on", "Go on"),
        Binding("x", "cancel", "Cancel"),
        Binding("p", "promote", "Promote"),
        Binding("l", "log", "Log"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self.rounds = Rounds()
        self._promoted: str | None = None
        self._log: Sequence[str] = ()
        self._loaded = False
        self._asking = False

    def content(self) -> Iterable[Widget]:
        """The list, the page, and what to do where there is no round."""
        data = self.review.registry.root.parent
        self.jobs, self.folder = Jobs(data / "jobs"), data / "rounds"
        self._list = RoundList(id="rounds", markup=False)
        yield Static(id="empty", markup=False)
        yield from self.panes(self._list)

    def on_mount(self) -> None:
        """Watch while something runs."""
        self._tick: Timer = self.set_interval(1.0, self.reload, pause=True)

    def on_screen_resume(self) -> None:
        """Read the rounds: they may have gone on while another tab was open."""
        self.reload()

    def on_review_changed(self, message: Review.Changed) -> None:
        """A round went on, or another policy speaks."""
        self.reload()

    # --- reading ------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read every round and its job; the cursor stays on its round."""
        registry = self.review.registry

        def read() -> tuple[Rounds, str | None]:
            return round_state.read(self.folder, self.jobs), registry.state.promoted

        def failed(error: GeliError) -> None:  # who speaks is not known; the rounds still are
            self.status(f"! {error}")
            self._show((round_state.read(self.folder, self.jobs), None))

        self.review.attempt(read, self._show, failed)

    def _show(self, found: tuple[Rounds, str | None]) -> None:
        before, at = self.rounds, self._current
        self.rounds, self._promoted = found
        ids = [one.id for one in self.rounds.seen]
        if ids != [one.id for one in before.seen]:
            begun = self._loaded and len(ids) > len(before.seen)
            self._list.clear_options()
            self._list.add_options([Option("", id=one) for one in ids])
            if ids:
                stays = at is not None and at.id in ids and not begun
                self._list.highlighted = ids.index(at.id) if stays and at is not None else 0
        self._watch(before.job, self.rounds.job)
        self._loaded = True
        self.draw()
        self.refresh_bindings()

    def _watch(self, before: Job | None, now: Job | None) -> None:
        """Look once a second while a round runs, and say when it has ended."""
        if now is not None:
            self._tick.resume()
            return
        self._tick.pause()
        if before is None:
            return
        one = next((s for s in self.rounds.seen if s.job and s.job.id == before.id), None)
        if one is not None:
            how = round_view.ending(one, self._promoted)
            promote = ": p promotes it" if one.round and one.round.ended == "candidate" else ""
            self.app.notify(f"round {one.id}: {how}{promote}", timeout=12, markup=False)
        else:
            said = self.jobs.tail(before, 1)
            text = plain(said[-1]) if said else "see the log (l)"
            self.app.notify(
                text, title="the round did not begin", severity="error", timeout=12, markup=False
            )

    @property
    def _current(self) -> Seen | None:
        at = self._list.highlighted
        return self.rounds.seen[at] if at is not None and at < len(self.rounds.seen) else None

    @property
    def _job(self) -> Job | None:
        """The job whose log is wanted: of the round at the cursor, or the one without a round."""
        one, rounds = self._current, self.rounds
        shown = {seen.job.id for seen in rounds.seen if seen.job is not None}
        loose = rounds.last if rounds.last is not None and rounds.last.id not in shown else None
        if rounds.job is not None and rounds.job == loose:
            return loose
        return one.job if one is not None else loose

    def draw(self) -> None:
        """Write the page for the round at the cursor."""
        rounds, one = self.rounds, self._current
        nothing = not rounds.seen
        self.query_one(".panes").display = not nothing
        if not nothing and self.focused is None:
            self._list.focus()
        empty = self.query_one("#empty", Static)
        empty.display = nothing
        least = self.review.config.gates.min_sessions
        empty.update(STARTING if rounds.job is not None else EMPTY.format(least=least))
        room = self._list.scrollable_content_region.width
        for i, seen in enumerate(rounds.seen[: self._list.option_count]):
            text = round_view.line(seen, self._promoted, seen is one, room)
            self._list.replace_option_prompt_at_index(i, text)
        if one is not None:
            self._log = self.jobs.tail(one.job) if one.job is not None else ()
            text = round_view.page(one, self._log, self._promoted, self.width)
            self.write(one.id, text)
        parts = [counted(len(rounds.seen), "round")]
        if self._asking:
            parts.append("asking what a round would do …")
        elif rounds.job is not None:
            running = next((seen for seen in rounds.seen if seen.runs), None)
            parts.append(f"▶ {running.id} runs" if running else "▶ a round is starting")
        elif rounds.unfinished is not None:
            parts.append(f"{rounds.unfinished.id} is unfinished: g goes on with it")
        if self._loaded:
            self.status(" · ".join(parts))
        self.tell(f"speaks: {self._promoted or 'base'}")

    # --- what happens -------------------------------------------------------------------------

    def on_option_list_option_highlighted(self) -> None:
        """The cursor is on another round."""
        self.draw()
        self.refresh_bindings()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Keys that do nothing now are shown dim."""
        if not hasattr(self, "_list"):
            return True
        one, running = self._current, self.rounds.job is not None
        able = {
            "new": not running,
            "go_on": not running and self.rounds.unfinished is not None,
            "cancel": running,
            "promote": one is not None and one.round is not None and one.round.policy is not None,
            "log": self._job is not None,
            "read": one is not None,
        }
        return True if able.get(action, True) else None

    # --- keys ---------------------------------------------------------------------------------

    def action_new(self) -> None:
        """Ask what a round would do, then whether to begin it."""
        if self._asking:
            return
        review, self._asking = self.review, True
        self.draw()
        arguments = ["learn", "round", "--dry-run", "--new", "--json", *review.arguments]

        def planned(steps: Any) -> None:
            self._asking = False
            self.draw()
            unfinished = self.rounds.unfinished
            lines = [str(step) for step in steps]
            lines += ["", "It runs in the background, many minutes, also when this is closed."]
            if unfinished is not None:
                lines.append(f"! Round {unfinished.id} is unfinished and stays so (g goes on).")
            self.app.push_screen(Confirm("Begin a new round?", lines), answered)

        def answered(yes: bool | None) -> None:
            if yes:
                self._start("--new")

        def failed(error: GeliError) -> None:
            self._asking = False
            self.draw()
            review.fail(error)

        review.attempt(lambda: review.commands.json(arguments), planned, failed)

    def action_go_on(self) -> None:
        """Go on with the newest round that has not ended."""
        one = self.rounds.unfinished
        if one is None:
            return
        lines = [f"It is at: {round_view.step(_known(one))}. What is done is not done again."]
        if one.strange_s is not None:
            lines.append(round_view.strange(one))

        def answered(yes: bool | None) -> None:
            if yes:
                self._start()

        self.app.push_screen(Confirm(f"Go on with round {one.id}?", lines), answered)

    def _start(self, *more: str) -> None:
        """Start the job; only one of them runs at a time."""

        def start() -> Job | None:
            if self.jobs.running(TITLE) is not None:
                return None
            return self.jobs.start(TITLE, [*COMMAND, *more, *self.review.arguments])

        def told(job: Job | None) -> None:
            if job is None:
                self.app.notify("a round runs already, and only one can at a time; x cancels it")
            self.reload()

        self.review.attempt(start, told)

    def action_cancel(self) -> None:
        """Ask, then end the round that runs."""
        job = self.rounds.job
        if job is None:
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self.jobs.cancel(job)
                self.reload()

        self.app.push_screen(
            Confirm(
                "Cancel the round that runs?",
                [
                    "What it did up to its last checkpoint stays; g goes on from there.",
                    "The policy that speaks now goes on speaking.",
                ],
            ),
            answered,
        )

    def action_promote(self) -> None:
        """Let the policy of the round at the cursor speak."""
        one, review = self._current, self.review
        policy = one.round.policy if one is not None and one.round is not None else None
        if policy is None:
            return
        review.attempt(
            lambda: review.registry.get(policy),
            lambda entry: promoting.promote(review, entry, self.reload),
        )

    def action_log(self) -> None:
        """All that the job printed."""
        job = self._job
        if job is None:
            return
        text = "\n".join(self.jobs.tail(job, 5000)) or "It has printed nothing yet."
        self.app.push_screen(Show(f"Log of geli {' '.join(job.arguments)}", text))


def _known(one: Seen) -> Round:
    assert one.round is not None
    return one.round


SCREEN = RoundsTab
