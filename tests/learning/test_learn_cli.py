"""`geli learn` as a person types it: what it prints, and the line it gives for each mistake."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent.errors import GeliError
from agent.records import Session
from agent.store import Store
from learning.cli import COMMANDS, command
from tests.agent.session_samples import ended, turn, window

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GELI_DATA", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


def keep(*sessions: Session) -> None:
    from agent.config import load

    with Store.open(load("cpu").store.url) as store:
        for session in sessions:
            store.insert(session)


def talked(n: int, rating: float | None, positive: bool | None = True) -> Session:
    turns = [turn(0), turn(1, "agent"), turn(2), turn(3, "agent")]
    faces = [window(i, positive) for i in range(9)]
    return ended(f"s-{n}", n, overall_affect=rating, turns=turns, windows=faces)


def said(*arguments: str) -> Result:
    return CliRunner().invoke(command, list(arguments))


def mistake(*arguments: str) -> str:
    result = said(*arguments)
    if isinstance(result.exception, GeliError):
        return str(result.exception)
    assert result.exit_code == 2, result.output
    return result.output


def test_data_counts_what_a_store_holds() -> None:
    keep(*(talked(i, 40.0 + i, positive=i % 2 == 0) for i in range(4)), talked(9, None, None))
    found = json.loads(said("data", "store", "--json").output)
    assert (found["dialogues"], found["rated"], found["scored_turns"]) == (5, 4, 10)
    assert found["labelled_turns"] == 8 and found["positive_turns"] == 4
    text = said("data", "store").output
    assert "dialogues   5, rated 4" in text and "80% of scored turns, 50% of these positive" in text
    assert "40–50" in text


@pytest.mark.parametrize("command_", [("table", "--data", "store"), ("reward",), ("round",)])
def test_an_empty_store(command_: tuple[str, ...]) -> None:
    assert "no dialogues to learn from" in mistake(*command_)


@pytest.mark.parametrize("command_", [("table", "--data", "store"), ("reward",), ("round",)])
def test_one_session(command_: tuple[str, ...]) -> None:
    keep(talked(0, 50.0))
    line = mistake(*command_)
    assert "store: 1 rated session, " in line and "geli sessions rate" in line


@pytest.mark.parametrize("command_", [("table", "--data", "store"), ("reward",), ("round",)])
def test_ratings_that_are_all_equal(command_: tuple[str, ...]) -> None:
    keep(*(talked(i, 50.0) for i in range(24)))
    assert "all 24 ratings are 50" in mistake(*command_)


@pytest.mark.parametrize("command_", [("table", "--data", "store"), ("reward",), ("round",)])
def test_no_faces_at_all(command_: tuple[str, ...]) -> None:
    keep(*(talked(i, 40.0 + i, None) for i in range(24)))
    line = mistake(*command_)
    assert "no turn has a label" in line
    assert "--methods" in line or "reward.shaping=none" in line


def test_a_source_a_row_and_a_reward_that_are_not_there() -> None:
    assert "no source 'nowhere'" in mistake("data", "nowhere")
    assert "no method 'rdr'" in mistake("table", "--data", "store", "--methods", "rdr")
    assert "no such directory" in mistake("data", "candor:/nowhere/at/all")
    keep(talked(0, 50.0))
    line = mistake("unroll", "s-0", "--reward", "r-none")
    assert "r-none" in line
    assert "no session 'x'" in mistake("unroll", "x", "--reward", "r-none")


def test_a_dry_run_of_a_round_says_what_it_would_do_and_does_nothing(data: Path) -> None:
    keep(*(talked(i, 40.0 + i, positive=i % 2 == 0) for i in range(24)))
    out = said("round", "--dry-run").output
    assert "24 sessions of store, 24 rated" in out
    assert "KL at most" in out and "candidate" in out
    assert not (data / "rounds").exists()


def test_help_is_there_for_every_command_and_loads_nothing_heavy() -> None:
    code = """
import sys
from click.testing import CliRunner
from learning.cli import command, COMMANDS
for name in COMMANDS:
    assert CliRunner().invoke(command, [name, "--help"]).exit_code == 0, name
print(sorted({"torch", "transformers", "trl", "matplotlib", "datasets"} & set(sys.modules)))
"""
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert out.stdout.strip() == "[]"
    assert set(COMMANDS) >= {"table", "round", "policies"}
