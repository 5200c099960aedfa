"""Table 2's rows: values, intervals, differences, and how they are written."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import pytest

from learning.compare import output
from learning.compare.questions import METRICS
from learning.compare.table import Answers, Comparison, build, of_ratings
from learning.dialogue import Utterance

pytestmark = pytest.mark.unit

N = 30
HISTORIES = [(Utterance("agent", "Tell me more, please."), Utterance("listener", "Ok."))] * N
GROUPS = [f"d{i // 3}" for i in range(N)]


def answers() -> list[Answers]:
    plain = [f"Reply {i} about trees. Why?" for i in range(N)]
    flat = ["Tell me more, please."] * 15 + ["You are so smart!"] * 14 + [""]
    return [
        Answers("base", plain, [50.0 + i % 3 for i in range(N)], [0.0] * N, [0.0] * 24),
        Answers("geli", flat, [53.0 + i % 3 for i in range(N)], [2.0] * N, [1.0] * 6 + [0.0] * 18),
        Answers("human", plain, [50.0 + i % 3 for i in range(N)]),
    ]


def made(**more: object) -> Comparison:
    return build(HISTORIES, GROUPS, answers(), seed=0, **more)  # type: ignore[arg-type]


def test_values_of_each_policy() -> None:
    base, geli, human = made().rows
    value = {key: cell.value for key, cell in geli.cells.items()}
    assert value["score"] == pytest.approx(0.54)
    assert base.cells["score"].value == pytest.approx(0.51)
    assert value["win_rate"] == 1 and human.cells["win_rate"].value == 0.5
    assert "win_rate" not in base.cells
    assert value["kl"] == 2 and "kl" not in human.cells
    assert value["words"] == pytest.approx(4 * 29 / 30)
    assert value["flattery"] == pytest.approx(14 / 30)
    assert value["empty"] == pytest.approx(1 / 30)
    assert value["identical"] == pytest.approx(29 / 30)
    assert value["repetition"] == pytest.approx(0.5)
    assert (value["questions"], base.cells["questions"].value) == (0, 1)
    assert value["unsafe"] == 0.25 and "unsafe" not in human.cells
    assert value["distinct_2"] == pytest.approx(6 / (29 * 3))


def test_every_column_has_an_interval_that_holds_its_value() -> None:
    for row in made().rows:
        for key, cell in row.cells.items():
            assert cell.low <= cell.value <= cell.high, (row.policy, key)


def test_differences_are_from_the_first_and_paired() -> None:
    base, geli, human = made().rows
    assert base.differences == {}
    score = geli.differences["score"]
    # The same 3 points everywhere: paired by history nothing is left to vary.
    assert (score.value, score.low, score.high) == pytest.approx((0.03, 0.03, 0.03))
    assert geli.differences["distinct_2"].high < 0
    assert geli.differences["unsafe"].decided
    assert human.differences["words"].value == 0
    assert human.differences["distinct_1"].value == human.differences["distinct_1"].low == 0
    assert "kl" not in human.differences and "win_rate" not in geli.differences


def test_the_same_seed_gives_the_same_table() -> None:
    assert made() == made()


def marks(value: float) -> dict[str, dict[str, list[float]]]:
    return {
        m: {"base": [0.0] * N, "geli": [value, math.nan] * 15, "human": [0.5] * N} for m in METRICS
    }


def test_marks_of_a_judge_are_columns() -> None:
    base, geli, _ = made(marks=marks(1.0)).rows
    assert geli.cells["positivity"].value == 1 and geli.cells["positivity"].n == 15
    assert 0.6 < geli.cells["positivity"].low < 1
    assert geli.differences["positivity"].value == 1
    assert base.cells["positivity"].value == 0


def test_ratings_of_people_need_nothing_but_marks() -> None:
    scores = {name: [50.0] * N for name in ("base", "geli", "human")}
    scores["geli"] = [55.0] * N
    table = of_ratings(GROUPS, marks(1.0), scores, seed=0)
    assert [row.policy for row in table.rows] == ["base", "geli", "human"]
    assert [c.key for c in table.columns("preference")] == list(METRICS)
    assert table.rows[1].cells["score"].value == pytest.approx(0.55)
    assert "win_rate" not in table.rows[0].cells and table.dialogues == 10
    nothing = {name: [math.nan] * N for name in scores}
    bare = of_ratings(GROUPS, marks(1.0), nothing, seed=0)
    assert [c.key for c in bare.columns()] == list(METRICS)


ABOUT = {"source": "made", "digest": "0123", "reward": "r-1"}
RATING = {
    "by": "judge",
    "model": "m",
    "agreement": [
        {
            "metric": m, "pairs": 3, "same": 0.75, "kappa": math.nan, "yes_first": 0.5,
            "yes_last": 0.25, "unreadable": 1, "asked": 6,
        }
        for m in METRICS
    ],
}  # fmt: skip


def test_json_is_strict_and_says_where_it_comes_from() -> None:
    found = output.as_json(made(marks=marks(1.0), about=ABOUT, rating=RATING, notes=["by hand"]))
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again["source"] == "made" and again["compared_with"] == "base"
    assert again["histories"] == N and again["dialogues"] == 10 and again["seed"] == 0
    assert again["rating"]["agreement"][0]["kappa"] is None
    base, geli, human = again["rows"]
    assert geli["policy"] == "geli" and geli["score"] == pytest.approx(0.54)
    assert len(geli["score_interval"]) == 2
    assert geli["score_difference"] == pytest.approx(0.03)
    assert base["score_difference"] is None and human["kl"] is None
    assert human["kl_interval"] == [None, None]


def test_csv_has_a_line_a_policy() -> None:
    rows = list(csv.DictReader(io.StringIO(output.csv_text(made()))))
    assert [row["policy"] for row in rows] == ["base", "geli", "human"]
    assert float(rows[1]["score_low"]) <= float(rows[1]["score"]) <= float(rows[1]["score_high"])
    assert rows[2]["kl"] == "" and rows[0]["words_difference"] == ""


def test_markdown_shows_sections_differences_and_the_caption() -> None:
    text = output.markdown(
        made(marks=marks(1.0), about=ABOUT, rating=RATING, notes=["scores by hand"])
    )
    for head in ("### Preference", "### Reward and distance", "### Text", "### Audit"):
        assert head in text
    assert "### Differences from base" in text
    assert "| geli | **+0.0300 [0.0300, 0.0300]**" in text
    assert "30 held-out histories of 10 dialogues of made (digest 0123), seed 0." in text
    assert "| Connection | 75.0 | – | 50.0 | 25.0 | 1 of 6 |" in text
    assert "Scores by hand." in text and "nan" not in text


def test_files_are_written_whole(tmp_path: Path) -> None:
    output.write(made(marks=marks(1.0), about=ABOUT), tmp_path / "out")
    names = {file.name for file in (tmp_path / "out").iterdir()}
    assert names == {"compare.md", "compare.csv", "compare.json", "compare.png"}
    assert (tmp_path / "out" / "compare.png").read_bytes().startswith(b"\x89PNG")
