"""The listener's label of an agent turn: how the user's face took what was said.

The span of an agent turn runs from the moment its audio starts to play until the user's next turn
starts, at most `max_after_s` after the agent stopped. A window belongs to the turn when its
*centre* lies in the span [start, end): a 2 s window that mostly precedes the turn then says nothing
about it, a window on the border of two spans counts once, and the length of a window plays no part.
With windows every `hop_s` each span of at least `hop_s` has one; a shorter span may have none and
its turn stays unknown, which is honest: nobody can read a reaction from less.

Everything is computed from stored windows, so another rule needs no video.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from agent.config import Labels
from agent.records import AffectWindow, Label, Session, Turn

BY_PERSON = "person"
"""`li_rule` of a label that a person corrected begins so: it is not computed again."""


@dataclass(slots=True, frozen=True)
class TurnLabel:
    """The label of one agent turn and what it came from."""

    li: Label
    """Γ of the paper (eq. 7): 1 positive, 0 not, None unknown."""
    coverage: float
    """Share of `windows` in which a face was seen; 0 without windows."""
    windows: tuple[int, ...]
    """Indices of the windows that belong to the turn, in order of time."""
    rule: str
    """The rule in words, as stored with the turn."""


def rule_name(config: Labels) -> str:
    """The whole rule as one string, e.g. `majority, coverage>=0.5, after<=10s`."""
    rule = f"share>={config.share:g}" if config.rule == "share" else config.rule
    return f"{rule}, coverage>={config.min_coverage:g}, after<={config.max_after_s:g}s"


def span_of(turn: Turn, turns: Iterable[Turn], max_after_s: float) -> tuple[float, float]:
    """The seconds [start, end) in which the listener's face answers an agent turn.

    Args:
        turn: an agent turn.
        turns: the session's turns in any order; only the user's later ones matter.
        max_after_s: how long after the agent's last sound the face still counts.
    """
    next_user_s = min(
        (
            other.start_s
            for other in turns
            if other.speaker == "user" and (other.start_s, other.index) > (turn.start_s, turn.index)
        ),
        default=turn.end_s + max_after_s,
    )
    return turn.start_s, min(next_user_s, turn.end_s + max_after_s)


def label_turn(
    turn: Turn, turns: Iterable[Turn], windows: Iterable[AffectWindow], config: Labels
) -> TurnLabel:
    """Label one agent turn.

    `any` is 1 when one seen window is positive, `majority` when more than half are, `share` when at
    least `config.share` are. A window without a face is unseen, not neutral; when the seen ones are
    under `config.min_coverage` of all, or there are none, the label is None.

    Raises:
        ValueError: `turn` is the user's.
    """
    if turn.speaker != "agent":
        raise ValueError(f"turn {turn.index} is the user's: only agent turns have a listener label")
    start_s, end_s = span_of(turn, turns, config.max_after_s)
    mine = sorted(
        (w for w in windows if start_s <= (w.start_s + w.end_s) / 2 < end_s),
        key=lambda w: (w.start_s, w.index),
    )
    seen = [w.positive for w in mine if w.positive is not None]
    coverage = len(seen) / len(mine) if mine else 0.0
    li: Label = None
    if seen and coverage >= config.min_coverage:
        li = 1 if _is_positive(sum(seen), len(seen), config) else 0
    return TurnLabel(li, coverage, tuple(w.index for w in mine), rule_name(config))


def _is_positive(positive: int, seen: int, config: Labels) -> bool:
    match config.rule:
        case "any":
            return positive > 0
        case "majority":
            return 2 * positive > seen
        case "share":
            return positive >= config.share * seen


def labelled(turn: Turn, label: TurnLabel) -> Turn:
    """A copy of `turn` that carries `label`."""
    return turn.model_copy(
        update={
            "li": label.li,
            "li_coverage": label.coverage,
            "li_windows": list(label.windows),
            "li_rule": label.rule,
        }
    )


def label_session(session: Session, config: Labels) -> Session:
    """A copy of `session` with the label of each agent turn computed anew from its windows."""
    turns = [
        labelled(turn, label_turn(turn, session.turns, session.windows, config))
        if turn.speaker == "agent"
        else turn
        for turn in session.turns
    ]
    return session.model_copy(update={"turns": turns})
