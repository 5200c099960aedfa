"""What stands beside a branch of the tree: ratings, the base, all rewards, what is damaged."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from rich.text import Text

from agent.config import Config
from agent.policies import FOLDERS, Change
from learning.registry import BASE, Manifest, Registry
from tui import ratings
from tui.comparing import Comparison
from tui.measured import facts, number_of
from tui.ratings import Ratings
from tui.registry_view import Known, gates_in_short
from tui.words import day_and_time, plain

EMPTY = """\
No reward and no policy was learned yet: the base model speaks.

Hold calls and rate them, then begin a round:  tab 3, then n
One step at a time:  geli learn reward,  geli learn policy
"""


def folder_of(registry: Registry, entry: Manifest) -> Path:
    """Where an entry lies."""
    return registry.root / FOLDERS[entry.kind] / entry.id


def ratings_page(known: Known, found: Ratings | None, width: int) -> Text:
    """Ratings by policy, whether the data decides, and who spoke when."""
    out = Text()
    if found is None:
        out.append("counting the ratings …\n")
    else:
        out.append_text(ratings.table(found, width))
    out.append("\nWho spoke, newest first\n", "bold")
    if not known.state.history:
        out.append("  base, always\n")
    for change in reversed(known.state.history):
        out.append(f"  {_when(change.at)}  {_what(change)}  by {plain(change.by)}\n")
    return out


def base(known: Known, found: Ratings | None, config: Config) -> Text:
    """The model without an adapter."""
    out = Text()
    if not (known.policies or known.rewards or known.unreadable):
        out.append(f"{EMPTY}\n")
    out.append("base  ", "bold")
    out.append("the model without an adapter")
    out.append("  ● speaks\n" if known.state.promoted is None else "\n")
    follows = config.rollout.follow
    out.append_text(
        facts(
            {
                "model": config.responder.model,
                "calls": "follow the registry"
                if follows
                else "do not follow the registry: rollout.follow is off",
            }
        )
    )
    if found is not None:
        out.append("\n").append_text(ratings.in_short(ratings.row_of(found, None, config)))
    return out


def rewards(known: Known) -> Text:
    """The row of Table 3 of every reward."""
    out = Text()
    out.append("Rewards, newest first: their rows of Table 3\n", "bold")
    head = f"{'MSE ↓':>8} {'MAE ↓':>7} {'r, Γ=1':>7} {'r, Γ=0':>7} {'Δr_LI ↑':>8}"
    out.append(f"  {'':<14} {head}  gates\n", "dim")
    for one in known.rewards:
        cells = [
            f"{number_of(one.metrics.get(key), digits):>{width}}"
            for key, digits, width in (
                ("mse", 1, 8), ("mae", 2, 7), ("r_positive", 3, 7), ("r_non_positive", 3, 7),
                ("delta", 4, 8),
            )
        ]  # fmt: skip
        name = f"r-{one.created_at.astimezone():%m-%d} …{one.id[-4:]}"
        out.append(f"  {name:<14} {' '.join(cells)}  {gates_in_short(one.gates)}\n")
    out.append("\nEach with its intervals: at its own line of the tree.\n", "dim")
    return out


def damage(key: str, known: Known, root: Path) -> Text:
    """Entries that cannot be read, and what to do about them."""
    out = Text()
    for entry_id, problem in known.unreadable.items():
        if key in (entry_id, "damage"):
            out.append(f"! {plain(entry_id)} cannot be read\n", "bold")
            out.append(f"{plain(problem)}\n\n")
    out.append(
        "It cannot be promoted or compared. Put its folder back from a copy, or move it out of\n"
        f"{root}.\n"
    )
    return out


def comparisons(every: Sequence[Comparison]) -> Text:
    """What was compared in this review."""
    out = Text()
    out.append("Comparisons of this review\n", "bold")
    for one in every:
        out.append(f"  {one.sign:<12} {one.a} against {one.b}\n")
    return out


def _when(at: str) -> str:
    try:
        return day_and_time(datetime.fromisoformat(at), year=True)
    except ValueError:
        return plain(at)


def _what(change: Change) -> str:
    now, before = change.id or BASE, change.previous or BASE
    if change.action == "candidate":
        return f"candidate {change.id or 'none'}"
    return f"{'promoted' if change.action == 'promote' else 'back to'} {now}  (before: {before})"
