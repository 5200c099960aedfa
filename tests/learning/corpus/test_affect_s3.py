"""Affect over videos in object storage, with shards in it: killed in the middle, and resumed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import config as configs
from agent.affect import ListenerModels, record_of, settings_of
from agent.records import AffectWindow
from learning.corpus.places import Place
from learning.corpus.shards import tables
from perception.clip import perceive_clip
from tests import media
from tests.learning.corpus import runs
from tests.object_storage import ACCESS, SECRET, ObjectStorage

pytestmark = pytest.mark.engine


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStorage]:
    """With three videos in `bucket/videos`, one of them cut short."""
    videos = tmp_path / "served" / "bucket" / "videos"
    (videos / "a").mkdir(parents=True)
    shutil.copy(media.face_clip(), videos / "a" / "one.mp4")
    shutil.copy(media.single_face_clip(), videos / "two.mp4")
    whole = media.face_clip().read_bytes()
    (videos / "half.mp4").write_bytes(whole[: len(whole) // 2])
    made = ObjectStorage(tmp_path / "served", tmp_path / "log")
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "copies"))
    (tmp_path / "copies").mkdir()
    yield made
    made.stop()


def test_a_job_from_s3_to_s3_is_killed_and_goes_on(storage: ObjectStorage, tmp_path: Path) -> None:
    source, out = storage.url("bucket/videos"), storage.url("bucket/affect")
    folder = storage.root / "bucket" / "affect"
    args = ("affect", source, out, "--workers", "1", "--json")
    with runs.started(*args) as child:
        first = runs.wait_for(folder, "*.parquet", child)
        assert len(runs.kill(child.pid)) > 3
    assert not list((tmp_path / "copies").rglob("*.mp4"))
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in first}
    assert 1 <= len(before) < 3

    code, stdout, stderr = runs.finished(*args)
    assert (code, stderr) == (0, "")
    said = json.loads(stdout)
    assert said["complete"] and said["shards"] == 3 and not said["failed"]
    assert said["kept"] == len(before) and said["kept"] + said["made"] == 2
    assert said["out"] == "s3://bucket/affect"
    (bad,) = said["bad"]
    assert bad["input"] == "half.mp4" and "cut short: 9.6 s of 19.7 s" in bad["reason"]
    for file, (content, changed) in before.items():
        assert file.read_bytes() == content and file.stat().st_mtime_ns == changed
    files = [file for file in storage.root.rglob("*") if file.is_file()]
    assert sorted(file.suffixes[-1] for file in files) == (
        [".json", ".json"] + 3 * [".mp4"] + 2 * [".parquet"]
    )
    for file in [f for f in files if f.suffix == ".json"] + [tmp_path / "log"]:
        assert SECRET not in file.read_text() and ACCESS not in file.read_text()
    assert windows(out) == direct(storage.root / "bucket" / "videos")


def windows(out: str) -> dict[str, list[AffectWindow]]:
    """What the shards hold."""
    manifest, found = tables(Place(out), "affect")
    return {
        about["input"]: [
            AffectWindow(**row, classifier=manifest.settings["classifier"])
            for row in table.to_pylist(maps_as_pydicts="strict")
        ]
        for about, table in found
    }


def direct(videos: Path) -> dict[str, list[AffectWindow]]:
    """What `geli perceive` says of the videos that are whole."""
    config = configs.load("cpu")
    models = ListenerModels.load(config)
    found = {}
    for name in ("a/one.mp4", "two.mp4"):
        clip = perceive_clip(videos / name, models.detector, models.classifier, settings_of(config))
        found[name] = [record_of(window, models.classifier_id) for window in clip.windows]
    models.close()
    return found


def test_what_keeps_a_job_from_running_is_one_line(
    storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = storage.url("bucket/videos"), storage.url("bucket/affect")

    def refused(source: str, out: str) -> str:
        code, stdout, stderr = runs.finished("affect", source, out)
        assert (code, stdout) == (2, "") and stderr.count("\n") == 1, (code, stdout, stderr)
        assert SECRET not in stderr and ACCESS not in stderr
        return stderr

    assert "s3://elsewhere/videos: holds no video" in refused(storage.url("elsewhere/videos"), out)
    assert "bucket does not exist" in refused(source, storage.url("elsewhere/affect"))
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET[::-1])
    assert "SIGNATURE_DOES_NOT_MATCH" in refused(source, out)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    storage.stop()
    assert "Could not connect to server" in refused(source, out)
    assert not (storage.root / "bucket" / "affect").exists()
