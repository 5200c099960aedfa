"""`geli sessions`: what it prints, what it leaves, and how it says no."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from agent import corrections, policies, records
from agent.cli import cli, main
from agent.cli.sessions import parse_time
from agent.cli.transcript import clock, printable
from agent.errors import GeliError, StoreError
from agent.owner import Owner
from agent.records import EndedHow, Session
from agent.retention import remove
from agent.store import Store
from tests.agent import session_samples as samples
from tests.agent.session_samples import PEOPLE, TOKENS, ended, session, turn, window
from tests.agent.stores import SECRETS, on_disk, read_elsewhere, with_secrets

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
Geli = Callable[..., Result]


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GELI_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TZ", "UTC")
    return tmp_path / "data"


@pytest.fixture
def store(data: Path) -> Iterator[Store]:
    data.mkdir()
    with Store.open("sqlite:///{data}/sessions.sqlite3", busy_timeout_s=0.05) as opened:
        yield opened


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


@pytest.fixture
def leaves(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Run the program as it is started; how it leaves, and what it says on standard error."""

    def run(*args: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["geli", "sessions", *args])
        with pytest.raises(SystemExit) as left:
            main()
        said = capsys.readouterr()
        assert said.out == ""
        assert isinstance(left.value.code, int)
        return left.value.code, said.err

    return run


def read(result: Result) -> Any:
    """What a command with --json wrote."""
    return json.loads(good(result).stdout)


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
    store.insert(ended("newer", 5, overall_affect=40, excluded=True, tags=["a", "ü"]))
    rows = [row.split("\t") for row in good(geli("list")).stdout.splitlines()]
    assert rows[0] == [
        *("id", "started", "length", "turns", "rating", "positive", "labels", "seen"),
        *("consent", "ended", "tags"),
    ]
    assert [row[0] for row in rows[1:]] == ["newer", "older"]
    assert rows[1][2:] == [
        *("0:04", "2", "40", "100%", "0%", "100%", "learn, excluded", "hung_up", "a, ü"),
    ]
    assert rows[2][10] == ""
    assert rows[2][4] == "–"


def test_list_as_json(geli: Geli, store: Store) -> None:
    store.insert(ended("a", overall_affect=40))
    store.open_session(session("live", started_at=samples.START + timedelta(days=1)))
    live, found = json.loads(good(geli("list", "--json")).stdout)
    assert (live["id"], live["live"], live["positive_share"]) == ("live", True, None)
    assert (found["id"], found["overall_affect"], found["n_turns"]) == ("a", 40.0, 2)
    assert datetime.fromisoformat(found["started_at"]) == samples.START


@pytest.mark.parametrize(
    ("args", "found"),
    [
        ("", "c b a"),
        ("--unrated", "c a"),
        ("--consent keep", "c"),
        ("--consent keep --consent learn --limit 2", "c b"),
        ("--policy p", "b"),
        ("--since 2026-11-23T10:05:00Z", "c b"),
        ("--until 2026-11-23T10:05:00Z", "a"),
        ("--since 2026-11-23T10:05:00Z --until 2026-11-23T10:06:00Z", "b"),
        ("--until 99999d", ""),
        ("--ended crashed", "b"),
        ("--ended crashed --ended hung_up", "c b a"),
        ("--excluded", "a"),
        ("--included", "c b"),
        ("--seen-below 0.5", "b"),
        ("--tag two", "c"),
        ("--tag TWO", ""),
        (f"--person {TOKENS[0].replace(' ', '_')}", "a"),
        ("--search soup", "b a"),
        ("--search SOUP --unrated", "a"),
        ("--sort rating", "b c a"),
        ("--sort turns --reverse", "c a b"),
        ("--sort started --reverse", "a b c"),
    ],
)
def test_list_filters_and_sorts(geli: Geli, store: Store, args: str, found: str) -> None:
    person = records.person_of(TOKENS[0].replace(" ", "_"))
    soup = turn(0, text="Soup?")
    store.insert(ended("a", excluded=True, person=person, turns=[soup, turn(1, "agent")]))
    store.insert(
        ended("b", 5, overall_affect=40, policy_id="p", ended_how="crashed", windows=[window(0)],
              turns=[turn(0), soup.model_copy(update={"index": 1}), turn(2)])
    )  # fmt: skip
    store.insert(ended("c", 10, consent="keep", tags=["one", "two"]))
    options = args.split()
    assert " ".join(one["id"] for one in read(geli("list", "--json", *options))) == found
    rows = good(geli("list", *options)).stdout.splitlines()[1:]
    assert " ".join(row.split("\t")[0] for row in rows) == found
    if "--sort" not in options and "--limit" not in options:
        exported = [json.loads(line) for line in good(geli("export", *options)).stdout.splitlines()]
        assert " ".join(one["id"] for one in exported[::-1]) == found
        assert read(geli("stats", "--json", *options))["sessions"] == len(found.split())


def test_stats(geli: Geli, store: Store) -> None:
    store.insert(ended("a", overall_affect=40, policy_id="p\x1b]0;x\x07"))
    store.insert(ended("b", consent="keep"))
    out = good(geli("stats")).stdout
    assert out.splitlines()[0] == "sessions   2, 0 in progress, 0.0 h, 4 turns"
    assert not set("\x1b\x07") & set(out)
    found = read(geli("stats", "--json"))
    assert (found["rated"], found["mean_rating"]) == (1, 40.0)
    assert found["ratings"] == [0, 0, 0, 0, 1, 0, 0, 0, 0, 0]
    assert found["by_consent"] == {"learn": 1, "keep": 1}


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


# -- corrections --------------------------------------------------------------------------------


def test_rate(geli: Geli, store: Store) -> None:
    store.insert(ended("20261123-a"))
    assert good(geli("rate", "2026", "72.5", "--comment", "fine")).stdout == (
        "20261123-a: rating: not rated → 72.5 (change 1)\n"
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


@pytest.mark.parametrize(
    ("args", "changes", "said"),
    [
        ("exclude ID --reason x", {"excluded_reason": "x"},
         "excluded: excluded (a test call) → excluded (x)"),
        ("include ID", {"excluded": False, "excluded_reason": None},
         "excluded: excluded (a test call) → included"),
        ("note ID text", {"note": "text"}, "note: 'asked twice for the same recipe' → 'text'"),
        ("tag ID --add new --add b --remove cooking", {"tags": ["b", "new", "täst"]},
         "tags: cooking, täst → b, new, täst"),
        ("label ID 1 not", {"li": 0}, "label of turn 1: positive → not positive"),
        ("label ID 1 unknown", {"li": None}, "label of turn 1: positive → unknown"),
        ("rate ID 5", {"overall_affect": 5.0}, "rating: 62.5 → 5"),
    ],
)  # fmt: skip
def test_correct_and_undo(
    geli: Geli, store: Store, args: str, changes: dict[str, Any], said: str
) -> None:
    before = samples.full_session()
    store.insert(before)
    command = [part.replace("ID", "full") for part in args.split()]
    assert good(geli(*command, "--by", "ada")).stdout == f"full_Session-1: {said} (change 1)\n"
    found = store.get(before.id)
    now = found.model_dump() | found.turns[1].model_dump(include={"li"})
    assert {name: now[name] for name in changes} == changes
    assert good(geli(*command)).stdout == "full_Session-1: it is so already\n"
    assert read(geli(*command, "--json")) == []

    (listed,) = read(geli("changes", "full", "--json"))
    assert (listed["id"], listed["session_id"], listed["by"]) == (1, before.id, "ada")
    assert {name: listed["after"][name] for name in changes} == changes
    assert datetime.fromisoformat(listed["at"]) <= datetime.now(UTC)
    (undone,) = read(geli("undo", "1", "--json", "--by", "bob"))
    assert (undone["id"], undone["undoes"], undone["by"]) == (2, 1, "bob")
    assert store.get(before.id) == before
    (again,) = read(geli(*command, "--json"))
    assert {name: again["after"][name] for name in changes} == changes
    assert good(geli("undo", "3")).stdout.endswith("(change 4)\n")
    rows = [row.split("\t") for row in good(geli("changes")).stdout.splitlines()]
    assert rows[0] == ["change", "at", "by", "session", "what", "undoes"]
    assert [(row[0], row[2], row[5]) for row in rows[3:]] == [("2", "bob", "1"), ("1", "ada", "")]
    assert rows[4][3:5] == [before.id, said.replace("\\n", " ")]
    assert len(read(geli("changes", "--limit", "2", "--json"))) == 2


def test_several_are_corrected_together(geli: Geli, store: Store) -> None:
    for name in ("a-1", "b-1"):
        store.insert(ended(name, tags=["x"] if name == "a-1" else []))
    out = good(geli("tag", "a", "b", "--add", "x")).stdout
    assert out == "a-1: it is so already\nb-1: tags: none → x (change 1)\n"
    assert [one["session_id"] for one in read(geli("exclude", "a", "b", "--reason", "r", "--json"))]
    assert "no session 'nix'" in line_of(geli("include", "a", "nix"))
    assert store.get("a-1").excluded  # all or none
    good(geli("include", "a", "b"))
    assert not store.get("a-1").excluded and not store.get("b-1").excluded


def test_nothing_was_corrected(geli: Geli, store: Store) -> None:
    store.insert(ended("a"))
    assert good(geli("changes")).stdout.count("\n") == 1
    assert read(geli("changes", "a", "--json")) == []


def test_an_imported_text_does_not_steer_the_terminal_from_the_log(
    geli: Geli, store: Store
) -> None:
    bad = "\x1b]0;title\x07\x9b"  # click drops the simplest by itself
    store.insert(ended("a", excluded=True, excluded_reason=bad, tags=[bad], note=bad))
    out = good(geli("include", "a")).stdout + good(geli("tag", "a", "--add", "x")).stdout
    out += good(geli("note", "a", "")).stdout + good(geli("changes")).stdout
    assert not set("\x1b\x07\x9b") & set(out) and "]0;title" in out


def test_who_has_no_name(geli: Geli, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a container the number of a user may have none."""

    def none() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    store.insert(ended("a"))
    monkeypatch.setattr(getpass, "getuser", none)
    assert read(geli("note", "a", "text", "--json"))[0]["by"] == f"user {os.getuid()}"


# -- delete and purge ---------------------------------------------------------------------------


def entry(data: Path, entry_id: str, *trained_on: str) -> None:
    path = policies.registry_of(data) / "policies" / entry_id
    path.mkdir(parents=True)
    (path / "manifest.json").write_text(json.dumps({"id": entry_id, "sessions": trained_on}))


def test_delete_asks_first(geli: Geli, store: Store) -> None:
    store.insert(ended("abc-1", overall_affect=5))
    store.insert(ended("abd-1"))
    refused = geli("delete", "abc", answer="n\n")
    assert refused.exit_code != 0
    assert "abc-1: 2 turns, 0:04, rating 5\ndelete 1 session for good?" in refused.output
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


def test_delete_a_person(geli: Geli, store: Store, data: Path) -> None:
    for n, person in enumerate([PEOPLE[0], PEOPLE[1], None, PEOPLE[0]]):
        store.insert(ended(f"s-{n}", n, person=person))
    entry(data, "p-1", "s-0", "s-1")
    refused = geli("delete", "--person", TOKENS[0], answer="n\n")
    assert refused.exit_code != 0 and "delete 2 sessions for good?" in refused.output
    assert refused.output.splitlines()[0].startswith("s-3: 2 turns")
    assert len(store.ids()) == 4
    out = good(geli("delete", "--person", TOKENS[0], "s-2", "--yes")).stdout
    assert "3 sessions deleted\ntrained on it: p-1; retrain with 'geli learn round'\n" in out
    assert store.ids() == ["s-1"]
    assert policies.deleted_sessions(policies.registry_of(data), "policy", "p-1") == ("s-0",)
    assert good(geli("delete", "--person", TOKENS[0])).stdout == "no sessions of this person\n"
    assert read(geli("delete", "--person", TOKENS[0], "--yes", "--json"))["ids"] == []
    assert read(geli("delete", "--person", TOKENS[1], "--yes", "--json")) == {
        "ids": ["s-1"], "turns": 2, "windows": 1, "trained": ["p-1"], "unmarked": {},
        "left_over": "",
    }  # fmt: skip


RETENTION = ("--set", "retention.keep_days=10", "--set", "retention.learn_days=0")


def old_and_new(store: Store) -> None:
    now = datetime.now(UTC)
    for name, days, consent in (("new", 9, "keep"), ("old", 12, "keep"), ("ever", 99, "learn")):
        store.insert(ended(name, started_at=now - timedelta(days=days), consent=consent))
    store.open_session(session("live", started_at=now - timedelta(days=99)))


def test_purge_only_says_what_is_due(geli: Geli, store: Store) -> None:
    old_and_new(store)
    before = [store.get(one) for one in store.ids()]
    out = good(geli("purge", *RETENTION)).stdout.splitlines()
    assert out[:2] == ["keep: kept 10 days", "learn: kept for good"]
    assert out[2].split("\t") == ["id", "started", "consent", "days", "limit"]
    assert out[3].split("\t")[0::2] == ["old", "keep", "10"]
    assert out[4:] == ["1 session due for deletion: geli sessions purge --yes"]
    told = read(geli("purge", *RETENTION, "--json"))
    assert [one["id"] for one in told["due"]] == ["old"]
    assert told["removed"] is None
    assert [store.get(one) for one in store.ids()] == before
    none = good(geli("purge", "--set", "retention.keep_days=0")).stdout.splitlines()
    assert none == ["keep: kept for good", "learn: kept 730 days", "0 sessions due for deletion"]


def test_purge(geli: Geli, store: Store, data: Path) -> None:
    old_and_new(store)
    entry(data, "p-1", "old")
    out = good(geli("purge", *RETENTION, "--yes")).stdout.splitlines()
    assert out[-2:] == [
        "1 session deleted",
        "trained on it: p-1; retrain with 'geli learn round'",
    ]
    assert set(store.ids()) == {"new", "ever", "live"}
    told = read(geli("purge", "--set", "retention.keep_days=5", "--yes", "--json"))
    assert [one["id"] for one in told["due"]] == told["removed"]["ids"] == ["new"]
    assert set(store.ids()) == {"ever", "live"}


def test_a_registry_that_cannot_be_marked_is_said(geli: Geli, store: Store, data: Path) -> None:
    store.insert(ended("a"))
    entry(data, "p-1", "a")
    (policies.registry_of(data) / "marks").mkdir()
    (policies.registry_of(data) / "marks" / "deleted.json").write_text("nonsense")
    result = good(geli("delete", "a", "--yes"))
    assert "1 session deleted" in result.stdout
    assert result.stderr.startswith("a: not marked where it was learned from: ")


HELD = (*SECRETS, "gone-1", PEOPLE[0])


@pytest.mark.parametrize(
    "command",
    [
        ["delete", "gone", "--yes"],
        ["delete", "--person", TOKENS[0], "--yes"],
        ["purge", "--yes", "--set", "retention.keep_days=1"],
    ],
)
def test_what_is_deleted_is_in_no_file(
    geli: Geli, store: Store, data: Path, command: list[str]
) -> None:
    now = datetime.now(UTC)
    with_secrets(store, "gone-1", person=PEOPLE[0], started_at=now - timedelta(days=2))
    corrections.note(store, "kept", "stays", "ada")
    with store.writing() as connection:  # it shall not be due
        connection.exec_driver_sql(f"UPDATE sessions SET started_at = '{now:%F %T}.000000' "
                                   "WHERE id = 'kept'")  # fmt: skip
    assert all(on_disk(data, text) for text in HELD)
    assert "1 session deleted" in good(geli(*command)).stdout
    assert on_disk(data, *HELD) == {}
    assert store.ids() == ["kept"]
    assert len(store.get("kept").turns) == 30


def test_purge_finishes_what_another_process_held_up(
    geli: Geli, store: Store, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    defaults = Store.open.__func__.__kwdefaults__  # type: ignore[attr-defined]
    monkeypatch.setitem(defaults, "busy_timeout_s", 0.05)
    with_secrets(store, "gone-1", person=PEOPLE[0])
    keep = ("--set", "retention.keep_days=0")
    with read_elsewhere(data / "sessions.sqlite3"):
        result = good(geli("delete", "gone", "--yes"))
        assert result.stdout.endswith("1 session deleted\n")
        (line,) = result.stderr.splitlines()
        assert line.startswith("not gone from the file yet: ")
        assert line.endswith("geli sessions purge --yes")
        assert all(on_disk(data, text) for text in HELD), "it was true"
        assert read(geli("purge", *keep, "--yes", "--json"))["removed"]["left_over"]
    assert on_disk(data, *HELD)
    result = good(geli("purge", *keep, "--yes"))
    assert result.stdout.endswith("0 sessions deleted\n")
    assert result.stderr == ""
    assert on_disk(data, *HELD) == {}
    assert remove(store, []).left_over == ""


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
        (["list", "--limit", "0"], "0 is not in the range 1<=x"),
        (["list", "--consent", "talk_only"], "'talk_only' is not one of"),
        (["list", "--set", "store.url=nonsense"], "store.url = 'nonsense' is no database URL"),
        (["list", "--until", "soon"], "--until 'soon' is no time"),
        (["list", "--since", ""], "--since '' is no time"),
        (["list", "--limit", "99999999999999999999"], "is not in the range"),
        (["list", "--seen-below", "1.5"], "1.5 is not in the range 0<=x<=1"),
        (["list", "--sort", "colour"], "'colour' is not one of"),
        (["list", "--ended", "well"], "'well' is not one of"),
        (["list", "--person", "short"], "a person's token has 16 to 128 characters — the page"),
        (["list", "--person", "a token of sixteen\udcff"], "surrogates not allowed"),
        (["export", "--person", ""], "a person's token has 16 to 128 characters"),
        (["stats", "--since", "x"], "--since 'x' is no time"),
        (["rate", "ab-1", "101"], "a rating of 101 is out of range — overall affect is 0 to 100"),
        (["rate", "ab-1", "nan"], "a rating of nan is out of range"),
        (["exclude", "ab-1"], "Missing option '--reason'"),
        (["exclude", "ab-1", "--reason", " "], "an exclusion needs a reason"),
        (["exclude", "--reason", "x"], "Missing argument 'ID...'"),
        (["include", "nope"], "no session 'nope'"),
        (["note", "ab-1"], "Missing argument 'TEXT'"),
        (["note", "nope", "x"], "no session 'nope'"),
        (["tag", "ab-1"], "nothing to do: give --add or --remove"),
        (["tag", "ab-1", "--add", "a,b"], "'a,b' is no tag — 1 to 40 characters without a comma"),
        (["tag", "ab-1", "--add", "x\n\udcff"], "is no tag"),
        (["label", "ab-1", "0", "not"], "turn 0 is the user's — only agent turns have a label"),
        (["label", "ab-1", "9", "not"], "session ab-1 has no turn 9"),
        (["label", "ab-1", "99999999999999999999", "not"], "is not in the range"),
        (["label", "ab-1", "1", "good"], "'good' is not one of"),
        (["label", "live", "0", "not"], "session live is still going on"),
        (["changes", "nope"], "no session 'nope'"),
        (["changes", "--limit", "0"], "0 is not in the range"),
        (["undo", "1"], "there is no change 1 — see 'geli sessions changes'"),
        (["undo", "99999999999999999999"], "is not in the range"),
        (["undo", "first"], "'first' is not a valid integer range"),
        (["delete"], "name sessions, or --person"),
        (["delete", "--person", ""], "a person's token has 16 to 128 characters"),
        (["delete", "ab-1", "--json"], "--json does not ask: add --yes"),
        (["purge", "--set", "retention.keep_days=-1"], "retention.keep_days"),
        (["purge", "--set", "retention.keep_days=many"], "retention.keep_days"),
        (["import", "/no/such/file"], "/no/such/file cannot be read: No such file"),
        (["export", "--out", "/no/such/folder/x.jsonl"], "cannot be written: No such file"),
    ],
)
def test_mistakes_are_one_line(
    leaves: Callable[..., tuple[int, str]], store: Store, args: list[str], says: str
) -> None:
    store.insert(ended("ab-1"))
    store.insert(ended("ab-2"))
    store.open_session(session("live", turns=[turn(0, "agent")]))
    before = [store.get(one) for one in store.ids()]
    code, said = leaves(*args)
    assert code == 2
    assert said.startswith("geli: ") and said.count("\n") == 1 and said.endswith("\n")
    assert says in said
    assert [store.get(one) for one in store.ids()] == before
    assert corrections.listed(store) == []


def test_an_undo_that_is_refused(leaves: Callable[..., tuple[int, str]], store: Store) -> None:
    store.insert(ended("a"))
    for text in ("one", "two"):
        corrections.note(store, "a", text, "ada")
    assert leaves("undo", "1") == (
        2,
        "geli: the note of a was changed again after change 1 — undo the later change first\n",
    )
    corrections.undo(store, 2, "ada")
    code, said = leaves("undo", "2")
    assert (code, said) == (2, "geli: change 2 is undone already — undo 3 to redo it\n")


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
    assert [(row[0], row[9]) for row in rows[1:]] == [("cut", "crashed"), ("a", "hung_up")]
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
    assert parse_time("--since", text, NOW) == then


@pytest.mark.parametrize("text", ["", "7", "7w", "-7d", "999999d", "2026-13-01", "0001-01-01"])
def test_since_that_is_no_time(text: str) -> None:
    if text == "0001-01-01":
        text += "T00:00:00+14:00"
    with pytest.raises(StoreError, match="--until '.*' is no time"):
        parse_time("--until", text, NOW)


def test_small_things_of_the_transcript() -> None:
    assert [clock(s) for s in (0, 59.4, 59.6, 3725)] == ["0:00", "0:59", "1:00", "62:05"]
    assert printable("a\u2028b\u202ec\x00ü世") == "a b c ü世"
