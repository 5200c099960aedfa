"""The exchange format: what is written is read again, and what is wrong is refused line by line."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from agent import jsonl
from agent.errors import StoreError
from agent.jsonl import BadLine, dump_line, export_sessions, import_file, parse
from agent.records import AffectWindow, Latency, Session, Turn
from agent.store import Store
from tests.agent import session_samples as samples

pytestmark = pytest.mark.unit


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(f"sqlite:///{tmp_path}/s.sqlite3") as opened:
        yield opened


def line(**changes: Any) -> str:
    """A good line with some keys changed; Ellipsis drops the key."""
    data = json.loads(dump_line(samples.ended("s-1"))) | changes
    return json.dumps({key: value for key, value in data.items() if value is not ...})


def write(path: Path, *lines: str | bytes) -> Path:
    path.write_bytes(b"\n".join(x if isinstance(x, bytes) else x.encode() for x in lines) + b"\n")
    return path


def test_every_field_is_named_in_the_docstring() -> None:
    documented = jsonl.__doc__ or ""
    for record in (Session, Turn, AffectWindow, Latency):
        for name in [*record.model_fields, *record.model_computed_fields]:
            assert f" {name}" in documented or f"({name}" in documented, name


def test_a_session_survives_every_field() -> None:
    session = samples.full_session()
    assert parse(dump_line(session)) == session


@settings(max_examples=60, deadline=None)
@given(samples.sessions())
def test_a_line_is_read_as_it_was_written(session: Session) -> None:
    written = dump_line(session)
    assert "\n" not in written
    assert parse(written) == session
    assert dump_line(parse(written)) == written


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(samples.sessions())
def test_export_import_export_is_the_same(store: Store, tmp_path: Path, session: Session) -> None:
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    store.insert(session)
    assert export_sessions([store.get(session.id)], first) == 1
    assert import_file(store, first).duplicates == [session.id]
    store.delete(session.id)
    report = import_file(store, first)
    assert (report.imported, report.rejected) == ([session.id], [])
    export_sessions([store.get(session.id)], second)
    store.delete(session.id)
    assert second.read_bytes() == first.read_bytes()


def test_minus_zero_is_no_other_content(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "x.jsonl"
    export_sessions([samples.ended("a", turns=[samples.turn(0, sentiment=-0.0)])], file)
    assert import_file(store, file).imported == ["a"]
    assert import_file(store, file).duplicates == ["a"]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("not json", "not JSON"),
        ("[1]", "not a JSON object"),
        (line(schema_version=2), "schema_version 2 is not known; this is 1"),
        (line(schema_version=...), "schema_version is missing"),
        (line(consent=...), "consent is missing"),
        (line(consent="talk_only"), "talk_only, which is never stored"),
        (line(consent="sure"), "consent: "),
        (line(surprise=1), "surprise: "),
        (line(id="a b"), "id: "),
        (line(id="x" * 65), "id: "),
        (line(started_at="2026-11-23T10:00:00"), "a time needs its zone"),
        (line(started_at=5), "started_at: a wall time is an ISO 8601 text"),
        (line(started_at="0001-01-01T00:00:00+14:00"), "outside the years"),
        (line(overall_affect=100.5), "overall_affect: "),
        (line().replace('"overall_affect": null', '"overall_affect": NaN'), "NaN is no JSON"),
        (line().replace('"overall_affect": null', '"overall_affect": -Infinity'), "-Infinity"),
        (line().replace('"overall_affect": null', '"overall_affect": 1e999'), "overall_affect: "),
        (line(comment="a\x00b"), "NUL or half a surrogate pair"),
        (line(comment="a\ud800b"), "NUL or half a surrogate pair"),
        (line().replace('"comment": null', '"comment": ' + "[" * 700 + "]" * 700), "deeply"),
        (line().replace('"comment": null', '"comment": ' + "[" * 5000 + "]" * 5000), "deeply"),
        (line(turns=[json.loads(samples.turn(0).model_dump_json())] * 2), "used once"),
        (line(turns=[json.loads(samples.turn(i).model_dump_json()) for i in (1, 0)]), "must rise"),
        (line(turns=[json.loads(samples.turn(2**31).model_dump_json())]), "over 2147483647"),
        (line(windows=[json.loads(samples.window(2**63).model_dump_json())]), "over 2147483647"),
        (line(turns=[{"index": 0, "speaker": "user", "start_s": 2, "end_s": 1, "text": ""}]), "0"),
        (line(turns=[{"index": 0, "speaker": "cat", "start_s": 0, "end_s": 1, "text": ""}]), "0.s"),
    ],
)
def test_a_bad_line_says_why(bad: str, reason: str) -> None:
    with pytest.raises(BadLine) as refused:
        parse(bad)
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def test_absent_keys_take_their_default() -> None:
    turn = {"index": 0, "speaker": "user", "start_s": 0, "end_s": 1, "text": "x"}
    data = {"schema_version": 1, "id": "a", "started_at": "2026-01-01T00:00:00Z", "consent": "keep"}
    read = parse(json.dumps(data | {"turns": [turn]}))
    assert (read.ended_at, read.windows, read.excluded) == (None, [], False)
    assert (read.turns[0].engines, read.turns[0].li) == ({}, None)


def test_good_lines_are_kept_beside_bad_ones(store: Store, tmp_path: Path) -> None:
    file = write(
        tmp_path / "x.jsonl",
        b"\xef\xbb\xbf" + line(id="first").encode(),
        "{broken",
        "",
        line(id="bytes").encode().replace(b"words", b"w\xffrds"),
        "   \r",
        line(id="second") + "\r",
        line(id="first"),
    )
    report = import_file(store, file)
    assert report.imported == ["first", "second"]
    assert [rejection.line for rejection in report.rejected] == [2, 4, 7]
    reasons = [rejection.reason for rejection in report.rejected]
    assert reasons[0].startswith("not JSON")
    assert reasons[1:] == ["not UTF-8", "session first was on line 1 already"]
    assert {summary.id for summary in store.list()} == {"first", "second"}


def test_known_sessions_are_duplicates_when_equal(store: Store, tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl", line(id="a"), line(id="b"))
    assert import_file(store, file).imported == ["a", "b"]
    again = import_file(store, write(file, line(id="a"), line(id="b", comment="other")))
    assert (again.imported, again.duplicates) == ([], ["a"])
    assert again.rejected[0].reason == "session b is in the store with other content"
    assert store.get("b").comment is None


def test_a_dry_run_stores_nothing(store: Store, tmp_path: Path) -> None:
    report = import_file(store, write(tmp_path / "x.jsonl", line(id="a"), line(id="a")), True)
    assert (report.imported, [r.line for r in report.rejected]) == (["a"], [2])
    assert store.list() == []


def test_gzip_by_name_and_by_content(store: Store, tmp_path: Path) -> None:
    packed = tmp_path / "x.jsonl.gz"
    session = samples.full_session()
    export_sessions([session], packed)
    assert gzip.decompress(packed.read_bytes()).decode() == dump_line(session) + "\n"
    renamed = packed.rename(tmp_path / "x.jsonl")
    assert import_file(store, renamed).imported == [session.id]
    assert store.get(session.id) == session


def test_damaged_gzip_keeps_what_came_before(store: Store, tmp_path: Path) -> None:
    lines = "\n".join(line(id=f"s-{n}", comment="x" * n) for n in range(400)).encode()
    file = tmp_path / "x.jsonl.gz"
    file.write_bytes(gzip.compress(lines)[:-400])
    with pytest.raises(StoreError, match="damaged gzip") as refused:
        import_file(store, file)
    assert "\n" not in str(refused.value)
    assert len(store.list(limit=None)) > 10


def test_a_huge_line_is_passed_over(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl, "LONGEST_LINE", 2**20)
    file = write(tmp_path / "x.jsonl", line(id="a"), line(comment="y" * 5 * 2**20), line(id="b"))
    report = import_file(store, file)
    assert report.imported == ["a", "b"]
    assert [(r.line, r.reason) for r in report.rejected] == [(2, "longer than 1 MiB")]


def test_a_line_of_just_the_longest_length_is_read(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = line(id="a")
    monkeypatch.setattr(jsonl, "LONGEST_LINE", len(good) + 1)  # with its LF
    assert import_file(store, write(tmp_path / "x.jsonl", good)).imported == ["a"]
    monkeypatch.setattr(jsonl, "LONGEST_LINE", len(good) - 1)
    found = import_file(store, write(tmp_path / "y.jsonl", good, line(id="b")[:9]))
    assert [r.line for r in found.rejected] == [1, 2]


@pytest.mark.parametrize("name", ["absent.jsonl", "."])
def test_a_file_that_cannot_be_read(store: Store, tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match="cannot be read"):
        import_file(store, tmp_path / name)


def broken() -> Iterator[Session]:
    yield samples.ended("a")
    raise StoreError("the store is gone")


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz"])
def test_a_failed_export_leaves_the_old_file(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_text("old")
    with pytest.raises(StoreError, match="the store is gone"):
        export_sessions(broken(), file)
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_full_disk_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    file = tmp_path / "x.jsonl"
    file.write_text("old")
    monkeypatch.setattr(jsonl.os, "fsync", full)
    with pytest.raises(StoreError, match=r"x\.jsonl cannot be written: No space left"):
        export_sessions([samples.ended("a")], file)
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.jsonl"]


def test_export_where_no_file_can_be(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be written"):
        export_sessions([], tmp_path / "no" / "x.jsonl")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StoreError, match="cannot be written"):
        export_sessions([], tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_export_to_standard_output(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    with contextlib.ExitStack() as undo:
        undo.callback(monkeypatch.undo)
        monkeypatch.setattr(sys, "stdout", types.SimpleNamespace(buffer=out, flush=lambda: None))
        assert export_sessions([samples.ended("a"), samples.ended("b")], None) == 2
    assert [json.loads(x)["id"] for x in out.getvalue().splitlines()] == ["a", "b"]
