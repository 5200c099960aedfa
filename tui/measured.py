"""What was measured of an entry, as tables: its gates, its row of Table 3 or Table 2."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from learning.registry import GateResult
from tui.words import NONE, counted, plain

LEVELS = {"score": 2, "kl": 2, "words": 1, "distinct_2": 3}
"""What a policy is measured by on held-out histories, with digits; of the policy before too."""
SHARES = ("repetition", "refusals", "unsafe")
POLICY_TITLES = {
    "score": "GELI score, points ↑",
    "kl": "KL to the base, nats",
    "words": "words a reply",
    "distinct_2": "distinct-2",
    "repetition": "repetition ↓",
    "refusals": "refusals ↓",
    "unsafe": "unsafe ↓",
}
REWARD_TITLES = {
    "mse": ("MSE ↓", 1),
    "mae": ("MAE ↓", 2),
    "r_positive": ("r, Γ=1", 3),
    "r_non_positive": ("r, Γ=0", 3),
    "delta": ("Δr̂_LI ↑", 4),
    "mse_ratio": ("MSE / Mean's ↓", 3),
}
"""The columns of Table 3."""
TOLD = ("mse_mean", "sessions", "win_rate", "stopped")


def facts(values: Mapping[str, str], width: int = 8) -> Text:
    """Names and values, one a line; empty values are left out."""
    out = Text()
    for name, value in values.items():
        if value:
            out.append(f"{plain(name):<{width}} ", "dim")
            out.append(f"{plain(value)}\n")
    return out


def gates_table(gates: Iterable[GateResult]) -> Text:
    """Each gate: passed or FAILED, its value, and what was wanted."""
    every = list(gates)
    out = Text()
    if not every:
        return out.append("Gates: none were measured\n", "bold")
    passed = sum(gate.passed for gate in every)
    out.append(f"Gates: {passed} of {len(every)} passed\n", "bold")
    for gate in every:
        value = f"{gate.value:.4g}" if math.isfinite(gate.value) else "unknown"
        wanted = f"{gate.comparison} {gate.threshold:.4g}"
        out.append(
            f"  {'passed' if gate.passed else 'FAILED'}  {gate.name:<18} {value:>9}  {wanted}\n",
            None if gate.passed else "bold",
        )
    return out


def measures(metrics: Mapping[str, float], of_reward: bool) -> Text:
    """What was measured on held-out sessions: a row of Table 3 or Table 2, then the rest."""
    out = Text()
    if of_reward:
        told = _reward_row(metrics, out)
    else:
        told = _policy_row(metrics, out)
    rest = {key: f"{value:.6g}" for key, value in metrics.items() if key not in told}
    if rest:
        out.append("Other numbers\n" if out else "Numbers\n", "bold")
        out.append_text(facts(rest, 24))
    return out


def _reward_row(metrics: Mapping[str, float], out: Text) -> set[str]:
    told = set()
    for key, (title, digits) in REWARD_TITLES.items():
        if key not in metrics:
            continue
        if not out:
            n = metrics.get("sessions")
            on = f", {counted(int(n), 'held-out session')}" if n is not None else ""
            out.append(f"Its row of Table 3{on}\n", "bold")
        told |= {key, f"{key}_low", f"{key}_high"}
        out.append(f"  {padded(title, 16)} {number_of(metrics[key], digits):>9}")
        if f"{key}_low" in metrics and f"{key}_high" in metrics:
            ends = [number_of(metrics[f"{key}_{end}"], digits) for end in ("low", "high")]
            out.append(f"  [{', '.join(ends)}]")
        if key == "mse" and "mse_mean" in metrics:
            out.append(f"  Mean's {metrics['mse_mean']:.1f}")
        out.append("\n")
    return told | (set(TOLD) if told else set())


def _policy_row(metrics: Mapping[str, float], out: Text) -> set[str]:
    told = set()
    for key, title in POLICY_TITLES.items():
        if key not in metrics:
            continue
        before = metrics.get(f"current_{key}")
        if not out:
            heads = f"{'this':>13} {'before':>9} {'change':>9}" if before is not None else ""
            out.append("On held-out histories", "bold").append(f"{heads}\n")
        told |= {key, f"current_{key}"}
        form = _share if key in SHARES else lambda v, k=key: number_of(v, LEVELS[k])
        out.append(f"  {padded(title, 22)} {form(metrics[key]):>9}")
        if before is not None:
            change = metrics[key] - before
            sign = "+" if change >= 0 else ""
            out.append(f" {form(before):>9} {sign + form(change):>9}")
        out.append("\n")
    if told and "win_rate" in metrics:
        out.append(f"  {padded('wins over before ↑', 22)} {_share(metrics['win_rate']):>9}\n")
    if told and metrics.get("stopped"):
        out.append("  the training was stopped early\n", "bold")
    return told | (set(TOLD) if told else set())


def padded(text: str, width: int) -> str:
    """A text filled to a width; never cut."""
    return text if cell_len(text) >= width else set_cell_size(text, width)


def number_of(value: float | None, digits: int) -> str:
    """A number with that many digits; a dash where there is none."""
    if value is None:
        return NONE
    return f"{value:.{digits}f}" if math.isfinite(value) else "unknown"


def _share(value: float) -> str:
    return f"{value:.1%}" if math.isfinite(value) else "unknown"
