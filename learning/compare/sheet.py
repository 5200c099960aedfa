"""A blind rating sheet for people, and what the filled sheets say.

    write(...)  -> sheet.csv (for the raters), questions.md (for them too), key.json (for nobody
                   who rates: which policy wrote which reply)
    read(...)   -> the same eight columns as the judge's, with agreement between the raters

Histories come in random order, and so do the replies to each of them, which stand one below the
other. A spreadsheet must not take a reply for a formula: text that begins like one gets a quote in
front, which is taken off again on reading. Sheets may come back in any order, with commas,
semicolons or tabs; each reply is checked against the key, so that a column sorted by itself does
not pass.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import random
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from learning.compare.agreement import krippendorff_alpha
from learning.compare.files import write_text
from learning.compare.questions import METRICS, QUESTIONS, transcript
from learning.dialogue import Utterance
from learning.errors import DataError

COLUMNS = ("id", "history", "reply", *(question.column for question in QUESTIONS))
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_SAID = {
    **dict.fromkeys(("yes", "y", "1", "true", "x"), True),
    **dict.fromkeys(("no", "n", "0", "false"), False),
}


@dataclass(slots=True, frozen=True)
class Item:
    """One reply to rate, as the key has it."""

    policy: str
    history: int
    """Index, 0 to histories - 1."""
    group: str
    """Its dialogue."""
    digest: str
    """Of the reply as it was exported."""
    score: float | None
    """The reward's, points; None where there was none."""


@dataclass(slots=True, frozen=True)
class Key:
    """What belongs to a sheet."""

    items: dict[str, Item]
    policies: tuple[str, ...]
    seed: int
    about: dict[str, Any]
    """Source, reward and so on, for the table."""


@dataclass(slots=True, frozen=True)
class RaterAgreement:
    """How far the raters agree on one question."""

    metric: str
    alpha: float
    """Krippendorff's, nominal; NaN for one rater, or where every answer is the same."""
    answers: int
    empty: int
    """Cells without an answer, in rated and unrated rows."""


@dataclass(slots=True, frozen=True)
class Rated:
    """What people said."""

    raters: int
    marks: dict[str, dict[str, list[float]]]
    """Metric, policy, [histories]: share of the raters for it, more is better; NaN: nobody."""
    groups: tuple[str, ...]
    """[histories]."""
    scores: dict[str, list[float]]
    """Policy, [histories]: the reward's, from the key; NaN where there is none."""
    agreement: tuple[RaterAgreement, ...]


# --- out ---------------------------------------------------------------------------------------


def write(
    folder: Path,
    histories: Sequence[Sequence[Utterance]],
    groups: Sequence[str],
    replies: Mapping[str, Sequence[str]],
    *,
    seed: int,
    scores: Mapping[str, Sequence[float]] | None = None,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write `sheet.csv`, `questions.md` and `key.json`.

    Args:
        folder: made if need be.
        histories: their last turns are shown.
        groups: the dialogue of each, [histories].
        replies: policy to its replies, [histories] each.
        seed: of the order.
        scores: policy to the reward of its replies, points.
        about: what the table should say of where this comes from.

    Raises:
        DataError: a sheet with answers would be overwritten, or the folder cannot be written.
    """
    if _answered(folder / "sheet.csv"):
        raise DataError(
            f"{folder / 'sheet.csv'} has answers in it", "name another folder with --sheet-out"
        )
    rng = random.Random(f"sheet {seed}")
    order = list(range(len(histories)))
    rng.shuffle(order)
    items: dict[str, Item] = {}
    rows = []
    for place, i in enumerate(order, start=1):
        names = sorted(replies)
        rng.shuffle(names)
        for letter, name in zip(_letters(len(names)), names, strict=True):
            item_id = f"h{place:04d}-{letter}"
            reply = replies[name][i]
            score = _known(scores[name][i]) if scores and name in scores else None
            items[item_id] = Item(name, i, groups[i], _digest(reply), score)
            text = [item_id, transcript(histories[i]), reply]
            rows.append([guarded(cell) for cell in text] + [""] * len(QUESTIONS))
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerows([COLUMNS, *rows])
    key = {
        "schema_version": 1,
        "seed": seed,
        "policies": list(replies),
        "about": dict(about or {}),
        "items": {item_id: asdict(item) for item_id, item in items.items()},
    }
    # The mark at the front lets spreadsheets read UTF-8.
    write_text(folder / "sheet.csv", "\ufeff" + out.getvalue())
    write_text(folder / "questions.md", instructions())
    write_text(folder / "key.json", json.dumps(key, indent=1) + "\n")


def instructions() -> str:
    """What a rater is told."""
    lines = [
        "# How to fill the sheet",
        "",
        "Each row of `sheet.csv` has the end of a conversation between a User and an AI, and one "
        "reply that the AI could give next. Rows of one conversation stand together: read them "
        "all, then write `yes` or `no` into the eight columns of each. Several replies may get "
        "the same answer. Leave a cell empty if you cannot say. Rate by yourself, and do not "
        "change the first three columns.",
        "",
        "| column | yes means |",
        "|---|---|",
        *(f"| `{question.column}` | {question.text} |" for question in QUESTIONS),
        "",
        "The conversations may be people's own words: do not pass them on, and delete the sheet "
        "when your answers have been taken.",
    ]
    return "\n".join(lines) + "\n"


def guarded(text: str) -> str:
    """Text that no spreadsheet takes for a formula."""
    return f"'{text}" if _FORMULA.match(text) else text


def unguarded(cell: str) -> str:
    """What `guarded` was given."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _letters(n: int) -> list[str]:
    """A to Z, then AA, AB, …"""
    one = list(string.ascii_uppercase)
    return [one[i] if i < 26 else f"{one[i // 26 - 1]}{one[i % 26]}" for i in range(n)]


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _digest(reply: str) -> str:
    """Of the words alone: a spreadsheet may change white space."""
    return hashlib.sha256(" ".join(reply.split()).encode()).hexdigest()[:16]


def _answered(file: Path) -> bool:
    """Whether somebody filled in this sheet already."""
    if not file.exists():
        return False
    try:
        return any(row.get(q.column) for _, row in _rows(file) for q in QUESTIONS)
    except DataError:  # some other file
        return True


# --- back in -----------------------------------------------------------------------------------


def read_key(file: Path) -> Key:
    """Read `key.json`.

    Raises:
        DataError: it is not one.
    """
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        items = {item_id: Item(**item) for item_id, item in content["items"].items()}
        key = Key(items, tuple(content["policies"]), int(content["seed"]), dict(content["about"]))
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(
            f"{file} is no key of a rating sheet", "give the key.json of --sheet-out"
        ) from None
    if not key.items or {item.policy for item in key.items.values()} != set(key.policies):
        raise DataError(f"{file} is damaged: its policies are not those of its items")
    return key


def read(files: Sequence[Path], key: Key) -> Rated:
    """Read the filled sheets, one a rater.

    Args:
        files: CSV with the columns of `COLUMNS`, in any order of rows.
        key: of that sheet.

    Raises:
        DataError: a file, row or cell that cannot be used, by name; or no answer at all.
    """
    sheets = [_sheet(file, key) for file in files]
    order = {i: place for place, i in enumerate(sorted({t.history for t in key.items.values()}))}
    marks = {m: {p: [math.nan] * len(order) for p in key.policies} for m in METRICS}
    scores = {p: [math.nan] * len(order) for p in key.policies}
    groups = [""] * len(order)
    for item in key.items.values():
        place = order[item.history]
        groups[place] = item.group
        scores[item.policy][place] = math.nan if item.score is None else item.score
    agreement = []
    for question in QUESTIONS:
        said = {i: [s.get((i, question.metric)) for s in sheets] for i in key.items}
        for item_id, answers in said.items():
            known = [answer for answer in answers if answer is not None]
            if known:
                item = key.items[item_id]
                mark = question.good(sum(known) / len(known))
                marks[question.metric][item.policy][order[item.history]] = mark
        given = sum(answer is not None for answers in said.values() for answer in answers)
        empty = len(said) * len(sheets) - given
        alpha = krippendorff_alpha(list(said.values()))
        agreement.append(RaterAgreement(question.metric, alpha, given, empty))
    if not any(a.answers for a in agreement):
        raise DataError(f"no answer in {', '.join(map(str, files))}", "fill in yes or no")
    return Rated(len(sheets), marks, tuple(groups), scores, tuple(agreement))


def _sheet(file: Path, key: Key) -> dict[tuple[str, str], bool]:
    """(item, metric) to what one rater said."""
    out: dict[tuple[str, str], bool] = {}
    seen: dict[str, int] = {}
    for line, row in _rows(file):
        item_id = unguarded(row["id"].strip())
        where = f"{file}, row {line}"
        if item_id not in key.items:
            raise DataError(f"{where}: the key has no {item_id[:20]!r}", "is it another sheet's?")
        if item_id in seen:
            raise DataError(f"{where}: {item_id} again, it was in row {seen[item_id]}")
        seen[item_id] = line
        if _digest(unguarded(row["reply"])) != key.items[item_id].digest:
            raise DataError(
                f"{where}: the reply is not the one exported as {item_id}",
                "was a column sorted by itself, or a reply edited?",
            )
        for question in QUESTIONS:
            cell = row[question.column].strip().lower()
            if not cell:
                continue
            if cell not in _SAID:
                raise DataError(
                    f"{where}, column {question.column}: {cell[:20]!r} is neither yes nor no",
                    "yes, no, or empty",
                )
            out[item_id, question.metric] = _SAID[cell]
    return out


def _rows(file: Path) -> list[tuple[int, dict[str, str]]]:
    """Rows as a spreadsheet counts them (the header is row 1), by column."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise DataError(f"{file} is not UTF-8", "save it as CSV, UTF-8") from None
    head = text.partition("\n")[0]
    delimiter = max(",;\t", key=head.count)
    try:
        table = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise DataError(f"{file} is no CSV that can be read: {error}") from None
    names = [cell.strip() for cell in table[0]] if table else []
    if missing := [column for column in COLUMNS if column not in names]:
        raise DataError(
            f"{file}: row 1 has no column {missing[0]}", "keep the first row as it was exported"
        )
    out = []
    for line, cells in enumerate(table[1:], start=2):
        if not any(cell.strip() for cell in cells):
            continue
        if len(cells) != len(names):
            raise DataError(f"{file}, row {line}: {len(cells)} cells, {len(names)} columns")
        out.append((line, dict(zip(names, cells, strict=True))))
    return out
