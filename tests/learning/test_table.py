"""Table 3 on made turns: every row, its resumption, its outputs, and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from agent.learning_config import Reward
from learning import table_output
from learning.dialogue import Dataset, Dialogue, Utterance
from learning.errors import DataError
from learning.table import ALL, Table, build, check, settings_of
from learning.turns import Turns
from tests.learning.samples import turns_with_signal

pytestmark = pytest.mark.unit
torch.set_num_threads(1)

QUICK = Reward(components=4, hidden=16, dropout=0.0, learning_rate=5e-3, epochs=8, subset=8)


def dataset(turns: Turns, **more: object) -> Dataset:
    """Dialogues with the ids, lengths, ratings and labels of the turns' bank."""
    bank = turns.bank
    dialogues = []
    for d, name in enumerate(bank.ids):
        said = tuple(
            Utterance("agent", "x", li=int(g))
            for g in bank.li[bank.turns(d)]  # type: ignore[arg-type]
        )
        dialogues.append(Dialogue(name, said, float(bank.returns[d])))
    return replace(Dataset("made", tuple(dialogues), "made labels"), **more)  # type: ignore[arg-type]


def table(folder: Path, methods: tuple[str, ...], seeds: int = 1, **more: object) -> Table:
    turns = turns_with_signal(150)
    return build(
        dataset(turns, **more), turns, QUICK, methods, range(seeds), "conversation", folder
    )


def test_every_row_of_the_paper_is_one_call(tmp_path: Path) -> None:
    made = table(tmp_path, ALL)
    rows = {row.method: row.estimates for row in made.rows}
    assert list(rows) == list(ALL)
    assert rows["mean"]["delta"].value == pytest.approx(0, abs=1e-9)
    assert rows["rrd+va"]["delta"].value > 0
    assert rows["rrd"]["mse"].value < rows["mean"]["mse"].value
    assert rows["ridge"]["mse"].value < rows["mean"]["mse"].value
    assert rows["rrd+va"]["truth_rank"].value > 0.5
    for row in made.rows:
        e = row.estimates["mse"]
        assert e.low <= e.value <= e.high
    assert made.rows[0].mse_over_mean == (1.0, 1.0, 1.0)


def test_what_is_there_is_not_computed_again(tmp_path: Path) -> None:
    first = table(tmp_path, ("mean", "rrd"), seeds=2)
    made = sorted(tmp_path.rglob("rrd.npz"))
    assert len(made) == 2
    stamps = [f.stat().st_mtime_ns for f in made]
    made[1].unlink()  # as if it had been killed before
    again = table(tmp_path, ("mean", "rrd"), seeds=2)
    assert [r.estimates["mse"] for r in again.rows] == [r.estimates["mse"] for r in first.rows]
    assert made[0].stat().st_mtime_ns == stamps[0] and made[1].is_file()


def test_other_settings_do_not_take_each_others_results(tmp_path: Path) -> None:
    table(tmp_path, ("rrd",))
    turns = turns_with_signal(150)
    other = QUICK.model_copy(update={"epochs": 2})
    build(dataset(turns), turns, other, ("rrd",), [0], "conversation", tmp_path)
    assert len(list(tmp_path.rglob("rrd.npz"))) == 2


def test_several_processes_give_the_same_table(tmp_path: Path) -> None:
    turns = turns_with_signal(80)
    data = dataset(turns)
    methods = ("mean", "rrd+va")
    one = build(data, turns, QUICK, methods, range(2), "conversation", tmp_path / "one")
    two = build(data, turns, QUICK, methods, range(2), "conversation", tmp_path / "two", 2)
    for a, b in zip(one.rows, two.rows, strict=True):
        assert a.estimates["mse"].value == pytest.approx(b.estimates["mse"].value, rel=1e-6)


def test_markdown_csv_json_and_the_picture_agree(tmp_path: Path) -> None:
    made = table(tmp_path, ("mean", "rrd+va"), seeds=2, scale=(1.0, 10.0), dropped={"too short": 3})
    table_output.write(made, tmp_path)
    content = json.loads((tmp_path / "table.json").read_text())
    row = content["rows"][1]
    assert row["method"] == "rrd+va"
    assert set(row) >= {"mse", "mae", "r_positive", "r_non_positive", "delta", "truth_rank"}
    low, high = row["mse_interval"]
    assert low <= row["mse"] <= high
    assert row["mse_original_scale"] == pytest.approx(row["mse"] * 0.09**2)
    assert content["rows"][0]["truth_rank"] is None
    text = (tmp_path / "table.md").read_text()
    assert "| rrd+va |" in text and "Left out: 3 too short." in text and "MSE on 1–10" in text
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert len(lines) == 3 and lines[2].startswith("rrd+va,")
    assert (tmp_path / "table.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("method", "wanted"),
    [
        ("rrd160", ("rrd", "none", 160)),
        ("full", ("rrd", "none", 0)),
        ("rudder+ls", ("rudder", "ls", 8)),
        ("va", ("mean", "va", 8)),
    ],
)
def test_a_row_is_its_settings(method: str, wanted: tuple[str, str, int]) -> None:
    made = settings_of(method, QUICK, 3)
    assert (made.method, made.shaping, made.subset, made.seed) == (*wanted, 3)


@pytest.mark.parametrize("method", ["rdr", "mean+va", "ircr8", "rrd+", "va+rrd", ""])
def test_a_row_that_there_is_not_is_refused(method: str) -> None:
    with pytest.raises(DataError, match="no method"):
        settings_of(method, QUICK, 0)


def test_data_that_cannot_make_a_table_is_refused_in_a_line() -> None:
    turns = turns_with_signal(30)
    data = dataset(turns)
    one = data.only(data.dialogues[:1])
    equal = data.only(replace(d, rating=50.0) for d in data.dialogues)
    unseen = data.only(
        replace(d, turns=tuple(replace(t, li=None) for t in d.turns)) for d in data.dialogues
    )
    with pytest.raises(DataError, match="1 rated session, a table needs 10"):
        check(one, ALL, QUICK)
    with pytest.raises(DataError, match="all 30 ratings are 50"):
        check(equal, ALL, QUICK)
    with pytest.raises(DataError, match="no faces seen"):
        check(unseen, ALL, QUICK)
    check(unseen, ("mean", "rrd", "rrd+ls"), QUICK)
