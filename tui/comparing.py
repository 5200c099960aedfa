"""Two policies on the same held-out histories: `geli learn compare` in the background, and what it
found as text. The replies and histories are read from its blind sheet and its key; the folder they
are written to is private and goes when they have been read.
"""

from __future__ import annotations

import csv
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rich.text import Text

from agent.errors import GeliError
from tui.jobs import Cancelled, Commands, JobError
from tui.measured import padded
from tui.words import NONE, clock, plain

HISTORIES = 24
"""What is offered: a minute or so on two cores."""
State = Literal["running", "done", "failed", "cancelled"]


@dataclass(slots=True, frozen=True)
class Pair:
    """One history and what both policies answered."""

    history: str
    replies: dict[str, str]
    """Policy to its reply."""
    scores: dict[str, float | None]


@dataclass(slots=True)
class Comparison:
    """One comparison of this review: what was asked for, and what came of it."""

    id: str
    a: str
    b: str
    """What `a` is held against; `base` is the model without an adapter."""
    reward: str
    source: str
    histories: int
    started: float = field(default_factory=time.monotonic)
    state: State = "running"
    problem: str = ""
    table: dict[str, Any] = field(default_factory=dict)
    """What `geli learn compare --json` printed."""
    columns: Sequence[Any] = ()
    pairs: list[Pair] = field(default_factory=list)
    folder: Path | None = None
    """While it runs: where its files appear."""
    took_s: float = 0.0

    @property
    def sign(self) -> str:
        """How it stands, in a word with a sign."""
        return {
            "running": "▶ running", "done": "✓ done", "failed": "✗ failed",
            "cancelled": "■ cancelled",
        }[self.state]  # fmt: skip

    @property
    def command(self) -> list[str]:
        """Arguments of `geli`, without the folders."""
        return [
            "learn", "compare", "--policies", f"{self.b},{self.a}", "--data", self.source,
            "--reward", self.reward, "--histories", str(self.histories), "--json",
        ]  # fmt: skip


def run(one: Comparison, commands: Commands, arguments: Sequence[str]) -> Comparison:
    """Run it and keep what it found; blocks. It never raises: what went wrong is noted in it.

    Args:
        one: what to compare.
        commands: what ends it with the review, or by its id.
        arguments: `--config` and `--set`.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="geli-compare-") as made:
            one.folder = folder = Path(made)
            places = ["--out", made, "--sheet-out", str(folder / "sheet")]
            found = commands.json([*one.command, *places, *arguments], one.id)
            one.pairs = pairs(folder / "sheet")
        if not (isinstance(found, dict) and len(found.get("rows", ())) == 2):
            raise JobError("geli learn compare printed something else than two rows")
        from learning.compare.table import COLUMNS

        one.table, one.columns, one.state = found, COLUMNS, "done"
    except Cancelled:
        one.state = "cancelled"
    except (GeliError, OSError) as error:
        one.state, one.problem = "failed", str(error)
    one.folder = None
    one.took_s = time.monotonic() - one.started
    return one


def pairs(folder: Path) -> list[Pair]:
    """Histories with the replies of both, from a sheet and its key.

    Raises:
        JobError: they are not there, or do not belong together.
    """
    from learning.compare.sheet import unguarded

    try:
        items = json.loads((folder / "key.json").read_text(encoding="utf-8"))["items"]
        with (folder / "sheet.csv").open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        found: dict[int, Pair] = {}
        for row in rows:
            item = items[row["id"]]
            pair = found.setdefault(item["history"], Pair(unguarded(row["history"]), {}, {}))
            pair.replies[item["policy"]] = unguarded(row["reply"])
            pair.scores[item["policy"]] = item["score"]
        return list(found.values())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise JobError(f"the replies cannot be read: {type(error).__name__}") from None


# --- as text ------------------------------------------------------------------------------------


def told(one: Comparison, width: int) -> Text:
    """The comparison as it stands."""
    out = Text()
    out.append(f"{one.a} against {one.b}  {one.sign}\n", "bold")
    out.append(
        f"{one.source}, at most {one.histories} held-out histories, scored by {one.reward}\n"
    )
    if one.state == "running":
        done = 0
        if one.folder is not None and one.folder.is_dir():
            done = len(list(one.folder.glob("replies-*.json")))
        out.append(
            f"\nrunning for {clock(time.monotonic() - one.started)}, "
            f"{done} of 2 policies have answered; x cancels it\n"
        )
        out.append("Nothing of it is kept when the review ends.\n", "dim")
    elif one.state == "done":
        out.append(f"took {clock(one.took_s)}\n\n")
        out.append_text(_measures(one, width))
        out.append_text(_side_by_side(one))
    elif one.problem:
        out.append(f"\n{plain(one.problem)}\n", "bold")
    return out


def _measures(one: Comparison, width: int) -> Text:
    second, first = one.table["rows"]
    wide = width >= 92
    span = 22 if wide else 9
    out = Text()
    out.append(f"  {'':<15} {'A':<{span}} {'B':<{span}} A minus B\n", "bold")
    for column in one.columns:
        if column.key not in first or first[column.key] is None and second[column.key] is None:
            continue
        title = f"{column.title}{' %' if column.share else ''} {column.better}".rstrip()
        cells = [_cell(row, column.key, column, wide) for row in (first, second)]
        out.append(f"  {padded(title, 15)} {cells[0]:<{span}} {cells[1]:<{span}} ")
        out.append_text(_difference(first, column)).append("\n")
    out.append(f"\nA  {one.a}\nB  {one.b}\n")
    n, dialogues = one.table.get("histories"), one.table.get("dialogues")
    out.append(
        f"{n} histories of {dialogues} dialogues; [95 % interval, by dialogue, paired]. "
        "not decided: the interval of the difference holds 0.\n",
        "dim",
    )
    for note in one.table.get("notes", ()):
        out.append(f"{plain(str(note))}\n", "dim")
    return out


def _cell(row: dict[str, Any], key: str, column: Any, interval: bool) -> str:
    value = row.get(key)
    if value is None:
        return NONE
    scale = 100 if column.share else 1
    text = f"{value * scale:.{column.digits}f}"
    low, high = row.get(f"{key}_interval") or (None, None)
    if interval and low is not None and high is not None:
        text += f" [{low * scale:.{column.digits}f}, {high * scale:.{column.digits}f}]"
    return text


def _difference(first: dict[str, Any], column: Any) -> Text:
    value = first.get(f"{column.key}_difference")
    low, high = first.get(f"{column.key}_difference_interval") or (None, None)
    if value is None:
        return Text(NONE)
    scale, digits = (100 if column.share else 1), column.digits
    text = f"{value * scale:+.{digits}f}"
    if low is None or high is None:
        return Text(text)
    text += f" [{low * scale:+.{digits}f}, {high * scale:+.{digits}f}]"
    decided = not low <= 0 <= high
    return Text(f"{text} {'decided' if decided else 'not decided'}", "bold" if decided else "")


def _side_by_side(one: Comparison) -> Text:
    out = Text()
    out.append(f"\nReplies to {len(one.pairs)} histories\n", "bold")
    for n, pair in enumerate(one.pairs, start=1):
        out.append(f"\n{n} of {len(one.pairs)}\n", "bold")
        for line in pair.history.splitlines():
            out.append(f"  {plain(line)}\n", "dim")
        for letter, name in (("A", one.a), ("B", one.b)):
            score = pair.scores.get(name)
            worth = "" if score is None else f" ({score:.0f})"
            out.append(f"  {letter}{worth}: ", "bold")
            out.append(f"{plain(pair.replies.get(name, NONE)) or '(nothing)'}\n")
    return out
