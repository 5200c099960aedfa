"""Embeddings of a source: killed, resumed by two runs at once, and read by what learns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from agent import config as configs
from agent.cli import cli
from agent.config import Config
from agent.errors import GeliError
from learning.corpus.embeddings import OpenEncoder, embeddings_job, fill_cache
from learning.corpus.places import Place
from learning.corpus.shards import tables
from learning.data import load
from learning.encoder import CHUNK, Encoder, cached_embed, chunks, key_of
from learning.errors import DataError
from tests.learning import tiny
from tests.learning.corpus import runs

pytestmark = pytest.mark.engine

SOURCE = "simulated:0:300"


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    folder = tiny.encoder(tmp_path_factory.mktemp("tiny") / "bert", "bert")
    return (f"models.paths={{tiny = '{folder}'}}", "reward.encoder=tiny")


@pytest.fixture(scope="module")
def config(settings: tuple[str, ...]) -> Config:
    return configs.load("cpu", settings)


@pytest.fixture(scope="module")
def texts(config: Config) -> list[str]:
    return sorted({t.text for d in load(SOURCE, config).dialogues for t in d.turns})


@dataclass
class Made:
    out: Path
    cache: Path
    args: Sequence[str]
    before: dict[Path, tuple[bytes, int]]
    """Shards when it was killed, with the time they were written."""
    killed: list[int]
    ended: list[tuple[int, str, str]]


@pytest.fixture(scope="module")
def made(settings: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The job killed after its first shard, then done by two runs at once."""
    folder = tmp_path_factory.mktemp("embeddings")
    out, cache = folder / "out", folder / "cache"
    args = ["embeddings", SOURCE, str(out), "--workers", "1", "--json"]
    for setting in (*settings, f"models.cache='{cache}'"):
        args += ["--set", setting]
    with runs.started(*args) as child:
        first = runs.wait_for(out, "*.parquet", child)
        killed = runs.kill(child.pid)
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in first}
    assert not cache.exists()
    with runs.started(*args) as one, runs.started(*args) as other:
        ended = []
        for child in (one, other):
            stdout, stderr = child.communicate(timeout=300)
            ended.append((child.returncode, stdout, stderr))
    return Made(out, cache / "features", args, before, killed, ended)


def test_a_killed_job_goes_on_without_its_finished_shards(made: Made, texts: list[str]) -> None:
    n = len(chunks(texts))
    assert n > 2 and 1 <= len(made.before) < n and len(made.killed) > 3
    for file, (content, changed) in made.before.items():
        assert file.read_bytes() == content and file.stat().st_mtime_ns == changed
    new = 0
    for code, stdout, stderr in made.ended:
        assert (code, stderr) == (0, "")
        said = json.loads(stdout)
        assert said["complete"] and said["shards"] == n and not said["failed"]
        assert said["kept"] >= len(made.before) and said["kept"] + said["made"] == n
        assert said["rows"] == len(texts)
        new += said["new_in_cache"]
    assert new == len(texts)
    assert sorted(f.suffix for f in made.out.iterdir()) == [".json"] + n * [".parquet"]


def test_the_shards_are_those_of_a_run_without_ray(
    made: Made, config: Config, texts: list[str]
) -> None:
    job, shards, _ = embeddings_job(SOURCE, str(made.out), config)
    work = OpenEncoder(config, str(job.settings["weights"]))()
    _, found = tables(job.out, "embeddings")
    read = {about["input"]: (about, table) for about, table in found}
    seen = set()
    for shard in reversed(shards):
        about, table = read.pop(shard.input)
        expected, facts = work(shard)
        assert table.equals(expected) and about["facts"]["words"] == facts["words"]
        seen |= set(table["sha1"].to_pylist())
    assert not read and seen == {key_of(text) for text in texts}
    everything = b"".join(f.read_bytes() for f in made.out.iterdir())
    assert not [text for text in texts if len(text) > 20 and text.encode() in everything]


def test_learning_reads_nothing_anew_and_sees_the_same_numbers(
    made: Made, config: Config, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = Encoder("tiny", config.models)
    itself = cached_embed(encoder, texts, tmp_path / "own")

    def no(*_: object, **__: object) -> None:
        raise AssertionError("read anew")

    monkeypatch.setattr(encoder, "embed", no)
    assert np.array_equal(cached_embed(encoder, texts, made.cache), itself)
    # On another machine the shards alone are enough; what it read itself stays as it is.
    assert fill_cache(Place(str(made.out)), tmp_path / "own") == 0
    assert fill_cache(Place(f"file://{made.out}"), tmp_path / "other") == len(texts)
    assert np.array_equal(cached_embed(encoder, texts, tmp_path / "other"), itself)


def test_the_table_is_the_same(made: Made, settings: tuple[str, ...], tmp_path: Path) -> None:
    found = []
    for cache in (made.cache.parent, tmp_path / "own"):
        args = ["--data", SOURCE, "--methods", "mean,ridge", "--seeds", "1", "--json"]
        for setting in (*settings, f"models.cache='{cache}'"):
            args += ["--set", setting]
        out = str(tmp_path / f"table-{len(found)}")  # a kept table would not be worked out again
        result = CliRunner().invoke(cli, ["learn", "table", *args, "--out", out])
        assert result.exit_code == 0, (result.output, result.exception)
        found.append(result.stdout)
    assert found[0] == found[1]


def test_a_third_run_and_other_weights_need_no_ray(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # nobody: Ray could not start
    args = [arg for arg in made.args if arg != "--json"]
    code, stdout, stderr = runs.finished(*args)
    assert (code, stderr) == (0, "") and " kept, 0 made, 0 not readable; " in stdout
    assert stdout.endswith("; 0 new in cache\n")
    other = tiny.encoder(tmp_path / "bart", "bart")
    code, stdout, stderr = runs.finished(*args, "--set", f"models.paths={{tiny = '{other}'}}")
    assert (code, stdout) == (2, "") and stderr.count("\n") == 1
    assert "other settings (weights: " in stderr


def test_a_worker_with_other_weights_does_not_start(config: Config) -> None:
    with pytest.raises(DataError, match="tiny: a worker has other weights than where the job"):
        OpenEncoder(config, "0" * 16)()


def test_chunks_are_the_same_whatever_the_order() -> None:
    texts = [f"{'w' * (i % 7)} {i}" for i in range(2 * CHUNK + 5)]
    cut = chunks(texts)
    assert [len(chunk) for chunk in cut] == [CHUNK, CHUNK, 5]
    assert chunks([*reversed(texts), *texts]) == cut
    assert [len(t) for chunk in cut for t in chunk] == sorted(map(len, texts))
    assert chunks([]) == []


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (("store",), "nothing of a deleted session may stay"),
        (("store:simulated",), "'geli learn table', 'reward' and 'compare' read the store"),
        (("nonsense",), "no source 'nonsense'"),
        (("candor:/nowhere",), "/nowhere"),
        (("simulated:0:4", "--set", "reward.trainable=true"), "a fine-tuned encoder change"),
        (("simulated:0:4", "--set", "reward.encoder=nothing"), "no weights are known as 'nothing'"),
        (("simulated:0:4", "--set", "reward.device=cuda:1"), "Ray finds no GPU here"),
    ],
)
def test_mistakes_are_one_line(
    args: tuple[str, ...],
    line: str,
    settings: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    source, *more = args
    given = [arg for setting in settings for arg in ("--set", setting)]
    command = ["learn", "corpus", "embeddings", source, str(tmp_path / "out"), *given, *more]
    error = CliRunner().invoke(cli, command).exception
    assert isinstance(error, GeliError) and line in str(error) and "\n" not in str(error)
