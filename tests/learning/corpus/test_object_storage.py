"""`Place` and the bookkeeping of shards on a real server that speaks S3."""

from __future__ import annotations

import subprocess
import sys
import uuid
from collections.abc import Iterator

import pytest

from learning.corpus.places import ENDPOINTS, Place
from learning.errors import DataError
from tests.learning.corpus import test_shards
from tests.object_storage import ACCESS, SECRET, ObjectStorage

pytestmark = pytest.mark.transport

BIG = bytes(range(256)) * (48 << 10)
"""12 MiB: more than S3 takes in one part."""


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStorage]:
    folder = tmp_path_factory.mktemp("storage")
    (folder / "served" / "bucket").mkdir(parents=True)
    made = ObjectStorage(folder / "served", folder / "log")
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def may_use_it(storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in storage.environment.items():
        monkeypatch.setenv(name, value)
    for name in (*ENDPOINTS, "AWS_REQUEST_CHECKSUM_CALCULATION"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def place(storage: ObjectStorage) -> Place:
    return Place(storage.url(f"bucket/{uuid.uuid4().hex}"))


def test_a_place_in_object_storage(place: Place, storage: ObjectStorage) -> None:
    assert place.entries() == [] and not place.has("a.mp4") and place.local is None
    place.write("a.mp4", b"123")
    place.write("a.mp4", b"4567")
    place.write("big.mp4", BIG)
    place.write("in it/ü +%20.mp4", b"")
    place.write("in it/.hidden", b"1")
    found = {entry.name: entry for entry in place.entries(deep=True)}
    assert {name: entry.size for name, entry in found.items()} == {
        "a.mp4": 4, "big.mp4": len(BIG), "in it/ü +%20.mp4": 0,
    }  # fmt: skip
    assert [entry.name for entry in place.entries()] == ["a.mp4", "big.mp4"]
    assert Place(place.url.replace("?", "/in%20it?")).entries()[0].name == "ü +%20.mp4"
    assert place.has("a.mp4") and not place.has("in it")
    assert place.read("a.mp4") == b"4567" and place.read("in it/ü +%20.mp4") == b""
    with place.open("big.mp4") as file:
        file.seek(len(BIG) - 3)
        assert file.read() == BIG[-3:]
    with place.near("big.mp4") as path:
        assert path.read_bytes() == BIG and path.read_bytes() == BIG
    assert not path.exists()
    with pytest.raises(FileNotFoundError):
        place.read("gone.mp4")
    place.drop("gone.mp4")
    # All of it is in the bucket and nothing beside it, half written or for a moment.
    folder = storage.root / "bucket" / place.url.partition("?")[0].rpartition("/")[2]
    assert {file.name for file in folder.rglob("*") if file.is_file()} == {
        "a.mp4", "big.mp4", "ü +%20.mp4", ".hidden",
    }  # fmt: skip


def test_the_bookkeeping_of_shards(storage: ObjectStorage) -> None:
    (storage.root / "whole-bucket").mkdir()
    place = Place(storage.url("whole-bucket"))
    test_shards.test_a_shard_is_done_until_its_input_or_the_settings_change(place)


def test_what_is_dropped_is_gone_where_the_server_refuses_what_pyarrow_writes_then(
    place: Place, storage: ObjectStorage
) -> None:
    place.write("a", b"1")
    place.write("b", b"1")
    place.drop("a")
    assert [entry.name for entry in place.entries()] == ["b"]
    assert "is a directory" in storage.log.read_text() or "can't move" in storage.log.read_text()


def test_a_folder_of_other_settings(place: Place) -> None:
    test_shards.test_other_settings_or_another_job_are_one_line(place)


def test_a_server_named_by_the_environment(
    storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{storage.port}")
    place = Place(f"s3://bucket/{uuid.uuid4().hex}")
    place.write("a", b"1")
    assert [entry.name for entry in place.entries()] == ["a"]


def refused(url: str) -> str:
    """The one line of a job that cannot begin there; no key is in it."""
    with pytest.raises(DataError) as caught:
        test_shards.job(Place(url)).begin()
    said = str(caught.value)
    assert "\n" not in said and SECRET not in said and ACCESS not in said
    return said


def test_what_keeps_a_job_from_beginning_is_one_line(
    storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "bucket does not exist" in refused(storage.url("elsewhere/a"))
    assert "'colour'" in refused(storage.url("bucket/a") + "&colour=red")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET[::-1])
    assert "ACCESS_DENIED" in refused(storage.url("bucket/a"))
    assert not (storage.root / "bucket" / "a").exists()


@pytest.mark.parametrize("secret", [SECRET, SECRET.replace("/", "%2F")])
def test_a_key_in_a_url_is_refused_and_not_repeated(storage: ObjectStorage, secret: str) -> None:
    url = storage.url("bucket/a").replace("s3://", f"s3://{ACCESS}:{secret}@")
    said = refused(url)
    assert "AWS_ACCESS_KEY_ID" in said and secret not in said
    assert ACCESS not in str(Place(url)) and "secret" not in str(Place(url))


def test_a_server_that_is_away_and_comes_back(place: Place, storage: ObjectStorage) -> None:
    test_shards.job(place).begin()
    storage.stop()
    try:
        assert "NETWORK_CONNECTION" in refused(place.url)
    finally:
        storage.start()
    assert [entry.name for entry in place.entries()] == ["manifest.json"]


def test_a_writer_that_is_killed_leaves_nothing(place: Place, storage: ObjectStorage) -> None:
    """In the middle of a large file, whose parts are there already."""
    script = (
        "import os, sys; from learning.corpus.places import Place\n"
        "system, root = Place(sys.argv[1])._opened\n"
        "stream = system.open_output_stream(f'{root}/half.parquet')\n"
        "for _ in range(3): stream.write(bytes(12 << 20))\n"
        "stream.flush()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    ended = subprocess.run([sys.executable, "-c", script, place.url], timeout=60)
    assert ended.returncode == -9
    assert place.entries() == []
    assert not list(storage.root.rglob("half*"))
