"""Blind rating sheets as the review fills them.

    <folder>/sheet.csv            histories and replies, as `geli learn compare` wrote them
    <folder>/key.json             which policy wrote which reply; not read while one rates
    <folder>/answers/<rater>.csv  the sheet with one rater's answers; `--sheet-in` takes it as it is
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from learning.compare import sheet as sheets
from learning.compare.files import write_text
from learning.compare.questions import QUESTIONS
from learning.errors import DataError

Cell = tuple[str, str]
"""Id of a reply, and a question's column."""
Stamp = tuple[int, int]
"""When a file was changed, and its size."""
MOST = 8
"""Replies to one history that the keys a to h can tell apart."""
_RATER = re.compile(r"\w[\w.-]{0,39}")
_WORD = {True: "yes", False: "no", None: ""}


@dataclass(slots=True, frozen=True)
class History:
    """One history and what could be said next."""

    text: str
    items: tuple[str, ...]
    """Ids of the replies."""
    replies: tuple[str, ...]
    """In the order of the sheet, which tells nothing of who wrote them."""


@dataclass(slots=True, frozen=True)
class Sheet:
    """What raters are given."""

    folder: Path
    rows: tuple[dict[str, str], ...]
    """Cells as they stand in the file."""
    histories: tuple[History, ...]

    @property
    def whole(self) -> int:
        """Questions to answer in all."""
        return len(self.histories) * len(QUESTIONS)

    def cells(self, history: int, question: int) -> list[Cell]:
        """The cells of one question about one history, one a reply."""
        return [(item, QUESTIONS[question].column) for item in self.histories[history].items]

    def answered(self, said: Collection[Cell]) -> list[bool]:
        """Whether something was answered, [histories times questions]."""
        return [
            any(cell in said for cell in self.cells(h, q))
            for h in range(len(self.histories))
            for q in range(len(QUESTIONS))
        ]


def read(folder: Path) -> Sheet:
    """Read a folder's `sheet.csv`.

    Raises:
        DataError: it is not there, damaged, or has more replies to a history than there are keys.
    """
    file = folder / "sheet.csv"
    rows = [row for _, row in sheets._rows(file)]
    by_history: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_history.setdefault(_id(row).rpartition("-")[0], []).append(row)
    if not rows:
        raise DataError(f"{file} has no replies", "make another sheet")
    if len({_id(row) for row in rows}) < len(rows):
        raise DataError(f"{file} is damaged: an id is there twice", "make another sheet")
    most = max(map(len, by_history.values()))
    if most > MOST:
        raise DataError(
            f"{file} has {most} replies to a history, {MOST} can be rated here",
            "fill it in a spreadsheet",
        )
    histories = [
        History(
            sheets.unguarded(own[0]["history"]),
            tuple(_id(row) for row in own),
            tuple(sheets.unguarded(row["reply"]) for row in own),
        )
        for own in by_history.values()
    ]
    return Sheet(folder, tuple(rows), tuple(histories))


def _id(row: Mapping[str, str]) -> str:
    return sheets.unguarded(row["id"].strip())


# --- one rater's answers ------------------------------------------------------------------------


class Answers:
    """What one rater said of a sheet; every change is on the disk when `give` returns.

    Args:
        sheet: what is rated.
        rater: who.

    Raises:
        DataError: the rater's file cannot be read, or is not of this sheet.
    """

    def __init__(self, sheet: Sheet, rater: str) -> None:
        self.sheet, self.rater = sheet, rater
        self.file = sheet.folder / "answers" / f"{rater}.csv"
        self.said: dict[Cell, bool] = {}
        self._stamp: Stamp | None = None
        self._read()

    def give(self, answers: Mapping[Cell, bool | None]) -> None:
        """Keep these answers; None takes one back. What another terminal wrote meanwhile stays.

        Raises:
            DataError: the file cannot be read or written; nothing is changed then.
        """
        self._read()
        said = self.said | {cell: yes for cell, yes in answers.items() if yes is not None}
        for cell, yes in answers.items():
            if yes is None:
                said.pop(cell, None)
        write_text(self.file, as_csv(self.sheet, said))
        self.said, self._stamp = said, stamp(self.file)

    @property
    def answered(self) -> list[bool]:
        """Whether something was answered, [histories times questions]."""
        return self.sheet.answered(self.said)

    @property
    def next(self) -> int:
        """Where to go on: the first open question after the last answered one, else the first
        open one; the last question where none is open."""
        done = self.answered
        last = max((i for i, was in enumerate(done) if was), default=-1)
        order = [*range(last + 1, len(done)), *range(last + 1)]
        return next((i for i in order if not done[i]), len(done) - 1)

    def _read(self) -> None:
        now = stamp(self.file)
        if now is not None and now != self._stamp:
            self.said, self._stamp = read_answers(self.sheet, self.file), now


def read_answers(sheet: Sheet, file: Path) -> dict[Cell, bool]:
    """What one rater said.

    Raises:
        DataError: the file cannot be read, or is not of this sheet.
    """
    replies = {_id(row): sheets.unguarded(row["reply"]).split() for row in sheet.rows}
    said: dict[Cell, bool] = {}
    for line, row in sheets._rows(file):
        item = _id(row)
        if replies.get(item) != sheets.unguarded(row["reply"]).split():
            raise DataError(
                f"{file}, row {line}: not a reply of this sheet", "move that file elsewhere"
            )
        for question in QUESTIONS:
            word = row[question.column].strip().lower()
            if word and word not in sheets._SAID:
                raise DataError(
                    f"{file}, row {line}, column {question.column}: {word[:20]!r} is neither yes "
                    "nor no", "correct it there",
                )  # fmt: skip
            if word:
                said[item, question.column] = sheets._SAID[word]
    return said


def as_csv(sheet: Sheet, said: Mapping[Cell, bool], rater: str | None = None) -> str:
    """The sheet with answers filled in; with `rater` as one column more."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    own = [] if rater is None else [rater]
    writer.writerow([*sheets.COLUMNS, *(["rater"] if own else [])])
    for row in sheet.rows:
        answers = [_WORD[said.get((_id(row), q.column))] for q in QUESTIONS]
        writer.writerow([row["id"], row["history"], row["reply"], *answers, *own])
    return "\ufeff" + out.getvalue()


def wrong_rater(name: str) -> str | None:
    """What is wrong with a rater's id, which names a file; None: nothing."""
    return None if _RATER.fullmatch(name) else "Letters, digits and . - _, 40 at most."


def safe_rater(name: str) -> str:
    """An id made of a person's name."""
    return re.sub(r"[^\w.-]+", "-", name).strip(".-")[:40] or "rater"


def stamp(file: Path) -> Stamp | None:
    """What changes when a file does; None: it is not there."""
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
