"""The registry as text: what is known of it, the signs of an entry, and one entry in full."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.text import Text

from agent.errors import GeliError
from agent.policies import State
from learning.registry import GateResult, Manifest, Registry
from tui import charts
from tui.measured import facts, gates_table, measures
from tui.words import NONE, counted, day_and_time

SPEAKS, CANDIDATE, FAILED, DELETED, DAMAGED = "●", "○", "✗", "†", "!"
CURVES, LOSSES = "curves.jsonl", "losses.json"


@dataclass(slots=True, frozen=True)
class Known:
    """Everything the registry holds, as it was read once."""

    policies: tuple[Manifest, ...] = ()
    """Newest first, as `rewards`."""
    rewards: tuple[Manifest, ...] = ()
    unreadable: dict[str, str] = field(default_factory=dict)
    """Id to what is wrong with it."""
    marks: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Id to the deleted sessions that it learned from."""
    state: State = field(default_factory=State)
    problem: str | None = None
    """What is wrong with the state or the marks."""

    def entry(self, entry_id: str) -> Manifest | None:
        """The policy or reward of that id."""
        every = (*self.policies, *self.rewards)
        return next((one for one in every if one.id == entry_id), None)


def read(registry: Registry) -> Known:
    """Read the registry; what is damaged in it is named, not raised."""
    policies, rewards = registry.list("policy"), registry.list("reward")
    errors = registry.unreadable("policy") | registry.unreadable("reward")
    marks: dict[str, tuple[str, ...]] = {}
    state, problem = State(), None
    try:
        state = registry.state
    except GeliError as error:
        problem = str(error)
    for one in (*policies, *rewards):
        try:
            marks[one.id] = registry.marks(one.id)
        except GeliError as error:
            problem = problem or str(error)
    return Known(
        tuple(policies),
        tuple(rewards),
        {entry_id: str(error) for entry_id, error in errors.items()},
        marks,
        state,
        problem,
    )


def curves(folder: Path) -> list[dict[str, Any]]:
    """The lines of `curves.jsonl` in a folder; without a file none, without what is damaged."""
    try:
        text = (folder / CURVES).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    found = []
    for line in text.splitlines():
        try:
            content = json.loads(line)
        except ValueError:
            continue  # a run is writing it just now
        if isinstance(content, dict) and isinstance(content.get("update"), int):
            found.append(content)
    return found


def losses(folder: Path) -> list[tuple[float, float]]:
    """Training and validation loss of each epoch from `losses.json`; none without it."""
    try:
        content = json.loads((folder / LOSSES).read_text(encoding="utf-8"))
        return [(float(trained), float(held)) for trained, held in content]
    except (OSError, ValueError, TypeError):
        return []


# --- a tree's line ------------------------------------------------------------------------------


def signs(one: Manifest, known: Known) -> str:
    """What holds of an entry, each as a sign and a word."""
    parts = []
    if one.kind == "policy":
        if known.state.promoted == one.id:
            parts.append(f"{SPEAKS} speaks")
        if known.state.candidate == one.id:
            parts.append(f"{CANDIDATE} candidate")
    parts.append(gates_in_short(one.gates))
    if gone := known.marks.get(one.id):
        parts.append(f"{DELETED}{len(gone)} deleted")
    return "  ".join(parts)


def gates_in_short(gates: Sequence[GateResult]) -> str:
    """How many gates there are and how many failed."""
    if not gates:
        return "no gates"
    failed = sum(not gate.passed for gate in gates)
    return f"{FAILED} {failed} of {len(gates)} gates" if failed else f"✓ {len(gates)} gates"


# --- one entry ----------------------------------------------------------------------------------


def entry(one: Manifest, known: Known, folder: Path, width: int, more: Text | None = None) -> Text:
    """One policy or reward in full.

    Args:
        one: its manifest.
        known: for its marks and whether it speaks.
        folder: where its files are.
        width: cells of a line.
        more: what else is known of it, put before the curves.
    """
    out = Text()
    out.append(f"{one.id}  ", "bold")
    out.append(f"{signs(one, known)}\n")
    out.append_text(
        facts(
            {
                "when": day_and_time(one.created_at, year=True),
                "base": one.base,
                "parent": one.parent or ("base" if one.kind == "policy" else NONE),
                "reward": one.reward or "",
                "data": f"{one.data_source}, digest {one.data_digest}, "
                f"{counted(len(one.sessions), 'session')}, seed {one.seed}",
                "notes": one.notes,
            }
        )
    )
    if gone := known.marks.get(one.id):
        out.append(
            f"{DELETED} learned from {counted(len(gone), 'session')} that "
            f"{'was' if len(gone) == 1 else 'were'} deleted since; a new round (tab 3) learns "
            "without\n",
            "bold",
        )
    out.append("\n")
    out.append_text(gates_table(one.gates))
    out.append("\n")
    out.append_text(measures(one.metrics, one.kind == "reward"))
    if more is not None:
        out.append("\n")
        out.append_text(more)
    if drawn := pictures(folder, width):
        out.append("\n")
        out.append_text(drawn)
    out.append("\nSettings\n", "bold")
    out.append_text(facts({key: _told(value) for key, value in one.settings.items()}, 24))
    out.append("\nFiles  (v reads them again)\n", "bold")
    out.append_text(facts({name: f"SHA-256 {d[:12]}…" for name, d in one.files.items()}, 28))
    out.append("\nVersions\n", "bold")
    out.append_text(facts(one.versions, 24))
    out.append(f"\n{folder}\n", "dim")
    return out


def pictures(folder: Path, width: int) -> Text:
    """The curves of a training in that folder: reward and KL, or losses; empty without any."""
    out = Text()
    lines = curves(folder)
    for key, title in (("reward", "reward of a reply, points"), ("kl", "KL to the base, nats")):
        if points := [(one["update"], one[key]) for one in lines if key in one]:
            out.append_text(charts.curve(title, points, width)).append("\n")
    if epochs := losses(folder):
        trained = [(n, one) for n, (one, _) in enumerate(epochs, start=1)]
        held = [(n, one) for n, (_, one) in enumerate(epochs, start=1)]
        names = ("training", "validation")
        out.append_text(charts.two_curves("loss", names, trained, held, width)).append("\n")
    return out


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
