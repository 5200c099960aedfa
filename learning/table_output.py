"""Table 3 as Markdown, CSV, JSON and a picture."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path
from typing import Any

from learning.metrics import MEASURES, Estimate
from learning.table import Row, Table, finite

TITLES = {
    "mse": "MSE ↓",
    "mae": "MAE ↓",
    "r_positive": "r, Γ=1",
    "r_non_positive": "r, Γ=0",
    "delta": "Δr̂_LI ↑",
    "truth_rank": "ρ with the truth ↑",
}
DIGITS = {"mse": 1, "mae": 2, "r_positive": 3, "r_non_positive": 3, "delta": 4, "truth_rank": 3}


def as_json(table: Table) -> dict[str, Any]:
    """`rows` with every measure, its interval and its spread over the seeds; NaN is null."""
    return {
        "source": table.source,
        "digest": table.digest,
        "scale": list(table.scale),
        "li_source": table.li_source,
        "split_by": table.by,
        "seeds": list(table.seeds),
        "held_out_sessions": table.sessions,
        "dropped": table.dropped,
        "notes": list(table.notes),
        "settings": table.settings,
        "rows": [_row_json(row, table) for row in table.rows],
    }


def _row_json(row: Row, table: Table) -> dict[str, Any]:
    out: dict[str, Any] = {"method": row.method}
    for measure in MEASURES:
        estimate = row.estimates[measure]
        out[measure] = finite(estimate.value)
        out[f"{measure}_interval"] = [finite(estimate.low), finite(estimate.high)]
        out[f"{measure}_seed_sd"] = finite(estimate.seed_sd)
    original = finite(row.estimates["mse"].value * _to_original(table) ** 2)
    out["mse_original_scale"] = original
    over = row.mse_over_mean
    out["mse_over_mean"] = None if over is None else finite(over[0])
    out["mse_over_mean_interval"] = None if over is None else [finite(over[1]), finite(over[2])]
    return out


def _to_original(table: Table) -> float:
    return (table.scale[1] - table.scale[0]) / 100


def markdown(table: Table) -> str:
    """The table with a caption that says what it was measured on."""
    measures = _shown(table)
    low, high = table.scale
    other = table.scale != (0.0, 100.0)
    heads = ["", *(TITLES[m] for m in measures), "MSE / Mean's"]
    if other:
        heads.insert(2, f"MSE on {low:g}–{high:g}")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for row in table.rows:
        cells = [row.method, *(_cell(row.estimates[m], DIGITS[m]) for m in measures), _ratio(row)]
        if other:
            original = row.estimates["mse"].value * _to_original(table) ** 2
            cells.insert(2, f"{original:.2f}")
        lines.append("| " + " | ".join(cells) + " |")
    seeds = f"seeds {', '.join(map(str, table.seeds))}"
    caption = [
        f"{table.source} (digest {table.digest}), ratings on 0–100; {seeds}, split by {table.by}; "
        f"{table.sessions} rated sessions were held out. Value [95 % interval, bootstrap over "
        "sessions] ± spread over seeds.",
        f"Γ: {table.li_source}.",
        *(f"Left out: {n} {why}." for why, n in table.dropped.items()),
        *(f"{note[:1].upper()}{note[1:]}." for note in table.notes),
    ]
    return "\n".join(lines) + "\n\n" + "\n".join(caption) + "\n"


def _shown(table: Table) -> list[str]:
    """The truth's column only where there is a truth."""
    known = any(math.isfinite(row.estimates["truth_rank"].value) for row in table.rows)
    return [m for m in MEASURES if m != "truth_rank" or known]


def _cell(estimate: Estimate, digits: int) -> str:
    if not math.isfinite(estimate.value):
        return "–"
    text = f"{estimate.value:.{digits}f}"
    if math.isfinite(estimate.low):
        text += f" [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"
    return text + (f" ± {estimate.seed_sd:.{digits}f}" if math.isfinite(estimate.seed_sd) else "")


def _ratio(row: Row) -> str:
    if row.mse_over_mean is None or not math.isfinite(row.mse_over_mean[0]):
        return "–"
    value, low, high = row.mse_over_mean
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"


def csv_text(table: Table) -> str:
    """One line a method; empty cells where nothing could be measured."""
    rows = [_row_json(row, table) for row in table.rows]
    flat = [
        {
            name: value
            for key, content in row.items()
            for name, value in (
                ((f"{key}_low", content[0]), (f"{key}_high", content[1]))
                if isinstance(content, list)
                else ((key, content),)
            )
        }
        for row in rows
    ]
    out = io.StringIO()
    writer = csv.DictWriter(out, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return out.getvalue()


def picture(table: Table, file: Path) -> None:
    """A dot and its interval for every row: MSE, Δr̂_LI and, where known, the truth's rank."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    measures = ["mse", "delta", *(["truth_rank"] if "truth_rank" in _shown(table) else [])]
    rows = list(reversed(table.rows))
    figure, axes = plt.subplots(
        1, len(measures), figsize=(3.4 * len(measures) + 1, 0.32 * len(rows) + 1.4), sharey=True
    )
    for axis, measure in zip(axes, measures, strict=True):
        for place, row in enumerate(rows):
            e = row.estimates[measure]
            if not math.isfinite(e.value):
                continue
            colour = "#c0392b" if row.method == "rrd+va" else "#34495e"
            axis.plot([e.low, e.high], [place, place], color=colour, lw=2, alpha=0.5)
            axis.plot([e.value], [place], "o", color=colour, ms=5)
        if measure != "mse":
            axis.axvline(0, color="#999999", lw=0.8)
        means = [r.estimates[measure].value for r in rows if r.method == "mean"]
        if measure == "mse" and means:
            axis.axvline(means[0], color="#999999", lw=0.8, ls=":")
        axis.set_title(TITLES[measure], fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    axes[0].set_yticks(range(len(rows)), [row.method for row in rows])
    figure.suptitle(f"{table.source}, {table.sessions} held-out sessions", fontsize=9)
    figure.tight_layout()
    figure.savefig(file, dpi=150)
    plt.close(figure)


def write(table: Table, folder: Path) -> None:
    """`table.md`, `table.csv`, `table.json` and `table.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.md").write_text(markdown(table), encoding="utf-8")
    (folder / "table.csv").write_text(csv_text(table), encoding="utf-8")
    content = json.dumps(as_json(table), indent=2, ensure_ascii=False)
    (folder / "table.json").write_text(content + "\n", encoding="utf-8")
    picture(table, folder / "table.png")


__all__ = ["as_json", "csv_text", "markdown", "picture", "write"]
