"""Rounds as text: a line each, one in full, its steps and how far they are."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from rich.text import Text

from learning.registry import GateResult
from learning.rounds import Round
from tui import charts
from tui.measured import facts, gates_table, measures
from tui.registry_view import pictures
from tui.round_state import Seen
from tui.words import NONE, clock, counted, day_and_time, plain

TAIL = 8
"""Lines of the log that are shown with a round."""


# --- one line -----------------------------------------------------------------------------------


def ending(one: Seen, promoted: str | None) -> str:
    """How it ended, or where it is, with a sign."""
    this = one.round
    if this is None:
        return "! cannot be read"
    if this.ended == "candidate":
        return "● speaks" if this.policy == promoted else "✓ candidate"
    if this.ended is not None:
        return f"✗ {plain(this.ended)}"
    at = step(this)
    if one.runs:
        return f"▶ {at}"
    word = "cancelled" if one.job_state == "cancelled" else "stopped"
    return f"■ {word} at {at}"


def step(this: Round) -> str:
    """The step that an unfinished round is in."""
    if this.digest is None:
        return "snapshot"
    return "reward" if this.reward is None else "policy"


def line(one: Seen, promoted: str | None, here: bool, width: int) -> Text:
    """A round as the list shows it, on one line; with a sign where the cursor is."""
    out = Text("› " if here else "  ")
    when = one.id
    source, n = NONE, ""
    if one.round is not None:
        when, source = _day(one.round.started_at), plain(one.round.source)
        n = str(len(one.round.sessions)) if one.round.digest else NONE
    out.append(f"{when:<11} {source:<9} {n:>4}  {ending(one, promoted)}")
    out.truncate(max(width, 20), overflow="ellipsis")
    return out


def _day(at: str) -> str:
    try:
        return day_and_time(datetime.fromisoformat(at))
    except ValueError:
        return plain(at)[:11]


# --- one round ----------------------------------------------------------------------------------


def page(one: Seen, log: Sequence[str], promoted: str | None, width: int) -> Text:
    """One round in full.

    Args:
        one: the round.
        log: what its job printed.
        promoted: the policy that speaks.
        width: cells of a line.
    """
    out = Text()
    this = one.round
    if this is None:
        out.append(f"{one.id}  ! cannot be read\n", "bold")
        return out.append(f"{plain(one.problem)}\n")
    out.append(f"round {one.id}  ", "bold")
    out.append(f"{ending(one, promoted)}\n")
    out.append_text(_how_it_runs(one))
    out.append("\n")
    out.append_text(steps(one, promoted))
    if this.reward_gates:
        out.append("\nReward ", "bold").append(f"{this.reward or NONE}\n")
        out.append_text(gates_table(_gates(this.reward_gates)))
        out.append_text(measures(_of(this.metrics, "reward_"), True))
    if this.policy_gates:
        out.append("\nPolicy ", "bold").append(f"{this.policy or NONE}\n")
        out.append_text(gates_table(_gates(this.policy_gates)))
        out.append_text(measures(_of(this.metrics, "policy_"), False))
    if drawn := pictures(one.folder / "policy", width):
        out.append("\n").append_text(drawn)
    if log:
        out.append("\nLog, the end of it  (l shows all)\n", "bold")
        out.append("\n".join(plain(said) for said in log[-TAIL:]) + "\n", "dim")
    out.append("\n").append_text(facts({"seed": str(this.seed), "folder": str(one.folder)}))
    return out


def _how_it_runs(one: Seen) -> Text:
    out = Text()
    if not one.unfinished:
        return out
    if one.runs and one.job is not None:
        since = _seconds_since(one.job.started_at)
        out.append(f"runs for {clock(since)}; it goes on when this is closed (x cancels it)\n")
        return out
    why = {
        "cancelled": "it was cancelled",
        "failed": "its process ended with an error: see the log",
        "lost": "its process was killed",
        "done": "its process ended",
    }
    out.append(f"{why.get(one.job_state or '', 'not begun from here')}; ")
    out.append("g goes on with it\n")
    if one.strange_s is not None:
        out.append(f"{strange(one)}\n", "bold")
    return out


def strange(one: Seen) -> str:
    """A warning that something works on the round that is not a job from here."""
    return f"! its files changed {one.strange_s or 0:.0f} s ago: does it run in another terminal?"


def steps(one: Seen, promoted: str | None) -> Text:
    """The steps of a round, how far each is, and what came of it."""
    this = one.round
    assert this is not None
    here = "▶" if one.runs else "■"
    rows: list[tuple[str, str, str]] = []

    def row(name: str, done: bool, at: bool, told: str) -> None:
        rows.append(("✓" if done else here if at else "·", name, told))

    at = step(this) if this.ended is None else ""
    row(
        "snapshot", this.digest is not None, at == "snapshot",
        f"{counted(len(this.sessions), 'session')} of {this.source}, digest {this.digest}"
        if this.digest else f"sessions of {this.source}",
    )  # fmt: skip
    told = f"{one.epochs} epochs" if this.reward else "training" if at == "reward" else ""
    row("reward", this.reward is not None, at == "reward", told)
    if this.reward_gates:
        row("gates", _passed(this.reward_gates), False, _in_short(this.reward_gates))
    measuring = at == "policy" and one.trained
    told = counted(one.updates, "update")
    if this.updates is not None:
        whole = max(this.updates, one.updates)
        told = f"{charts.progress(one.updates, whole)} {one.updates} of {whole} updates"
    begun = this.policy is not None or at == "policy"
    row("policy", one.trained and begun, at == "policy" and not measuring, told if begun else "")
    told = _in_short(this.policy_gates) if this.policy_gates else "measuring" if measuring else ""
    row("gates", _passed(this.policy_gates), measuring, told)
    ended = "p promotes it" if this.policy != promoted else "speaks"
    row("candidate", this.ended == "candidate", False, ended if this.ended == "candidate" else "")
    out = Text()
    for sign, name, told in rows:
        failed = told.endswith("FAILED")
        out.append(f"  {'✗' if failed else sign} {name:<10} {told}\n", "bold" if failed else "")
    return out


def _passed(gates: Sequence[dict[str, Any]]) -> bool:
    return bool(gates) and all(gate.get("passed") for gate in gates)


def _in_short(gates: Sequence[dict[str, Any]]) -> str:
    failed = [str(gate.get("name")) for gate in gates if not gate.get("passed")]
    if failed:
        return f"{', '.join(failed)} FAILED"
    return f"{len(gates)} of {len(gates)} passed"


def _gates(content: Sequence[dict[str, Any]]) -> list[GateResult]:
    """Gates of `round.json`; a value that could not be measured is null there."""
    found = []
    for gate in content:
        value = gate.get("value")
        try:
            found.append(
                GateResult.model_validate(
                    gate | {"value": float("nan") if value is None else value}
                )
            )
        except ValueError:
            continue
    return found


def _of(metrics: dict[str, float], prefix: str) -> dict[str, float]:
    return {k.removeprefix(prefix): v for k, v in metrics.items() if k.startswith(prefix)}


def _seconds_since(at: str) -> float:
    try:
        return max((datetime.now().astimezone() - datetime.fromisoformat(at)).total_seconds(), 0)
    except ValueError:
        return 0.0
