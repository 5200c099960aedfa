"""`geli learn compare` as a person types it, with a scripted policy and reward."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from agent.cli import cli
from agent.errors import EngineError
from learning.compare.questions import METRICS, QUESTIONS
from learning.dialogue import Utterance
from learning.errors import DataError
from tests.learning.compare.fake_judge import serving, verdict

pytestmark = pytest.mark.unit

History = Sequence[Utterance]
SOURCE = "simulated:1:20"


class Writer:
    """The base says one thing, an adapter another."""

    opened: list[Path | None] = []

    def __init__(self, adapter: Path | None) -> None:
        self.adapter = adapter

    @classmethod
    def open(cls, config: Any, adapter: Path | None = None) -> Writer:
        cls.opened.append(adapter)
        return cls(adapter)

    def write(self, histories: Sequence[History], seed: int) -> list[str]:
        say = "lovely, tell me more about it" if self.adapter else "I see"
        return [f"{history[-1].text.split()[0]} {say}" for history in histories]

    def kl(self, histories: Sequence[History], replies: Sequence[str]) -> list[float]:
        return [1.5 if self.adapter else 0.0] * len(replies)


class Letters:
    """Longer is better."""

    id = "r-letters"

    def score(self, histories: Sequence[History], replies: Sequence[str]) -> list[float]:
        return [float(len(reply)) for reply in replies]


@pytest.fixture(autouse=True)
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import learning.reward
    from learning.compare import output

    monkeypatch.setenv("GELI_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Writer, "opened", [])
    # The module itself would load torch.
    scripted = SimpleNamespace(open_writer=Writer.open)
    monkeypatch.setitem(sys.modules, "learning.policy.writing", scripted)
    monkeypatch.setattr(output, "picture", lambda _, file: file.write_bytes(b"drawn"))
    monkeypatch.setattr(learning.reward, "load", lambda *_: Letters())
    for name, files in {"rwd": ["reward.json"], "mine": list(ADAPTER)}.items():
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).write_text("{}")


ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
USUAL = (
    "--policies", "base,geli=./mine,human", "--data", SOURCE, "--reward", "rwd",
    "--histories", "12", "--out", "out",
)  # fmt: skip


def compare(*args: str) -> Result:
    return CliRunner().invoke(cli, ["learn", "compare", *args])


def table(*args: str) -> dict[str, Any]:
    result = compare(*args, "--json")
    assert result.exit_code == 0, (result.output, result.exception)
    return dict(json.loads(result.stdout))


def test_a_table_of_three_policies(tmp_path: Path) -> None:
    found = table(*USUAL)
    base, geli, human = found["rows"]
    assert [row["policy"] for row in found["rows"]] == ["base", "geli", "human"]
    assert found["histories"] == 12 and found["reward"] == "r-letters"
    assert found["source"].startswith("simulated:1") and len(found["digest"]) == 16
    assert (base["kl"], geli["kl"], human["kl"]) == (0, 1.5, None)
    assert geli["score_difference_interval"][0] > 0 and geli["win_rate"] == 1
    assert {f.name for f in (tmp_path / "out").iterdir()} == {
        "compare.md", "compare.csv", "compare.json", "compare.png",
        "replies-base.json", "replies-geli.json",
    }  # fmt: skip
    assert json.loads((tmp_path / "out" / "compare.json").read_text()) == found


def test_the_table_for_a_person_and_a_second_run_that_writes_nothing() -> None:
    first = compare(*USUAL)
    assert "### Differences from base" in first.stdout and "| geli |" in first.stdout
    assert Writer.opened == [None, Path("mine")]
    again = compare(*USUAL)
    assert again.stdout == first.stdout and len(Writer.opened) == 2


def test_the_seed_draws_other_histories() -> None:
    one = table(*USUAL, "--seed", "1")
    assert one == table(*USUAL, "--seed", "1")
    other = table(*USUAL, "--seed", "2")
    assert one["rows"] != other["rows"] and (one["seed"], other["seed"]) == (1, 2)


def test_a_judge_fills_the_eight_columns(tmp_path: Path) -> None:
    with serving(lambda b: verdict(b, lambda _, reply: "lovely" in reply)) as server:
        found = table(*USUAL, "--judge", "--set", f"judge.url={server.url}")
        asked = len(server.bodies)
        table(*USUAL, "--judge", "--set", f"judge.url={server.url}")
        assert asked == len(server.bodies) == 12 * 8 * 2
    base, geli, _ = found["rows"]
    for question in QUESTIONS:
        expected = (1, 0) if question.negated else (0, 1)
        assert (base[question.metric], geli[question.metric]) == expected
    assert [a["metric"] for a in found["rating"]["agreement"]] == list(METRICS)
    assert all(a["same"] == 1 for a in found["rating"]["agreement"])
    assert (tmp_path / "out" / "judge.jsonl").exists()


def test_a_judge_that_is_down_leaves_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import learning.compare.judge_client as judge_client

    monkeypatch.setattr(judge_client, "FIRST_WAIT_S", 0.0)
    with serving(lambda _: "") as server:
        url = server.url
    result = compare(*USUAL, "--judge", "--set", f"judge.url={url}")
    assert isinstance(result.exception, EngineError)
    assert "no connection" in str(result.exception)


def test_people_fill_a_sheet_and_get_the_table(tmp_path: Path) -> None:
    table(*USUAL, "--sheet-out", "sheets")
    key = json.loads((tmp_path / "sheets" / "key.json").read_text())["items"]
    rows = list(
        csv.DictReader(
            io.StringIO((tmp_path / "sheets" / "sheet.csv").read_text("utf-8-sig"), newline="")
        )
    )
    for rater in ("ada", "bo"):
        for row in rows:
            for question in QUESTIONS:
                good = key[row["id"]]["policy"] == "geli"
                row[question.column] = "yes" if good != question.negated else "no"
        out = io.StringIO()
        writer = csv.DictWriter(out, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
        (tmp_path / f"{rater}.csv").write_text(out.getvalue())
    Writer.opened.clear()
    back = ("--sheet-in", "ada.csv", "--sheet-in", "bo.csv", "--sheet-key", "sheets/key.json")
    found = table(*back, "--out", "people")
    assert Writer.opened == []
    assert found["rating"]["by"] == "people" and found["rating"]["raters"] == 2
    base, geli, human = found["rows"]
    for metric in METRICS:
        assert (base[metric], geli[metric], human[metric]) == (0, 1, 0)
    assert found["source"].startswith("simulated:1") and geli["score_difference"] > 0
    assert "Preference by 2 raters" in (tmp_path / "people" / "compare.md").read_text()


def test_reading_sheets_loads_no_models(tmp_path: Path) -> None:
    table(*USUAL, "--sheet-out", "sheets")
    file = tmp_path / "sheets" / "sheet.csv"
    text = file.read_text("utf-8-sig").replace(",,,,,,,,", ",1,1,0,0,1,1,0,1")
    file.write_text(text)
    code = (
        "import sys; from click.testing import CliRunner; from agent.cli import cli;"
        "r = CliRunner().invoke(cli, sys.argv[1:]); print(r.exit_code, 'torch' in sys.modules)"
    )
    args = ["learn", "compare", "--sheet-in", str(file), "--sheet-key", "sheets/key.json"]
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code, *args],
        capture_output=True, text=True, check=True, env={"PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.stdout.split() == ["0", "False"], done.stderr


@pytest.mark.parametrize(
    ("args", "line"),
    [
        ((), "--policies is missing"),
        (("--policies", "base", "--data", SOURCE), "--reward is missing"),
        (("--sheet-in", "a.csv"), "belong together"),
        (("--sheet-in", "a", "--sheet-key", "k", "--judge"), "only reads sheets"),
        ((*USUAL, "--histories", "1"), "--histories"),
    ],
)
def test_usage(args: tuple[str, ...], line: str) -> None:
    result = compare(*args)
    assert result.exit_code == 2 and line in result.output


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("--policies", "base,base"), "base is there twice"),
        (("--policies", "base,nowhere/at/all"), "no adapter_config.json"),
        (("--judge",), "no judge is configured"),
        (("--policies", "base", "--judge", "--set", "judge.url=http://[::1]/v1"), "at least two"),
        (("--data", "nothing:1"), "no source"),
        (("--sheet-in", "none.csv", "--sheet-key", "none.json"), "leave out"),
    ],
)
def test_mistakes_are_one_line(args: tuple[str, ...], line: str) -> None:
    result = compare(*USUAL, *args)
    said = str(result.exception) if isinstance(result.exception, DataError) else result.output
    assert line in said
    assert Writer.opened == []


@pytest.mark.parametrize(
    ("source", "refused"),
    [("store", True), ("candor:x", True), ("store:simulated", False), ("simulated:1:20", False)],
)
def test_peoples_words_do_not_go_to_a_judge_elsewhere(
    source: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    import learning.data

    def load(*_: object) -> None:
        raise DataError("this far")

    monkeypatch.setattr(learning.data, "load", load)
    args = ("--policies", "base,human", "--data", source, "--reward", "rwd", "--judge")
    where = ("--set", "judge.url=https://judge.invalid/v1")
    said = str(compare(*args, *where).exception)
    assert ("would leave this machine" in said) is refused
    assert str(compare(*args, *where, "--allow-remote-judge").exception) == "this far"
    assert str(compare(*args, "--set", "judge.url=http://localhost:1/v1").exception) == "this far"
