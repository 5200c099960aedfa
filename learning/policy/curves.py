"""What a run wrote down: `curves.jsonl`, one line an update, and the paper's Fig. 7–10 from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from learning.errors import TrainingError
from learning.policy.model import write_whole

NAME = "curves.jsonl"
WINDOW = 5
"""Updates of the moving mean in the picture."""


def read(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run, none where there is no file; a half-written last line is left out."""
    path = folder / NAME
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    out = []
    for i, line in enumerate(lines):
        try:
            out.append(json.loads(line))
        except ValueError:
            if i + 1 < len(lines):
                raise TrainingError(f"{path}: line {i + 1} is damaged", "delete it") from None
    return out


def cut(folder: Path, update: int) -> None:
    """Leave out what a killed run wrote after its last checkpoint; it is done again."""
    lines = [json.dumps(line) + "\n" for line in read(folder) if line["update"] <= update]
    write_whole(folder / NAME, "".join(lines).encode())


def append(folder: Path, line: dict[str, Any]) -> None:
    """Add one update."""
    with (folder / NAME).open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def moving(values: list[float], window: int = WINDOW) -> list[float]:
    """Mean of up to `window` values that end at each."""
    out = []
    for i in range(len(values)):
        part = values[max(0, i + 1 - window) : i + 1]
        out.append(sum(part) / len(part))
    return out


def draw(folder: Path, title: str) -> Path | None:
    """`curves.png`: reward and KL over updates; None where there is nothing to draw."""
    lines = read(folder)
    if not lines:
        return None
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    updates = [line["update"] for line in lines]
    figure, axes = pyplot.subplots(1, 2, figsize=(10, 3.6))
    for axis, key, label, colour in (
        (axes[0], "reward", "reward of a reply, points", "tab:blue"),
        (axes[1], "kl", "KL to the base, nats a reply", "tab:red"),
    ):
        known = [(u, line[key]) for u, line in zip(updates, lines, strict=True) if key in line]
        if not known:
            continue
        x, y = [u for u, _ in known], [v for _, v in known]
        axis.plot(x, y, color=colour, alpha=0.35, linewidth=1)
        axis.plot(x, moving(y), color=colour, linewidth=2, label=f"mean of {WINDOW}")
        axis.set_xlabel("update")
        axis.set_ylabel(label)
        axis.grid(alpha=0.3)
        axis.legend(frameon=False)
    if all("reward_sd" in line for line in lines):
        half = [1.96 * line["reward_sd"] / line["replies"] ** 0.5 for line in lines]
        y = [line["reward"] for line in lines]
        axes[0].fill_between(
            updates,
            [a - b for a, b in zip(y, half, strict=True)],
            [a + b for a, b in zip(y, half, strict=True)],
            color="tab:blue",
            alpha=0.12,
            linewidth=0,
        )
    figure.suptitle(title)
    figure.tight_layout()
    path = folder / "curves.png"
    beside = folder / ".curves.tmp.png"
    figure.savefig(beside, dpi=120)
    pyplot.close(figure)
    beside.replace(path)
    return path
