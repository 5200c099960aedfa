"""All raters of a blind sheet together: how far they agree, and which policy got what.

    <folder>/unblinded.jsonl   who has seen the result, and after how many answers
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learning.compare import sheet as sheets
from learning.compare.agreement import krippendorff_alpha
from learning.compare.files import write_text
from learning.compare.questions import QUESTIONS
from learning.errors import DataError
from tui.rating_sheet import Cell, Sheet, read, read_answers, stamp

if TYPE_CHECKING:
    from learning.compare.table import Comparison


@dataclass(slots=True, frozen=True)
class Listed:
    """One folder, as far as it can be read."""

    folder: Path
    sheet: Sheet | None = None
    problem: str = ""
    raters: dict[str, dict[Cell, bool]] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)
    """Raters whose files cannot be read, and why."""
    unblinded: tuple[str, ...] = ()
    """Who has seen which policy is which."""


def look(folder: Path) -> Listed:
    """Read a sheet and the answers of everybody; never raises."""
    try:
        sheet = read(folder)
    except DataError as error:
        return Listed(folder, problem=str(error))
    raters, unreadable = {}, {}
    for file in sorted((folder / "answers").glob("[!.]*.csv")):
        try:
            raters[file.stem] = read_answers(sheet, file)
        except DataError as error:
            unreadable[file.stem] = str(error)
    return Listed(folder, sheet, "", raters, unreadable, unblinded(folder))


@dataclass(slots=True, frozen=True)
class Agreement:
    """How far the raters agree on one question."""

    column: str
    alpha: float
    """Krippendorff's, nominal; NaN where it is not defined."""
    shared: int
    """Replies that two or more of them rated."""


def agreement(sheet: Sheet, raters: Iterable[Mapping[Cell, bool]]) -> list[Agreement]:
    """Agreement on each question, without the key."""
    every = list(raters)
    items = [item for history in sheet.histories for item in history.items]
    out = []
    for question in QUESTIONS:
        said = [[one.get((item, question.column)) for one in every] for item in items]
        shared = sum(sum(yes is not None for yes in row) > 1 for row in said)
        out.append(Agreement(question.column, krippendorff_alpha(said), shared))
    return out


def result(folder: Path, files: Sequence[Path]) -> Comparison:
    """Which policy got what: what `geli learn compare --sheet-in … --sheet-key` reads.

    Raises:
        DataError: no key, or a file that does not belong to it.
    """
    from learning.compare import table

    key = sheets.read_key(folder / "key.json")
    rated = sheets.read(files, key)
    return table.of_ratings(rated.groups, rated.marks, rated.scores, seed=key.seed, about=key.about)


def unblinded(folder: Path) -> tuple[str, ...]:
    """Who has seen the result."""
    names: dict[str, None] = {}
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in (folder / "unblinded.jsonl").read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError):
                names[str(json.loads(line)["rater"])] = None
    return tuple(names)


def note_unblinding(folder: Path, rater: str, answers: int) -> None:
    """Note that a rater has seen the result: later answers are not blind.

    Raises:
        DataError: it cannot be written.
    """
    file = folder / "unblinded.jsonl"
    now = datetime.now(UTC).isoformat(timespec="seconds")
    line = json.dumps({"at": now, "rater": rater, "answers": answers}, ensure_ascii=False)
    try:
        before = file.read_text(encoding="utf-8") if file.exists() else ""
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {error}") from None
    write_text(file, f"{before}{line}\n")


# --- folders ------------------------------------------------------------------------------------


def stamps(folders: Iterable[Path]) -> list[Any]:
    """What changes when a sheet, an answer or a result does; quick to ask often."""
    out: list[Any] = []
    for folder in folders:
        files = [folder / "sheet.csv", folder / "unblinded.jsonl"]
        files += sorted((folder / "answers").glob("*.csv"))
        out.append((str(folder), [(file.name, stamp(file)) for file in files]))
    return out


def holding(root: Path, sessions: Collection[str]) -> tuple[list[Path], list[Path]]:
    """Sheets below `root` that show words of those sessions, and sheets of which nobody knows."""
    holds, unknown = [], []
    wanted = set(sessions)
    for file in sorted(root.glob("*/sheet.csv")):
        try:
            items = sheets.read_key(file.parent / "key.json").items.values()
        except DataError:
            unknown.append(file.parent)
            continue
        if any(item.group in wanted for item in items):
            holds.append(file.parent)
    return holds, unknown
