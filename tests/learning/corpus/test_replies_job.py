"""Replies of two policies to a sample: killed, resumed by two runs at once, and compared."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from agent import config as configs
from agent.cli import cli
from agent.config import Config
from agent.errors import GeliError
from learning.compare import replies as asking
from learning.compare.answering import PIECE
from learning.compare.replies import Policy, Sample
from learning.corpus.places import Place
from learning.corpus.replies import OpenWriter, replies_job
from learning.corpus.shards import tables
from learning.data import load
from learning.dialogue import Utterance
from learning.registry import Registry
from tests.learning.corpus import runs
from tests.learning.policy import small

pytestmark = pytest.mark.engine

SOURCE, HISTORIES, SEED = "simulated:1:150", 2 * PIECE + 30, 3
SHARDS = 6


class Letters:
    """Longer is better."""

    id = "r-letters"

    def score(
        self, histories: Sequence[Sequence[Utterance]], replies: Sequence[str]
    ) -> list[float]:
        return [min(100.0, float(len(reply))) for reply in replies]


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As a worker has."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass
class Given:
    folder: Path
    settings: list[str]

    @property
    def config(self) -> Config:
        return configs.load("cpu", self.settings)

    def options(self, **change: str) -> list[str]:
        """What both commands are told."""
        usual = {
            "--policies": f"base,{self.folder / 'moved'},human",
            "--reward": str(self.folder / "rwd"),
            "--histories": str(HISTORIES),
            "--seed": str(SEED),
        }
        listed = [part for pair in (usual | change).items() for part in pair]
        return [*listed, *(part for s in self.settings for part in ("--set", s))]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    """A tiny base, an adapter that moves it, and a folder that is called a reward."""
    import torch

    from learning.policy.model import open_model, save_adapter

    folder = tmp_path_factory.mktemp("replies")
    small.llama(folder / "base")
    found = Given(
        folder,
        [
            *small.plain(), f"models.paths={{small = '{folder / 'base'}'}}", "policy.base=small",
            "policy.history_tokens=120", "policy.response_tokens=12",
            "dialogue.system_prompt='hi'",
        ],
    )  # fmt: skip
    model = open_model(folder / "base", found.config.policy, torch.device("cpu"))
    torch.manual_seed(0)
    state = {
        name: torch.randn_like(weight) * 0.1 if "lora_B" in name else weight
        for name, weight in model.adapter_state().items()
    }
    save_adapter(folder / "moved", model.network, state, "small", "p-moved")
    (folder / "rwd").mkdir()
    (folder / "rwd" / "reward.json").write_text("{}")
    return found


@dataclass
class Made:
    out: Path
    args: list[str]
    before: dict[Path, tuple[bytes, int]]
    killed: list[int]
    ended: list[tuple[int, str, str]]


@pytest.fixture(scope="module")
def made(given: Given) -> Made:
    """The job killed after its first shard, then done by two runs at once."""
    out = given.folder / "out"
    args = ["replies", SOURCE, str(out), *given.options(), "--workers", "1", "--json"]
    with runs.started(*args) as child:
        first = runs.wait_for(out, "*.parquet", child)
        killed = runs.kill(child.pid)
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in first}
    with runs.started(*args) as one, runs.started(*args) as other:
        ended = []
        for child in (one, other):
            stdout, stderr = child.communicate(timeout=300)
            ended.append((child.returncode, stdout, stderr))
    return Made(out, args, before, killed, ended)


def asked_of(given: Given) -> tuple[list[Policy], Sample]:
    registry = Registry.open(given.folder / "data")
    data = load(SOURCE, given.config)
    sample, _ = asking.drawn(data, str(given.folder / "rwd"), registry, SEED, HISTORIES)
    return asking.parse(f"base,{given.folder / 'moved'},human", registry), sample


def test_a_killed_job_goes_on_without_its_finished_shards(made: Made) -> None:
    assert 1 <= len(made.before) < SHARDS and len(made.killed) > 3
    for file, (content, changed) in made.before.items():
        assert file.read_bytes() == content and file.stat().st_mtime_ns == changed
    for code, stdout, stderr in made.ended:
        assert (code, stderr) == (0, "")
        said = json.loads(stdout)
        assert said["complete"] and said["shards"] == SHARDS and not said["failed"]
        assert said["kept"] >= len(made.before) and said["kept"] + said["made"] == SHARDS
        assert said["rows"] == 2 * HISTORIES
    assert sorted(f.suffix for f in made.out.iterdir()) == [".json"] + SHARDS * [".parquet"]


def test_the_shards_are_those_of_a_run_without_ray(made: Made, given: Given) -> None:
    chosen, sample = asked_of(given)
    _, shards, _ = replies_job(chosen, sample, str(made.out), given.config, SEED)
    work = OpenWriter(given.config)()
    _, found = tables(Place(str(made.out)), "replies")
    read = {about["input"]: (about, table) for about, table in found}
    # In turns: each policy is put away for the other.
    for shard in sorted(reversed(shards), key=lambda s: s.content["start"]):
        about, table = read.pop(shard.input)
        expected, facts = work(shard)
        assert table.equals(expected) and about["facts"]["safety"] == facts["safety"]
        assert (facts["safety"] is None) is (shard.content["start"] > 0)
    assert not read
    spoken = [turn.text for history in sample.histories for turn in history]
    everything = b"".join(f.read_bytes() for f in made.out.iterdir())
    assert not [text for text in spoken if len(text) > 20 and text.encode() in everything]


def compared(given: Given, out: str, *more: str, **change: str) -> Any:
    return CliRunner().invoke(
        cli,
        ["learn", "compare", "--data", SOURCE, *given.options(**change), *more,
         "--out", str(given.folder / out), "--json"],
    )  # fmt: skip


def test_a_comparison_is_the_same_from_the_shards_and_opens_no_policy(
    made: Made, given: Given, monkeypatch: pytest.MonkeyPatch
) -> None:
    import learning.policy.writing
    import learning.reward

    monkeypatch.setattr(learning.reward, "load", lambda *_: Letters())
    itself = compared(given, "itself")
    assert itself.exit_code == 0, (itself.output, itself.exception)
    monkeypatch.delattr(learning.policy.writing, "open_writer")
    taken = compared(given, "taken", "--replies", f"file://{made.out}")
    assert taken.exit_code == 0, (taken.output, taken.exception)
    assert taken.stdout == itself.stdout
    base, moved, human = json.loads(taken.stdout)["rows"]
    assert base["kl"] == pytest.approx(0, abs=1e-4) and moved["kl"] > 0.05
    assert base["words"] != moved["words"] and 0 <= moved["unsafe"] <= 1 and human["kl"] is None
    for name in ("base", "moved"):
        files = [given.folder / run / f"replies-{name}.json" for run in ("itself", "taken")]
        assert files[0].read_bytes() == files[1].read_bytes()
    # Named otherwise it is the same policy; another seed or fewer shards are not what was asked.
    options = {"--policies": f"other={given.folder / 'moved'},base"}
    again = compared(given, "named", "--replies", str(made.out), **options)
    assert [row["kl"] for row in json.loads(again.stdout)["rows"]] == [moved["kl"], base["kl"]]
    other = compared(given, "other", "--replies", str(made.out), **{"--seed": "4"})
    assert "made with other settings (sample: " in str(other.exception)
    assert "; seed: 3, now 4)" in str(other.exception)
    lost = next(made.out.glob("*.parquet"))
    lost.rename(lost.with_suffix(".lost"))
    part = compared(given, "part", "--replies", str(made.out))
    lost.with_suffix(".lost").rename(lost)
    assert "1 of 3 shards of " in str(part.exception)
    assert "run 'geli learn corpus replies' with the same options" in str(part.exception)
    none = compared(given, "none", "--replies", str(given.folder / "rwd"))
    assert "holds no replies" in str(none.exception)


def test_an_adapter_that_cannot_speak_fails_its_shards_only(given: Given, tmp_path: Path) -> None:
    """Found by the worker: what the command saw of it was whole."""
    chosen, sample = asked_of(given)
    moved = Policy("gone", tmp_path / "gone", "gone")
    moved.adapter.mkdir()  # type: ignore[union-attr]
    for file in chosen[1].adapter.iterdir():  # type: ignore[union-attr]
        (tmp_path / "gone" / file.name).write_bytes(file.read_bytes())
    _, shards, _ = replies_job([chosen[0], moved], sample, str(tmp_path / "o"), given.config, 0)
    (tmp_path / "gone" / "adapter_model.safetensors").unlink()
    work = OpenWriter(given.config)()
    by_policy = {shard.group: shard for shard in shards}
    assert len(by_policy) == 2
    with pytest.raises(GeliError, match=r"no adapter_model\.safetensors in it"):
        work(by_policy[next(group for group in by_policy if group != "base")])
    table, _ = work(by_policy["base"])
    assert table.num_rows == HISTORIES - 2 * PIECE


@pytest.mark.parametrize(
    ("source", "change", "line"),
    [
        ("store", {}, "nothing of a deleted session may stay"),
        (SOURCE, {"--policies": "human"}, "what people said needs no writing"),
        (SOURCE, {"--policies": "/nowhere/at/all"}, "no adapter_config.json in it"),
        (SOURCE, {"--reward": "r-none"}, "r-none"),
        ("nonsense", {}, "no source 'nonsense'"),
    ],
)
def test_mistakes_are_one_line(
    source: str,
    change: dict[str, str],
    line: str,
    given: Given,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GELI_DATA", str(tmp_path / "data"))
    command = ["learn", "corpus", "replies", source, str(tmp_path / "out")]
    error = CliRunner().invoke(cli, [*command, *given.options(**change)]).exception
    assert isinstance(error, GeliError) and line in str(error) and "\n" not in str(error)
    assert not (tmp_path / "out").exists()


def test_an_adapter_of_another_base_is_told_before_any_worker_starts(given: Given) -> None:
    chosen, sample = asked_of(given)
    config = configs.load("cpu", [*given.settings, "policy.base=smollm2-135m-instruct"])
    with pytest.raises(GeliError, match="small"):
        replies_job(chosen, sample, str(given.folder / "never"), config, SEED)
