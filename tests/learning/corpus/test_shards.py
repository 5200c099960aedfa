"""Bookkeeping of shards: what is done is told by names alone, on disks and by URL."""

from __future__ import annotations

import json
import os
import uuid
from pathlib import Path

import pyarrow as pa
import pytest

from learning.corpus import shards as shards_module
from learning.corpus.places import Entry, Place
from learning.corpus.shards import Job, Shard, tables
from learning.errors import DataError

pytestmark = pytest.mark.unit

ONE, TWO = Shard("a/one.mp4", "10 bytes"), Shard("a/two.mp4", "20 bytes")


@pytest.fixture(params=["path", "file", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    name = uuid.uuid4().hex
    return Place(
        {"path": str(tmp_path / name), "file": f"file://{tmp_path}/{name}",
         "memory": f"memory://{name}"}[request.param]
    )  # fmt: skip


def job(out: Place, **settings: object) -> Job:
    return Job("affect", {"hz": 5.0, **settings}, out)


def rows(*values: int) -> pa.Table:
    return pa.table({"value": list(values)})


def test_a_shard_is_done_until_its_input_or_the_settings_change(place: Place) -> None:
    first = job(place)
    known = first.begin()
    assert first.state() == (set(), {})
    first.commit(ONE, rows(1, 2), {"frames": 7})
    assert first.has(ONE) and not first.has(TWO)
    assert first.state()[0] == {first.stem(ONE)}
    manifest = first.finish([ONE, TWO], known)
    assert not manifest.complete
    assert [(s["input"], s["rows"], s["facts"]) for s in manifest.shards] == [
        ("a/one.mp4", 2, {"frames": 7})
    ]
    again = job(place)
    assert again.begin() == manifest and again.stem(ONE) in again.state()[0]
    changed = Shard(ONE.input, "11 bytes")
    assert not again.has(changed)
    again.commit(changed, rows(3), {})
    # Both are there for a moment: readers take the newer, the end of the run drops the older.
    again.refuse(TWO, "cut short")
    last = again.finish([changed, TWO], again.begin())
    assert last.complete and last.bad == [{"input": "a/two.mp4", "reason": "cut short"}]
    assert again.state() == ({again.stem(changed)}, {again.stem(TWO): "cut short"})
    read, found = tables(place, "affect")
    assert read == last and [t["value"].to_pylist() for _, t in found] == [[3]]


def test_other_settings_or_another_job_are_one_line(place: Place) -> None:
    job(place).begin()
    with pytest.raises(DataError, match=r"other settings \(hz: 5.0, now 3.0\)") as caught:
        job(place, hz=3.0).begin()
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="holds affect, not embeddings"):
        Job("embeddings", {"hz": 5.0}, place).begin()
    with pytest.raises(DataError, match="holds no embeddings"):
        tables(place, "embeddings")


def test_a_shard_of_other_settings_is_never_read_as_one_of_these(tmp_path: Path) -> None:
    """Two first runs that began in the same moment with other settings: one manifest is left."""
    place = Place(str(tmp_path))
    mine, others = job(place), job(place, hz=3.0)
    mine.begin()
    others.commit(ONE, rows(9), {})
    assert not mine.has(ONE)
    assert list(tables(place, "affect")[1]) == []


def test_a_writer_that_dies_leaves_nothing_that_is_taken_for_a_shard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = job(Place(str(tmp_path)))
    known = made.begin()

    def dies(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", dies)
    with pytest.raises(KeyboardInterrupt):
        made.commit(ONE, rows(1), {})
    monkeypatch.undo()
    assert len(list(tmp_path.iterdir())) == 2  # the manifest and what was being written
    assert made.state() == (set(), {}) and made.finish([ONE], known).shards == []


def test_two_runs_on_one_folder_write_the_same(tmp_path: Path) -> None:
    one, other = job(Place(str(tmp_path))), job(Place(str(tmp_path)))
    known, seen = one.begin(), other.begin()
    one.commit(ONE, rows(1), {"n": 1})
    before = {f.name: f.read_bytes() for f in tmp_path.glob("*.parquet")}
    other.commit(ONE, rows(1), {"n": 1})
    other.commit(TWO, rows(2), {"n": 1})
    assert {f: (tmp_path / f).read_bytes() for f in before} == before
    assert one.finish([ONE, TWO], known) == other.finish([ONE, TWO], seen)
    assert [t["value"].to_pylist() for _, t in tables(one.out, "affect")[1]] in (
        [[1], [2]],
        [[2], [1]],
    )


def test_a_shard_that_the_manifest_tells_of_is_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = job(Place(str(tmp_path)))
    known = made.begin()
    made.commit(ONE, rows(1), {})
    known = made.finish([ONE], known)

    def no(*_: object) -> dict[str, object]:
        raise AssertionError("opened")

    monkeypatch.setattr(shards_module, "footer_of", no)
    assert made.finish([ONE], known) == known


def test_damage_is_one_line(tmp_path: Path) -> None:
    made = job(Place(str(tmp_path)))
    known = made.begin()
    made.commit(ONE, rows(1), {})
    file = tmp_path / f"{made.stem(ONE)}.parquet"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="is damaged — delete it and run the job again"):
        list(tables(made.out, "affect")[1])
    with pytest.raises(DataError, match="is damaged"):
        made.finish([ONE], known)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(DataError, match=r"manifest.json is damaged — delete it: finished shards"):
        made.begin()


def test_places(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c.mp4").write_bytes(b"123")
    (tmp_path / "a" / ".hidden").write_bytes(b"1")
    place = Place(str(tmp_path))
    changed = (tmp_path / "a" / "b" / "c.mp4").stat().st_mtime_ns
    assert place.entries(deep=True) == [Entry("a/b/c.mp4", 3, changed)]
    assert place.entries() == [] and Place(f"{tmp_path}/nowhere").entries() == []
    with Place(f"{tmp_path}/a").near("b/c.mp4") as path:
        assert path == tmp_path / "a" / "b" / "c.mp4"
    far = Place(f"memory://{uuid.uuid4().hex}")
    far.write("c.mp4", b"456")
    with far.near("c.mp4") as path:
        assert path.read_bytes() == b"456"
    assert not path.exists()
    assert str(Place("s3://key:secret@bucket/a?endpoint_override=x")) == "s3://bucket/a"
    with pytest.raises(DataError, match="nonsense://a: cannot be used"):
        Place("nonsense://a").entries()


def test_the_manifest_is_for_people_too(tmp_path: Path) -> None:
    made = job(Place(str(tmp_path)))
    known = made.begin()
    made.commit(ONE, rows(1, 2), {})
    made.finish([ONE], known)
    content = json.loads((tmp_path / "manifest.json").read_text())
    assert content["settings"] == {"hz": 5.0} and content["digest"] == made.digest
    assert content["shards"][0]["identity"] == "10 bytes" and content["shards"][0]["rows"] == 2
