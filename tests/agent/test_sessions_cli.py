"""`geli sessions`: what it prints, what it leaves, and how it says no."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from agent.cli import cli
from agent.cli.sessions import parse_since
from agent.cli.transcript import clock, printable
from agent.errors import GeliError, StoreError
from agent.owner import Owner
from agent.records import EndedHow, Session
from agent.store import Store
from tests.agent import session_samples as samples
from tests.agent.session_samples import ended, session, turn

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
Geli = Callable[..., Result]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GELI_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TZ", "UTC")
    return tmp_path / "data"


@pytest.fixture
def store(data: Path) -> Store:
    data.mkdir()
    return Store.open("sqlite:///{data}/sessions.sqlite3")


@pytest.fixture
def geli(data: Path) -> Geli:
    """Run `geli sessions …` in this process."""

    def run(*args: str, answer: str | None = None) -> Result:
        return CliRunner().invoke(cli, ["sessions", *args], answer)

    return run


def good(result: Result) -> Result:
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def line_of(result: Result) -> str:
    """The one line of a user's mistake (`agent.cli.main` prints it and leaves with 2)."""
    assert isinstance(result.exception, GeliError | click.ClickException), result.output
    line = str(result.exception)
    assert "\n" not in line
    return line


def process(*args: str) -> subprocess.CompletedProcess[str]:
    """The real `geli sessions …`, standard output piped."""
    code = "import sys; from agent.cli import main; sys.argv[0] = 'geli'; main()"
    return subprocess.run(
        [sys.executable, "-c", code, "sessions", *args],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


# -- list and show ------------------------------------------------------------------------------


def test_an_empty_store(geli: Geli, data: Path) -> None:
    assert good(geli("list")).stdout.count("\n") == 1  # the names of the columns
    assert json.loads(good(geli("list", "--json")).stdout) == []
    assert (data / "sessions.sqlite3").is_file()


def test_list_is_tab_separated_in_a_pipe(geli: Geli, store: Store) -> None:
    store.insert(ended("older"))
    store.insert(ended("newer", 5, overall_affect=40, excluded=True))
    rows = [row.split("\t") for row in good(geli("list")).stdout.splitlines()]
    assert rows[0] == [
        *("id", "started", "length", "turns", "rating", "positive", "seen", "consent", "ended")
    ]
    assert [row[0] for row in rows[1:]] == ["newer", "older"]
    assert rows[1][2:] == ["0:04", "2", "40", "100%", "100%", "learn, excluded", "hung_up"]
    assert rows[2][4] == "–"


def test_list_as_json(geli: Geli, store: Store) -> None:
    store.insert(ended("a", overall_affect=40))
    store.open_session(session("live", started_at=samples.START + timedelta(days=1)))
    live, found = json.loads(good(geli("list", "--json")).stdout)
    assert (live["id"], live["live"], live["positive_share"]) == ("live", True, None)
    assert (found["id"], found["overall_affect"], found["n_turns"]) == ("a", 40.0, 2)
    assert datetime.fromisoformat(found["started_at"]) == samples.START


def test_list_filters(geli: Geli, store: Store) -> None:
    store.insert(ended("a"))
    store.insert(ended("b", 5, overall_affect=40, policy_id="p"))
    store.insert(ended("c", 10, consent="keep"))

    def ids(*args: str) -> list[str]:
        return [found["id"] for found in json.loads(good(geli("list", "--json", *args)).stdout)]

    assert ids("--unrated") == ["c", "a"]
    assert ids("--consent", "keep") == ["c"]
    assert ids("--consent", "keep", "--consent", "learn", "--limit", "2") == ["c", "b"]
    assert ids("--policy", "p") == ["b"]
    assert ids("--since", "2026-11-23T10:05:00Z") == ["c", "b"]


def test_show(geli: Geli, store: Store) -> None:
    full = samples.full_session()
    store.insert(full)
    out = good(geli("show", "full")).stdout
    head, _, table = out.partition("\n\n")
    assert "session    full_Session-1" in head
    assert "rating     62.5 (page)" in head
    assert "comment    zwei Zeilen" in head
    rows = [row.split("\t") for row in table.splitlines()]
    assert rows[2][1:] == [
        *("0:02", "agent", "positive", "67%", "-1.00", "0 ms", "Nice to [interrupted]")
    ]
    assert Session.model_validate_json(good(geli("show", "full", "--json")).stdout) == full


def test_a_text_does_not_steer_the_terminal(geli: Geli, store: Store) -> None:
    store.insert(ended("a", comment="\x1b[2Jgone", turns=[turn(0, text="a\tb\x1b]0;x\x07\nc\x9b")]))
    out = good(geli("show", "a")).stdout
    assert not set("\x1b\x07\x9b") & set(out)
    assert out.splitlines()[-1].split("\t")[-1] == "a b ]0;x  c "


# -- export and import --------------------------------------------------------------------------


def test_export_and_import(
    geli: Geli, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.insert(samples.full_session())  # excluded ones are exported, too
    store.insert(ended("a"))
    store.open_session(session("live"))
    file = tmp_path / "x.jsonl.gz"
    result = good(geli("export", "--out", str(file)))
    assert (result.stdout, result.stderr) == ("", "2 sessions exported\n")

    monkeypatch.setenv("GELI_DATA", str(tmp_path / "other"))
    assert (
        "2 sessions would be imported, 0 known already, 0 rejected"
        in good(geli("import", "--dry-run", str(file))).stdout
    )
    good(geli("import", str(file)))
    again = good(geli("import", str(file), "--json"))
    assert json.loads(again.stdout)["duplicates"] == ["a", "full_Session-1"]
    shown = good(geli("show", "full_Session-1", "--json")).stdout
    assert Session.model_validate_json(shown) == samples.full_session()


def test_export_to_a_pipe(geli: Geli, store: Store) -> None:
    store.insert(ended("a"))
    store.insert(ended("b", consent="keep"))
    result = good(geli("export", "--consent", "keep"))
    assert [json.loads(line)["id"] for line in result.stdout.splitlines()] == ["b"]
    assert result.stderr == "1 session exported\n"
    assert good(geli("export", "--policy", "none")).stdout == ""


def test_import_keeps_the_good_lines(geli: Geli, store: Store, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text("{}\n" + ended("a").model_dump_json() + '\n{"id": "\x1b"\n')
    result = geli("import", str(file))
    assert result.exit_code == 2
    first, second = result.stderr.splitlines()
    assert first == f"{file}:1: schema_version is missing"
    assert second.startswith(f"{file}:3: not JSON")
    assert result.stdout == "1 session imported, 0 known already, 2 rejected\n"
    assert store.has("a")
    report = json.loads(geli("import", str(file), "--json").stdout)
    assert [rejection["line"] for rejection in report["rejected"]] == [1, 3]


# -- rate and delete ----------------------------------------------------------------------------


def test_rate(geli: Geli, store: Store) -> None:
    store.insert(ended("20261123-a"))
    assert good(geli("rate", "2026", "72.5", "--comment", "fine")).stdout == (
        "20261123-a is rated 72.5\n"
    )
    found = store.get("20261123-a")
    assert (found.overall_affect, found.overall_affect_source, found.comment) == (
        72.5,
        "cli",
        "fine",
    )
    for value in ("101", "nan", "inf"):
        assert "overall affect is 0 to 100" in line_of(geli("rate", "2026", value))
    assert store.get("20261123-a").overall_affect == 72.5


def test_delete_asks_first(geli: Geli, store: Store) -> None:
    store.insert(ended("abc-1", overall_affect=5))
    store.insert(ended("abd-1"))
    refused = geli("delete", "abc", answer="n\n")
    assert refused.exit_code != 0
    assert "abc-1: 2 turns, 1 window, rating 5\ndelete 1 session for good?" in refused.output
    assert geli("delete", "abc").exit_code != 0  # no answer is no
    assert store.has("abc-1")
    assert "1 session deleted" in good(geli("delete", "abc", answer="y\n")).stdout
    assert not store.has("abc-1") and store.has("abd-1")


def test_delete_several(geli: Geli, store: Store) -> None:
    for name in ("a", "b", "c"):
        store.insert(ended(name))
    assert "no session 'x'" in line_of(geli("delete", "a", "x", "--yes"))
    assert store.has("a")  # all or none
    assert "2 sessions deleted" in good(geli("delete", "a", "b", "a", "--yes")).stdout
    assert [summary.id for summary in store.list()] == ["c"]


# -- what goes wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["show", "nope"], "no session 'nope' — see 'geli sessions list'"),
        (["show", "ab"], "'ab' begins 2 session ids — one of ab-1, ab-2"),
        (["rate", "nope", "5"], "no session 'nope'"),
        (["rate", "ab-1", "many"], "'many' is not a valid float"),
        (["delete", "ab-3"], "did you mean ab-"),
        (["list", "--since", "yesterday"], "--since 'yesterday' is no time — e.g. 2026-11-01"),
        (["list", "--limit", "0"], "0 is not in the range x>=1"),
        (["list", "--consent", "talk_only"], "'talk_only' is not one of"),
        (["list", "--set", "store.url=nonsense"], "store.url = 'nonsense' is no database URL"),
        (["import", "/no/such/file"], "/no/such/file cannot be read: No such file"),
        (["export", "--out", "/no/such/folder/x.jsonl"], "cannot be written: No such file"),
    ],
)
def test_mistakes_are_one_line(geli: Geli, store: Store, args: list[str], says: str) -> None:
    store.insert(ended("ab-1"))
    store.insert(ended("ab-2"))
    result = CliRunner().invoke(cli, ["sessions", *args], standalone_mode=False)
    assert says in str(line_of(result)) + getattr(result.exception, "message", "")


def test_the_program_leaves_with_2_and_one_line(store: Store) -> None:
    missing = process("show", "nope")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert missing.stderr == "geli: no session 'nope' — see 'geli sessions list'\n"


def test_the_program_in_a_pipe(store: Store) -> None:
    store.insert(ended("a"))
    gone = Owner(Owner.current().host, 2**22 + 1, "1")
    crashed = store.open_session(session("cut", started_at=samples.START), gone)
    crashed.add_turn(turn(0))
    listed = process("list")
    assert listed.returncode == 0
    assert listed.stderr == "cut was cut off by a crash and is closed now\n"
    rows = [row.split("\t") for row in listed.stdout.splitlines()]
    assert [(row[0], row[-1]) for row in rows[1:]] == [("cut", "crashed"), ("a", "hung_up")]
    assert store.get("cut").ended_how is EndedHow.CRASHED


def test_a_rejected_line_leaves_with_2(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    file.write_text("nonsense\n")
    result = process("import", str(file))
    assert result.returncode == 2
    assert result.stderr.startswith(f"{file}:1: not JSON")
    assert result.stdout == "0 sessions imported, 0 known already, 1 rejected\n"


NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "then"),
    [
        ("7d", NOW - timedelta(days=7)),
        ("12h", NOW - timedelta(hours=12)),
        (" 30m ", NOW - timedelta(minutes=30)),
        ("2026-11-01T00:00:00+02:00", datetime(2026, 10, 31, 22, tzinfo=UTC)),
        ("2026-11-01", datetime(2026, 11, 1).astimezone(UTC)),
    ],
)
def test_since(text: str, then: datetime) -> None:
    assert parse_since(text, NOW) == then


@pytest.mark.parametrize("text", ["", "7", "7w", "-7d", "999999d", "2026-13-01", "0001-01-01"])
def test_since_that_is_no_time(text: str) -> None:
    if text == "0001-01-01":
        text += "T00:00:00+14:00"
    with pytest.raises(StoreError, match="is no time"):
        parse_since(text, NOW)


def test_small_things_of_the_transcript() -> None:
    assert [clock(s) for s in (0, 59.4, 59.6, 3725)] == ["0:00", "0:59", "1:00", "62:05"]
    assert printable("a\u2028b\u202ec\x00ü世") == "a b c ü世"
