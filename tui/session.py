"""One session: its conversation, labels and rewards, and the corrections of a person."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from rich.text import Text
from textual import work
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.widget import Widget
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from agent import corrections
from agent.errors import GeliError
from agent.records import Consent, Label, Session, Turn
from tui import correcting
from tui.app import Review
from tui.ask import Show
from tui.tab import Tab
from tui.transcript import block, details, head, strip
from tui.words import day_and_time

WIDE = 110
"""Columns from which the details of a turn stand beside the conversation."""
READS_ON_S = 0.7
"""A session that is looked at this long has its rewards computed."""


class SessionScreen(Tab):
    """The conversation of one session; the cursor is on a turn."""

    mode = "sessions"
    signs = """
▀ positive   ▄ not positive   · no face, or unknown   ✎ set by a person
A, u below the strip: the agent and the user speak; the turn at the cursor is in reverse
▇ reward of a turn, points above (right) or below (left) the mean of the call
⊘ the user talked over the agent; struck through is what was never heard
"""
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "back", "Back"),
        Binding("left_square_bracket", "beside(-1)", "Session before", show=False),
        Binding("right_square_bracket", "beside(1)", "Session after", show=False),
        Binding("j", "step(1)", "Down", show=False),
        Binding("k", "step(-1)", "Up", show=False),
        Binding("enter", "details", "Details"),
        Binding("i", "interruption", "Interruption"),
        Binding("h", "extreme(True)", "Highest"),
        Binding("l", "extreme(False)", "Lowest"),
        Binding("m", "unlabelled", "Unlabelled"),
        Binding("plus", "label(1)", "Positive"),
        Binding("minus", "label(0)", "Not positive"),
        Binding("0", "label(None)", "Unknown"),
        Binding("r", "rate", "Rate"),
        Binding("x", "exclude", "Exclude/include"),
        Binding("n", "note", "Note"),
        Binding("t", "tag", "Tag"),
        Binding("u", "undo", "Undo"),
        Binding("c", "changes", "Changes"),
        Binding("w", "rewards", "Rewards"),
        Binding("d", "delete", "Delete"),
    ]

    def __init__(self, session_id: str, beside: Sequence[str]) -> None:
        """`beside`: the sessions that `[` and `]` go through."""
        super().__init__()
        self.session_id = session_id
        self._beside = beside
        self._session: Session | None = None
        self._rewards: dict[int, float] = {}
        self._rewards_of: str | None = None

    def content(self) -> Iterable[Widget]:
        """Head, strip, conversation, details."""
        yield Static(id="head", markup=False)
        yield Static(id="strip", markup=False)
        turns = OptionList(id="turns", markup=False)
        with_details = VerticalScroll(Static(id="details", markup=False), id="beside")
        yield Horizontal(turns, with_details, id="both")
        yield Static(id="status", markup=False)

    def on_mount(self) -> None:
        """Read the session."""
        self.query_one(OptionList).focus()
        self.reload()

    # --- reading ------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read the session anew; the cursor stays on its turn."""
        session_id = self.session_id
        self.review.attempt(lambda: self.review.store.get(session_id), self._show, self._failed)

    def _failed(self, error: GeliError) -> None:
        self.query_one("#status", Static).update(f"! {error}")
        if self._session is None:
            self.query_one("#head", Static).update(
                f"{self.session_id} cannot be shown.\n{error}\n\nEsc goes back to the list."
            )

    def _show(self, session: Session) -> None:
        fresh = self._session is None or self._session.id != session.id
        self._session = session
        turns = self.query_one(OptionList)
        at = None if fresh else turns.highlighted
        turns.clear_options()
        turns.add_options([Option(block(t, self._rewards), id=str(t.index)) for t in session.turns])
        if session.turns:
            turns.highlighted = min(at or 0, len(session.turns) - 1)
        self.query_one("#head", Static).update(head(session))
        where = self._beside.index(session.id) + 1 if session.id in self._beside else 0
        self.tell(f"{where} of {len(self._beside)}  {session.id}" if where else session.id)
        self._draw()
        if fresh:  # from now on: the store may have taken its time
            self.set_timer(READS_ON_S, self._read_on)

    def _draw(self) -> None:
        session, turn = self._session, self._turn
        if session is None:
            return
        width = max(self.size.width - 2, 10)
        self.query_one("#strip", Static).update(strip(session.windows, session.turns, width, turn))
        self.query_one("#beside").display = self.size.width >= WIDE
        about = Text("Nobody said anything in this call.")
        if turn is not None:
            about = details(turn, session.windows, self._rewards.get(turn.index))
        self.query_one("#details", Static).update(about)

    @property
    def _turn(self) -> Turn | None:
        at = self.query_one(OptionList).highlighted
        if self._session is None or at is None or at >= len(self._session.turns):
            return None
        return self._session.turns[at]

    def on_resize(self) -> None:
        """Draw for the new size."""
        self.call_after_refresh(self._draw)

    def on_option_list_option_highlighted(self) -> None:
        """The cursor is on another turn."""
        self._draw()

    def on_option_list_option_selected(self) -> None:
        """A turn was chosen."""
        self.action_details()

    def on_review_changed(self, message: Review.Changed) -> None:
        """The store holds something else than before."""
        self.reload()

    # --- rewards (Fig. 2) ---------------------------------------------------------------------

    def _read_on(self) -> None:
        if self.is_current and not self._rewards:
            self._unroll(ask=False)

    def action_rewards(self) -> None:
        """Compute the reward of each turn now."""
        self._unroll(ask=True)

    def _unroll(self, ask: bool) -> None:
        session = self._session
        why = None
        rewards = self.review.registry.list("reward")
        if session is None:
            return
        if session.consent is not Consent.LEARN:
            why = "rewards are not computed: its person did not give it to learning"
        elif session.excluded:
            why = "rewards are not computed: it is excluded from learning"
        elif session.ended_at is None:
            why = "rewards come when the call is over"
        elif not rewards:
            why = "no reward function yet: 'geli learn reward', or a round (tab 3)"
        if why is not None:
            if ask:
                self.app.notify(why)
            return
        known = self.review.unrolled.get((rewards[0].id, session.id))
        if known is not None and not ask:
            self._take(session.id, rewards[0].id, known)
            return
        self.query_one("#status", Static).update(f"computing rewards with {rewards[0].id} …")
        self._run_unroll(session.id, rewards[0].id, session.source == "simulated")

    @work(thread=True, exclusive=True, exit_on_error=False, group="unroll")
    def _run_unroll(self, session_id: str, reward: str, simulated: bool) -> None:
        data = "store:simulated" if simulated else "store"
        arguments = ["learn", "unroll", session_id, "--reward", reward, "--data", data, "--json"]
        try:
            found = self.review.commands.json([*arguments, *self.review.arguments])
        except GeliError as error:
            self.app.call_from_thread(self._no_rewards, error)
            return
        rewards = {int(turn["turn"]): float(turn["centred"]) for turn in found["turns"]}
        self.app.call_from_thread(self._take, session_id, reward, rewards)

    def _no_rewards(self, error: GeliError) -> None:
        if self.is_attached:
            self.query_one("#status", Static).update(f"! no rewards: {error}")

    def _take(self, session_id: str, reward: str, found: dict[int, float]) -> None:
        self.review.unrolled[reward, session_id] = found
        if not self.is_attached or self._session is None or self._session.id != session_id:
            return
        spoken = [turn for turn in self._session.turns if turn.text.strip()]
        # Learning passes over turns without words, so its numbers count the others.
        self._rewards = {spoken[i].index: v for i, v in found.items() if i < len(spoken)}
        self._rewards_of = reward
        self.query_one("#status", Static).update(f"▇ reward by {reward}, mean removed, points")
        self._show(self._session)

    # --- moving -------------------------------------------------------------------------------

    def action_step(self, by: int) -> None:
        """One turn down or up."""
        turns = self.query_one(OptionList)
        if turns.option_count:
            turns.highlighted = min(max((turns.highlighted or 0) + by, 0), turns.option_count - 1)

    def _jump(self, wanted: Callable[[Turn], bool], nothing: str) -> None:
        """To the next turn that is wanted, from the top again after the last."""
        turns = self._session.turns if self._session else []
        at = self.query_one(OptionList).highlighted or 0
        for step in range(1, len(turns) + 1):
            i = (at + step) % len(turns)
            if wanted(turns[i]):
                self.query_one(OptionList).highlighted = i
                return
        self.app.notify(nothing)

    def action_interruption(self) -> None:
        """To the next turn that was interrupted."""
        self._jump(lambda turn: turn.interrupted, "nobody was interrupted")

    def action_unlabelled(self) -> None:
        """To the next agent turn without a label."""
        self._jump(
            lambda turn: turn.speaker == "agent" and turn.li is None, "every agent turn has a label"
        )

    def action_extreme(self, highest: bool) -> None:
        """To the turn of the highest or lowest reward."""
        if not self._rewards:
            self.action_rewards()
            return
        pick = max if highest else min
        best = pick(self._rewards, key=lambda i: self._rewards[i])
        self._jump(lambda turn: turn.index == best, "")

    def action_beside(self, by: int) -> None:
        """To the session before or after this one in the list."""
        if self.session_id not in self._beside:
            return
        at = self._beside.index(self.session_id) + by
        if 0 <= at < len(self._beside):
            self.session_id = self._beside[at]
            self._rewards = {}
            self.query_one("#status", Static).update("")
            self.reload()

    def action_back(self) -> None:
        """Back to the list."""
        self.dismiss()

    def action_details(self) -> None:
        """Everything about the turn, where it does not stand beside it anyway."""
        turn = self._turn
        if turn is not None and self._session is not None:
            text = details(turn, self._session.windows, self._rewards.get(turn.index))
            self.app.push_screen(Show(f"Turn {turn.index}", text.plain))

    # --- correcting ---------------------------------------------------------------------------

    def action_label(self, value: Label) -> None:
        """Override the label of the turn."""
        turn = self._turn
        if turn is None:
            return
        review, session_id, index = self.review, self.session_id, turn.index

        def told(change: Any) -> None:
            message = f"{change} (u undoes it)" if change else "it is so already"
            self.app.notify(message, markup=False)
            self.reload()

        review.attempt(
            lambda: corrections.label(review.store, session_id, index, value, review.by), told
        )

    def action_rate(self) -> None:
        """Rate the session."""
        if self._session:
            now = self._session.overall_affect
            correcting.rate(self.review, [self.session_id], now, self.reload)

    def action_exclude(self) -> None:
        """Exclude the session, or include it again."""
        if self._session:
            excluded = self._session.excluded
            correcting.exclude(self.review, [self.session_id], excluded, self.reload)

    def action_note(self) -> None:
        """Note something about the session."""
        if self._session:
            correcting.note(self.review, self.session_id, self._session.note, self.reload)

    def action_tag(self) -> None:
        """Set the session's tags."""
        if self._session:
            correcting.tag(self.review, [self.session_id], self._session.tags, self.reload)

    def action_undo(self) -> None:
        """Undo the newest change."""
        correcting.undo(self.review, self.session_id, self.reload)

    def action_delete(self) -> None:
        """Delete the session."""
        correcting.delete(self.review, [self.session_id], self.action_back)

    def action_changes(self) -> None:
        """What was changed in this session, by whom and when."""
        session_id = self.session_id

        def show(found: Sequence[corrections.Change]) -> None:
            lines = [
                f"{day_and_time(c.at, year=True)}  {c.by:<10} {c}"
                + (f"  (undoes {c.undoes})" if c.undoes else "")
                for c in found
            ]
            text = "\n".join(lines) or "Nothing was changed in this session."
            self.app.push_screen(Show("Changes, newest first", text))

        self.review.attempt(lambda: corrections.listed(self.review.store, session_id), show)
