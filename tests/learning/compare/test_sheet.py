"""Rating sheets: blind, safe in a spreadsheet, read back strictly."""

from __future__ import annotations

import csv
import io
import json
import math
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from learning.compare import sheet
from learning.compare.questions import METRICS, QUESTIONS
from learning.dialogue import Utterance
from learning.errors import DataError

pytestmark = pytest.mark.unit

HISTORIES = [
    (Utterance("agent", "Hi."), Utterance("listener", f"My day {i}, fine;\n\ttruly"))
    for i in range(6)
]
GROUPS = ["a", "a", "b", "b", "c", "c"]
REPLIES = {
    "warm-policy": [f"Lovely {i}, I'm glad!" for i in range(6)],
    "cold-policy": ["=SUM(A1)", "-no", "+1", "@home", "'=quoted", "Zoë said \"x\",\n;y"],
}


def written(tmp_path: Path, seed: int = 0) -> sheet.Key:
    scores = {"warm-policy": [60.0] * 6, "cold-policy": [40.0] * 5 + [math.nan]}
    sheet.write(
        tmp_path, HISTORIES, GROUPS, REPLIES, seed=seed, scores=scores, about={"source": "made"}
    )
    return sheet.read_key(tmp_path / "key.json")


def rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.read_text("utf-8-sig"), newline="")))


def fill(
    tmp_path: Path, name: str, answer: Callable[[str, str], str], delimiter: str = ","
) -> Path:
    """A filled sheet: `answer(item id, column)`, rows in another order."""
    found = rows(tmp_path / "sheet.csv")
    for row in found:
        for question in QUESTIONS:
            row[question.column] = answer(row["id"], question.column)
    random.Random(3).shuffle(found)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(found[0]), delimiter=delimiter)
    writer.writeheader()
    writer.writerows(found)
    (tmp_path / name).write_text(out.getvalue(), "utf-8")
    return tmp_path / name


def test_the_sheet_is_blind_and_complete(tmp_path: Path) -> None:
    key = written(tmp_path)
    for name in ("sheet.csv", "questions.md"):
        assert "policy" not in (tmp_path / name).read_text("utf-8")
    found = rows(tmp_path / "sheet.csv")
    assert tuple(found[0]) == sheet.COLUMNS
    assert len(found) == 12 == len(key.items)
    for row in found:
        item = key.items[row["id"]]
        assert sheet.unguarded(row["reply"]) == REPLIES[item.policy][item.history]
        assert f"My day {item.history}" in row["history"]
        assert item.group == GROUPS[item.history]
        assert not any(row[question.column] for question in QUESTIONS)
    assert {item.score for item in key.items.values()} == {60.0, 40.0, None}
    assert "Lovely" not in (tmp_path / "key.json").read_text()


def test_replies_to_one_history_stand_together_in_shuffled_order(tmp_path: Path) -> None:
    key = written(tmp_path)
    items = [key.items[row["id"]] for row in rows(tmp_path / "sheet.csv")]
    order = [item.history for item in items[::2]]
    assert order == [item.history for item in items[1::2]]
    assert sorted(order) == list(range(6)) and order != list(range(6))
    assert {item.policy for item in items[::2]} == set(REPLIES)


def test_the_seed_decides_the_order(tmp_path: Path) -> None:
    one, same, other = (
        written(tmp_path / str(n), seed).items for n, seed in enumerate((1, 1, 2))
    )
    assert one == same and one != other


def test_no_cell_begins_like_a_formula(tmp_path: Path) -> None:
    written(tmp_path)
    for row in rows(tmp_path / "sheet.csv"):
        assert row["reply"][0] not in "=+-@"


@pytest.mark.parametrize("text", ["=1", "-x", "'-x", "''=1", "'tis", "plain", "", "\tx", "a=b"])
def test_the_guard_is_taken_off_again(text: str) -> None:
    assert sheet.unguarded(sheet.guarded(text)) == text


def warm_only(key: sheet.Key) -> Callable[[str, str], str]:
    negated = {question.column for question in QUESTIONS if question.negated}

    def answer(item_id: str, column: str) -> str:
        warm = key.items[item_id].policy == "warm-policy"
        return "yes" if warm != (column in negated) else "No"

    return answer


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_filled_sheets_come_back(tmp_path: Path, delimiter: str) -> None:
    key = written(tmp_path)
    files = [fill(tmp_path, f"{n}.csv", warm_only(key), delimiter) for n in range(2)]
    rated = sheet.read(files, key)
    assert rated.raters == 2 and rated.groups == tuple(GROUPS)
    for metric in METRICS:
        assert rated.marks[metric]["warm-policy"] == [1.0] * 6
        assert rated.marks[metric]["cold-policy"] == [0.0] * 6
    for agreement in rated.agreement:
        assert (agreement.alpha, agreement.answers, agreement.empty) == (1.0, 24, 0)
    assert rated.scores["warm-policy"] == [60.0] * 6
    assert math.isnan(rated.scores["cold-policy"][5])


def test_raters_who_differ_and_cells_left_empty(tmp_path: Path) -> None:
    key = written(tmp_path)
    yes = fill(tmp_path, "yes.csv", lambda *_: "1")
    half = fill(tmp_path, "half.csv", lambda item, _: "0" if item.endswith("A") else "")
    rated = sheet.read([yes, half], key)
    for item_id, item in key.items.items():
        want = 0.5 if item_id.endswith("A") else 1.0
        assert rated.marks["connection"][item.policy][item.history] == want
    first = rated.agreement[0]
    assert (first.answers, first.empty) == (18, 6)
    # Always one yes and one no: D_o = 1, D_e = 2·6·6 / (12·11).
    assert first.alpha == pytest.approx(1 - 132 / 72)


def test_one_rater_has_no_agreement(tmp_path: Path) -> None:
    key = written(tmp_path)
    rated = sheet.read([fill(tmp_path, "a.csv", warm_only(key))], key)
    assert all(math.isnan(a.alpha) for a in rated.agreement)


def broken(tmp_path: Path, change: Callable[[list[dict[str, str]]], object]) -> str:
    """The line that a changed sheet gives."""
    key = written(tmp_path)
    found = rows(tmp_path / "sheet.csv")
    for row in found:
        row["reuse"] = "yes"
    change(found)
    out = io.StringIO()
    writer = csv.DictWriter(out, list(found[0]))
    writer.writeheader()
    writer.writerows(found)
    (tmp_path / "x.csv").write_text(out.getvalue(), "utf-8")
    with pytest.raises(DataError) as caught:
        sheet.read([tmp_path / "x.csv"], key)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_bad_cell_names_row_and_column(tmp_path: Path) -> None:
    said = broken(tmp_path, lambda found: found[4].update(not_specific="perhaps"))
    assert "x.csv, row 6, column not_specific: 'perhaps'" in said


def test_an_unknown_row(tmp_path: Path) -> None:
    assert "row 3: the key has no 'h9999-A'" in broken(
        tmp_path, lambda found: found[1].update(id="h9999-A")
    )


def test_a_row_twice(tmp_path: Path) -> None:
    said = broken(tmp_path, lambda found: found.append(found[0]))
    assert "row 14: h0001-A again, it was in row 2" in said


def test_a_column_sorted_by_itself(tmp_path: Path) -> None:
    def sort(found: list[dict[str, str]]) -> None:
        for row, reply in zip(found, sorted(r["reply"] for r in found), strict=True):
            row["reply"] = reply

    assert "was a column sorted by itself" in broken(tmp_path, sort)


def test_a_missing_column(tmp_path: Path) -> None:
    def drop(found: list[dict[str, str]]) -> None:
        for row in found:
            del row["no_sense"]

    assert "row 1 has no column no_sense" in broken(tmp_path, drop)


def test_a_sheet_without_answers(tmp_path: Path) -> None:
    key = written(tmp_path)
    with pytest.raises(DataError, match="no answer in"):
        sheet.read([tmp_path / "sheet.csv"], key)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", "row 1 has no column id"),
        (b"\xff\xfe\x00", "not UTF-8"),
        (b'id,"hist', "no CSV"),
    ],
)
def test_files_that_are_no_sheet(tmp_path: Path, content: bytes, line: str) -> None:
    key = written(tmp_path)
    (tmp_path / "bad.csv").write_bytes(content)
    with pytest.raises(DataError, match=line):
        sheet.read([tmp_path / "bad.csv"], key)
    with pytest.raises(DataError, match="cannot be read"):
        sheet.read([tmp_path / "none.csv"], key)


@pytest.mark.parametrize("content", ["", "[]", '{"items": {}}', '{"items": {"a": {"x": 1}}}'])
def test_files_that_are_no_key(tmp_path: Path, content: str) -> None:
    (tmp_path / "key.json").write_text(content)
    with pytest.raises(DataError, match="no key of a rating sheet"):
        sheet.read_key(tmp_path / "key.json")


def test_a_damaged_key(tmp_path: Path) -> None:
    written(tmp_path)
    content = json.loads((tmp_path / "key.json").read_text())
    content["policies"].append("another")
    (tmp_path / "key.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match="damaged"):
        sheet.read_key(tmp_path / "key.json")


def test_answers_are_not_overwritten(tmp_path: Path) -> None:
    key = written(tmp_path)
    written(tmp_path)  # an empty sheet may be written again
    fill(tmp_path, "sheet.csv", warm_only(key))
    with pytest.raises(DataError, match="has answers in it"):
        written(tmp_path)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot be written"):
        sheet.write(tmp_path / "file" / "x", HISTORIES, GROUPS, REPLIES, seed=0)
