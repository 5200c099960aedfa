"""Table 2 as Markdown, CSV, JSON and a picture."""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from learning.compare.files import write_text
from learning.compare.table import COLUMNS, Column, Comparison, Row, Section
from learning.errors import DataError
from learning.intervals import Interval

SECTIONS: dict[Section, str] = {
    "preference": "Preference",
    "reward": "Reward and distance",
    "text": "Text",
    "audit": "Audit",
}


def as_json(made: Comparison) -> dict[str, Any]:
    """`rows` with every measure, its interval, and the difference from the first policy."""
    return {
        **made.about,
        "histories": made.histories,
        "dialogues": made.dialogues,
        "seed": made.seed,
        "compared_with": made.rows[0].policy,
        "rating": _finite(made.rating),
        "notes": list(made.notes),
        "rows": [_row(row, made.columns()) for row in made.rows],
    }


def _finite(content: Any) -> Any:
    """JSON has no NaN: what could not be measured is null."""
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content


def _row(row: Row, columns: Sequence[Column]) -> dict[str, Any]:
    out: dict[str, Any] = {"policy": row.policy}
    for column in columns:
        for name, found in (
            (column.key, row.cells.get(column.key)),
            (f"{column.key}_difference", row.differences.get(column.key)),
        ):
            content = found.as_json() if found else {"value": None, "low": None, "high": None}
            out[name] = content["value"]
            out[f"{name}_interval"] = [content["low"], content["high"]]
    return out


def csv_text(made: Comparison) -> str:
    """One line a policy; empty cells where nothing was measured."""
    rows = []
    for row in made.rows:
        flat: dict[str, Any] = {}
        for key, content in _row(row, made.columns()).items():
            if isinstance(content, list):
                name = key.removesuffix("_interval")
                flat |= {f"{name}_low": content[0], f"{name}_high": content[1]}
            else:
                flat[key] = content
        rows.append(flat)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


# --- Markdown ----------------------------------------------------------------------------------


def markdown(made: Comparison) -> str:
    """A table a section, the differences from the first policy, and what it was measured on."""
    blocks = []
    for section, title in SECTIONS.items():
        if columns := made.columns(section):
            blocks += [f"### {title}", _table(made, columns, differences=False)]
    if len(made.rows) > 1:
        blocks.append(f"### Differences from {_plain(made.rows[0].policy)}")
        blocks.append("Paired by history; bold where the interval excludes 0.")
        for section in SECTIONS:
            columns = [c for c in made.columns(section) if c.key != "win_rate"]
            if any(c.key in row.differences for c in columns for row in made.rows):
                blocks.append(_table(made, columns, differences=True))
    return "\n\n".join([*blocks, *caption(made)]) + "\n"


def _table(made: Comparison, columns: Sequence[Column], differences: bool) -> str:
    unit = {c.key: " %" if c.share else "" for c in columns}
    heads = [f"{c.title}{unit[c.key]} {c.better}".strip() for c in columns]
    lines = ["| " + " | ".join(["", *heads]) + " |", "|---" * (len(columns) + 1) + "|"]
    for row in made.rows[1:] if differences else made.rows:
        cells = row.differences if differences else row.cells
        said = [_cell(cells.get(c.key), c, differences) for c in columns]
        lines.append("| " + " | ".join([_plain(row.policy), *said]) + " |")
    return "\n".join(lines)


def _cell(found: Interval | None, column: Column, difference: bool) -> str:
    if found is None or not math.isfinite(found.value):
        return "–"
    scale = 100 if column.share else 1
    sign = "+" if difference else ""
    text = f"{found.value * scale:{sign}.{column.digits}f}"
    if math.isfinite(found.low):
        text += f" [{found.low * scale:.{column.digits}f}, {found.high * scale:.{column.digits}f}]"
    return f"**{text}**" if difference and found.decided else text


def caption(made: Comparison) -> list[str]:
    """What the numbers mean, a paragraph each."""
    about = made.about
    out = [
        f"{made.histories} held-out histories of {made.dialogues} dialogues"
        + (f" of {about['source']} (digest {about['digest']})" if "source" in about else "")
        + f", seed {made.seed}. Value [95 % interval, by dialogue]."
    ]
    keys = {c.key for c in made.columns()}
    if "score" in keys:
        out.append(
            f"GELI score: mean reward of the replies"
            f"{' by ' + str(about['reward']) if 'reward' in about else ''}, divided by 100; "
            f"wins: share of histories on which it is above {_plain(made.rows[0].policy)}'s."
        )
    if keys & {"refusals", "toxic", "unsafe", "flattery"}:
        out.append(
            "Flattery, refusals, toxic words and unsafe answers are found by lists of patterns: a "
            "low number is no proof."
        )
    if made.rating is not None:
        out += _rated(made.rating)
    return [*out, *(f"{note[:1].upper()}{note[1:]}." for note in made.notes)]


def _rated(rating: dict[str, Any]) -> list[str]:
    titles = {c.key: c.title for c in COLUMNS}
    if rating["by"] == "judge":
        head = (
            f"Preference by the language model {rating['model']}, blind, each reply in two orders; "
            "where they disagree it counts one half."
        )
        names = ["agreement of the orders %", "kappa", "yes first %", "yes last %", "unreadable"]
        rows = [
            [
                titles[a["metric"]], _number(a["same"], 100, 1), _number(a["kappa"], 1, 2),
                _number(a["yes_first"], 100, 1), _number(a["yes_last"], 100, 1),
                f"{a['unreadable']} of {a['asked']}",
            ]
            for a in rating["agreement"]
        ]  # fmt: skip
    else:
        head = f"Preference by {rating['raters']} rater{'s' * (rating['raters'] != 1)}, blind."
        names = ["Krippendorff's alpha", "answers", "empty cells"]
        rows = [
            [
                titles[a["metric"]], _number(a["alpha"], 1, 2), str(a["answers"]), str(a["empty"]),
            ]
            for a in rating["agreement"]
        ]  # fmt: skip
    lines = ["| " + " | ".join(["", *names]) + " |", "|---" * (len(names) + 1) + "|"]
    return [head, "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])]


def _number(value: float | None, scale: float, digits: int) -> str:
    return "–" if value is None or not math.isfinite(value) else f"{value * scale:.{digits}f}"


def _plain(name: str) -> str:
    return name.replace("|", "/")


# --- picture -----------------------------------------------------------------------------------

_COLOURS = ("#34495e", "#2980b9", "#27ae60", "#d68910", "#c0392b", "#8e44ad", "#16a085", "#7f8c8d")
_ACROSS = 4


def picture(made: Comparison, file: Path) -> None:
    """A panel a measure; a dot and its interval for every policy."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    columns = [c for c in made.columns() if c.key != "win_rate"]
    rows = list(reversed(made.rows))
    down = math.ceil(len(columns) / _ACROSS)
    figure, axes = plt.subplots(
        down, _ACROSS, figsize=(11, down * (0.28 * len(rows) + 0.9)), sharey=True, squeeze=False
    )
    for column, axis in zip(columns, axes.flat, strict=False):
        scale = 100 if column.share else 1
        for place, row in enumerate(rows):
            found = row.cells.get(column.key)
            if found is None or not math.isfinite(found.value):
                continue
            colour = _COLOURS[(len(rows) - 1 - place) % len(_COLOURS)]
            if math.isfinite(found.low):
                ends = [found.low * scale, found.high * scale]
                axis.plot(ends, [place, place], color=colour, lw=2, alpha=0.5)
            axis.plot([found.value * scale], [place], "o", color=colour, ms=5)
        axis.set_title(
            f"{column.title}{', %' if column.share else ''} {column.better}".strip(), fontsize=9
        )
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=7)
        axis.margins(y=0.25)
    for axis in list(axes.flat)[len(columns) :]:
        axis.set_axis_off()
    axes[0][0].set_yticks(range(len(rows)), [row.policy for row in rows])
    figure.suptitle(
        f"{made.histories} histories of {made.dialogues} dialogues, 95 % intervals", fontsize=9
    )
    figure.tight_layout()
    figure.savefig(file, dpi=150)
    plt.close(figure)


def write(made: Comparison, folder: Path) -> None:
    """`compare.md`, `compare.csv`, `compare.json` and `compare.png`.

    Raises:
        DataError: they cannot be written.
    """
    write_text(folder / "compare.md", markdown(made))
    write_text(folder / "compare.csv", csv_text(made))
    content = json.dumps(as_json(made), indent=2, ensure_ascii=False)
    write_text(folder / "compare.json", content + "\n")
    beside = folder / f".compare.{os.getpid()}.png"
    try:
        picture(made, beside)
        beside.replace(folder / "compare.png")
    except OSError as error:
        raise DataError(f"{folder} cannot be written: {error.strerror or error}") from None
