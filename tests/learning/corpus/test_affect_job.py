"""Affect over a small CANDOR with real videos: killed, resumed by two runs at once, and used."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from agent import config as configs
from agent.affect import ListenerModels, record_of, settings_of
from agent.config import Config
from agent.labels import label_turn
from agent.records import AffectWindow, Turn
from learning.corpus.places import Place
from learning.corpus.shards import tables
from learning.data import candor_synthetic, load
from learning.data.candor_files import conversation
from perception.clip import perceive_clip
from tests import media
from tests.learning.corpus import runs

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def config() -> Config:
    return configs.load("cpu")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three conversations; the last one has a video that is cut short and none of the other."""
    folder = tmp_path_factory.mktemp("candor")
    candor_synthetic.write(folder / "c", 3, seed=5, turns=8)
    whole = [media.face_clip(), media.face_clip(), media.no_face_clip(), media.single_face_clip()]
    videos = [clip.read_bytes() for clip in whole]
    videos.append(videos[0][: len(videos[0]) // 2])
    for number, talk in enumerate(sorted((folder / "c").iterdir())):
        people = conversation(talk, "backbiter", (0.0, 10.0)).people
        (talk / "processed").mkdir()
        # Both faces side by side, as the corpus has it too: not to be read.
        shutil.copy(media.no_face_clip(), talk / "processed" / f"{talk.name}.mp4")
        for person, video in zip(people, videos[2 * number :], strict=False):
            (talk / "processed" / f"{person}.mp4").write_bytes(video)
    return folder / "c"


@pytest.fixture(scope="module")
def made(corpus: Path) -> dict[str, object]:
    """The job killed after its first shard, then done by two runs at once."""
    out = corpus / "geli-affect"
    args = ("affect", f"candor:{corpus}", str(out), "--workers", "1", "--json")
    with runs.started(*args) as child:
        first = runs.wait_for(out, "*.parquet", child)
        killed = runs.kill(child.pid)
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in first}
    # Whoever opened a finished shard's video again would now find no video in it.
    emptied = {}
    for about, _ in tables(Place(str(out)), "affect")[1]:
        video = corpus / about["input"]
        emptied[video] = video.read_bytes()
        when = video.stat().st_mtime_ns
        video.write_bytes(bytes(len(emptied[video])))
        os.utime(video, ns=(when, when))
    with runs.started(*args) as one, runs.started(*args) as other:
        ended = []
        for child in (one, other):
            stdout, stderr = child.communicate(timeout=300)
            ended.append((child.returncode, stdout, stderr))
    for video, content in emptied.items():
        when = video.stat().st_mtime_ns
        video.write_bytes(content)
        os.utime(video, ns=(when, when))
    return {"before": before, "killed": killed, "ended": ended, "out": out}


def test_a_killed_job_goes_on_without_its_finished_shards(made: dict[str, object]) -> None:
    before = made["before"]
    assert isinstance(before, dict) and 1 <= len(before) < 4
    assert len(made["killed"]) > 3  # type: ignore[arg-type]
    for file, (content, changed) in before.items():
        assert file.read_bytes() == content and file.stat().st_mtime_ns == changed
    for code, stdout, stderr in made["ended"]:  # type: ignore[attr-defined]
        assert (code, stderr) == (0, "")
        said = json.loads(stdout)
        assert said["complete"] and said["shards"] == 5 and not said["failed"]
        assert said["kept"] >= len(before) and said["kept"] + said["made"] == 4
        (bad,) = said["bad"]
        assert "cut short: 9.6 s of 19.7 s" in bad["reason"]
    assert isinstance(made["out"], Path)
    kinds = sorted(file.suffixes[-1] for file in made["out"].iterdir())
    assert kinds == [".json", ".json"] + 4 * [".parquet"]  # nothing half written is left


def test_a_third_run_and_other_settings_need_no_ray(
    made: dict[str, object], corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # nobody: Ray could not start
    args = ("affect", f"candor:{corpus}", str(made["out"]))
    code, stdout, _ = runs.finished(*args)
    assert code == 0 and stdout.startswith("affect: 5 shards, 4 kept, 0 made, 1 not readable; ")
    assert "skipped" in stdout and "cut short" in stdout
    code, stdout, stderr = runs.finished(*args, "--set", "perception.frames_hz=3")
    assert (code, stdout) == (2, "")
    assert "other settings (frames_hz: 5.0, now 3.0)" in stderr and stderr.count("\n") == 1


def direct(corpus: Path, config: Config) -> dict[str, list[AffectWindow]]:
    """What `geli perceive` says of each video."""
    models, settings = ListenerModels.load(config), settings_of(config)
    found = {}
    for video in sorted(corpus.glob("*/processed/*.mp4")):
        result = perceive_clip(video, models.detector, models.classifier, settings)
        found[video.relative_to(corpus).as_posix()] = [
            record_of(window, models.classifier_id) for window in result.windows
        ]
    models.close()
    return found


def test_the_windows_are_those_of_geli_perceive_and_label_the_corpus(
    made: dict[str, object], corpus: Path, config: Config
) -> None:
    expected = direct(corpus, config)
    read = {}
    manifest, found = tables(Place(str(made["out"])), "affect")
    for about, table in found:
        rows = table.to_pylist(maps_as_pydicts="strict")
        classifier = manifest.settings["classifier"]
        read[about["input"]] = [AffectWindow(**row, classifier=classifier) for row in rows]
    assert len(read) == 4
    assert read == {name: expected[name] for name in read}

    data = load(f"candor:{corpus}", config)
    assert "affect windows by mini-xception" in data.li_source
    assert "no affect windows of 2 of 6 listeners" in data.notes
    labels = []
    for dialogue in data.dialogues:
        name, _, listener = dialogue.id.partition("#")
        talk = conversation(corpus / name, "backbiter", (0.0, 10.0))
        turns = [
            Turn(
                index=i, speaker="user" if said.speaker == listener else "agent",
                start_s=said.start_s, end_s=said.stop_s, text=said.text,
            )
            for i, said in enumerate(talk.turns)
        ]  # fmt: skip
        windows = read.get(f"{name}/processed/{listener}.mp4", [])
        for turn, utterance in zip(turns, dialogue.turns, strict=True):
            if turn.speaker == "agent":
                assert utterance.li == label_turn(turn, turns, windows, config.labels).li
                labels.append(utterance.li)
    assert set(labels) == {0, 1, None}
    # By URL, from elsewhere, the same; without them, the corpus's own features.
    moved = corpus.parent / "windows"
    shutil.move(str(made["out"]), moved)
    assert load(f"candor:{corpus},affect=file://{moved}", config).digest == data.digest
    assert "CANDOR features" in load(f"candor:{corpus}", config).li_source


def test_what_is_no_video_is_said(tmp_path: Path) -> None:
    code, _, stderr = runs.finished("affect", str(tmp_path), str(tmp_path / "out"))
    assert code == 2 and f"{tmp_path}: holds no video" in stderr
    code, _, stderr = runs.finished("affect", f"candor:{tmp_path}", str(tmp_path / "out"))
    assert code == 2 and "holds no processed/<participant>.mp4" in stderr
