"""The loop on a tiny LLaMA: it learns, repeats itself, goes on after a kill, stops when it must."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from agent import config as configs
from agent.config import Config
from agent.policies import check_adapter
from learning.dialogue import Dialogue, Utterance
from learning.errors import DataError, TrainingError
from learning.policy import curves
from learning.policy.train import Outcome, train
from learning.policy.writing import Writer
from tests.learning.policy.small import CountsWord, dialogues, llama, plain

pytestmark = pytest.mark.engine
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("llama"))


def config(place: Path, **changes: Any) -> Config:
    settings = {
        "base": "tiny",
        "updates": 6,
        "batch": 8,
        "micro_batch": 4,
        "learning_rate": 0.003,
        "history_tokens": 120,
        "response_tokens": 8,
        "lora_r": 4,
        "checkpoint_every": 2,
        "max_kl": 1000.0,
    } | changes
    return configs.load(
        "cpu",
        [
            f"models.paths.tiny={place}",
            *plain(),
            *(f"policy.{k}={json.dumps(v)}" for k, v in settings.items()),
        ],
    )


def lines(folder: Path) -> list[dict[str, Any]]:
    """The curves without what a clock says."""
    return [{k: v for k, v in line.items() if k != "seconds"} for line in curves.read(folder)]


def weights(outcome: Outcome) -> bytes:
    return (outcome.adapter / "adapter_model.safetensors").read_bytes()


class Killed(Exception):
    pass


def killer(after: int) -> Callable[[int], None]:
    def on_update(done: int) -> None:
        if done == after:
            raise Killed

    return on_update


def test_reward_rises_and_the_kl_with_it(place: Path, tmp_path: Path) -> None:
    chosen = config(
        place, updates=30, batch=16, learning_rate=0.006, kl_coefficient=0.01, kl_target=2.0
    )
    outcome = train(dialogues(), CountsWord(), chosen, tmp_path)
    m = outcome.metrics
    assert outcome.updates == 30 and outcome.stopped is None
    assert m["reward_last"] > 5 * max(1.0, m["reward_first"])
    found = curves.read(tmp_path)
    assert found[0]["kl"] == pytest.approx(0, abs=1e-3)  # it begins as the base
    assert found[0]["ratio_first"] < 1e-3  # what was noted while writing is π_old
    assert m["kl_last"] > 1
    assert found[-1]["beta"] != found[0]["beta"]
    assert set(found[0]["seconds"]) == {"write", "score", "reference", "optimise"}
    assert (tmp_path / "curves.png").read_bytes()[:4] == b"\x89PNG"
    # The live call's own check, and what it would say.
    check_adapter(outcome.adapter, "tiny")
    history = [Utterance("listener", "hi")]
    said = Writer.open(chosen, outcome.adapter).write([history] * 20, 0)
    base = Writer.open(chosen).write([history] * 20, 0)
    assert sum(CountsWord().score([history] * 20, said)) > 20 + sum(
        CountsWord().score([history] * 20, base)
    )


def test_one_seed_has_one_curve(place: Path, tmp_path: Path) -> None:
    first = train(dialogues(), CountsWord(), config(place), tmp_path / "a")
    second = train(dialogues(), CountsWord(), config(place), tmp_path / "b")
    other = train(dialogues(), CountsWord(), config(place, seed=1), tmp_path / "c")
    assert lines(tmp_path / "a") == lines(tmp_path / "b") != lines(tmp_path / "c")
    assert weights(first) == weights(second) != weights(other)


def test_siblings_answer_one_history(place: Path, tmp_path: Path) -> None:
    seen: list[list[Sequence[Utterance]]] = []

    class Remembers(CountsWord):
        def score(
            self, histories: Sequence[Sequence[Utterance]], replies: Sequence[str]
        ) -> list[float]:
            seen.append(list(histories))
            return super().score(histories, replies)

    chosen = config(place, samples=4, updates=30, learning_rate=0.006, kl_coefficient=0.01)
    outcome = train(dialogues(), Remembers(), chosen, tmp_path / "a")
    for asked in seen:
        assert asked[0:4] == [asked[0]] * 4 and asked[4:8] == [asked[4]] * 4
    assert len({repr(asked[0]) for asked in seen}) > 1
    assert outcome.metrics["reward_last"] > 5 * max(1.0, outcome.metrics["reward_first"])
    with pytest.raises(TrainingError, match=r"batch = 8 is no multiple of policy.samples = 3"):
        train(dialogues(), CountsWord(), config(place, samples=3), tmp_path / "b")
    with pytest.raises(TrainingError, match="trl-ppo writes one reply to a history"):
        train(
            dialogues(),
            CountsWord(),
            config(place, samples=4, algorithm="trl-ppo"),
            tmp_path / "c",
        )


@pytest.mark.parametrize("killed_after", [0, 1, 2, 3, 5])
def test_a_killed_run_goes_on_to_the_same_curve(
    place: Path, tmp_path: Path, killed_after: int
) -> None:
    more = {"pretrain_weight": 0.1, "sft_steps": 2, "mini_batches": 2}  # with dropout's draws
    whole = train(dialogues(), CountsWord(), config(place, **more), tmp_path / "whole")
    killed = tmp_path / "killed"
    with pytest.raises(Killed):
        train(
            dialogues(), CountsWord(), config(place, **more), killed, on_update=killer(killed_after)
        )
    (killed / "curves.jsonl").open("a").write('{"update": 4, "rew')  # cut in the middle of a line
    resumed = train(dialogues(), CountsWord(), config(place, **more), killed, resume=True)
    assert lines(killed) == lines(tmp_path / "whole")
    assert weights(resumed) == weights(whole)
    assert resumed.metrics == whole.metrics


def test_a_finished_run_can_be_asked_for_more(place: Path, tmp_path: Path) -> None:
    whole = train(dialogues(), CountsWord(), config(place), tmp_path / "whole")
    train(dialogues(), CountsWord(), config(place, updates=3), tmp_path / "more")
    again = train(dialogues(), CountsWord(), config(place), tmp_path / "more", resume=True)
    assert weights(again) == weights(whole)
    same = train(dialogues(), CountsWord(), config(place), tmp_path / "more", resume=True)
    assert weights(same) == weights(whole)


def test_a_folder_is_not_overwritten_and_another_runs_checkpoint_is_refused(
    place: Path, tmp_path: Path
) -> None:
    train(dialogues(), CountsWord(), config(place, updates=1), tmp_path)
    with pytest.raises(TrainingError, match="holds a run already"):
        train(dialogues(), CountsWord(), config(place, updates=1), tmp_path)
    with pytest.raises(TrainingError, match="other settings"):
        train(dialogues(), CountsWord(), config(place, clip=0.3), tmp_path, resume=True)
    (tmp_path / "checkpoint.pt").write_bytes(b"no checkpoint")
    with pytest.raises(TrainingError, match="not a checkpoint"):
        train(dialogues(), CountsWord(), config(place), tmp_path, resume=True)


def test_a_kl_out_of_bounds_stops_the_run_on_its_last_good_policy(
    place: Path, tmp_path: Path
) -> None:
    bounded = {"learning_rate": 0.01, "max_kl": 6.0}
    chosen = config(place, updates=30, **bounded)
    outcome = train(dialogues(), CountsWord(), chosen, tmp_path)
    assert outcome.stopped is not None and "policy.max_kl = 6" in outcome.stopped
    found = curves.read(tmp_path)
    assert found[-1]["stopped"] == outcome.stopped and found[-1]["kl"] > 6
    assert 0 < outcome.updates < found[-1]["update"] < 30 and outcome.updates % 2 == 0
    assert json.loads((tmp_path / "outcome.json").read_text())["stopped"] == outcome.stopped
    shorter = config(place, updates=outcome.updates, **bounded)
    good = train(dialogues(), CountsWord(), shorter, tmp_path / "good")
    assert weights(outcome) == weights(good)


def test_collapse_stops_the_run(place: Path, tmp_path: Path) -> None:
    chosen = config(place, updates=14, min_entropy=50.0)
    outcome = train(dialogues(), CountsWord(), chosen, tmp_path)
    assert outcome.stopped is not None and "collapsed" in outcome.stopped
    assert curves.read(tmp_path)[-1]["update"] == 10  # a mean of ten


def test_a_loss_that_is_no_number_stops_the_run(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from learning.policy import optimise as module

    real, calls = module.policy_loss, []

    def broken(*args: Any) -> Any:
        calls.append(1)
        loss, share = real(*args)
        return (loss * math.nan if len(calls) > 12 else loss), share

    monkeypatch.setattr(module, "policy_loss", broken)
    outcome = train(dialogues(), CountsWord(), config(place), tmp_path)
    assert outcome.stopped == "a loss or the KL is no finite number"
    assert outcome.updates == 2
    assert b"nan" not in (outcome.adapter / "manifest.json").read_bytes()
    from safetensors.torch import load_file

    tensors = load_file(outcome.adapter / "adapter_model.safetensors")
    assert all(t.isfinite().all() for t in tensors.values())


class Says:
    """Any scorer."""

    def __init__(self, value: float) -> None:
        self.id, self.value = "says", value

    def score(self, histories: Sequence[Any], replies: Sequence[str]) -> list[float]:
        return [self.value] * len(replies)


def test_a_reward_without_a_number_is_refused(place: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="gave NaN"):
        train(dialogues(), Says(math.nan), config(place), tmp_path)


def test_equal_rewards_teach_nothing_but_penalties(place: Path, tmp_path: Path) -> None:
    chosen = config(place, updates=2, unfinished_penalty=0.0, repetition_penalty=0.0)
    train(dialogues(), Says(50.0), chosen, tmp_path)
    assert [line["normalised"] for line in lines(tmp_path)] == [0.0, 0.0]


def test_penalties_are_reported_and_taken_off(place: Path, tmp_path: Path) -> None:
    chosen = config(place, updates=15, learning_rate=0.02, max_words=5, length_penalty=1.0)
    train(dialogues(), Says(50.0), chosen, tmp_path)
    found = curves.read(tmp_path)
    assert found[0]["penalty_length"] > 0 and found[0]["penalty_unfinished"] > 0
    assert found[-1]["penalty_length"] < 0.5 * found[0]["penalty_length"]
    assert found[-1]["words"] < found[0]["words"]


def test_data_without_a_turn_to_answer_is_said(place: Path, tmp_path: Path) -> None:
    alone = Dialogue("a", (Utterance("agent", "hi"), Utterance("listener", "hi")), 50.0)
    for data in ([], [alone]):
        with pytest.raises(DataError, match="nothing to answer"):
            train(data, CountsWord(), config(place), tmp_path)


def test_a_parent_is_gone_on_from_and_the_kl_stays_to_the_base(place: Path, tmp_path: Path) -> None:
    chosen = config(place, updates=10, learning_rate=0.01)
    parent = train(dialogues(), CountsWord(), chosen, tmp_path / "parent")
    train(
        dialogues(), CountsWord(), config(place, updates=1), tmp_path / "on", parent=parent.adapter
    )
    first = curves.read(tmp_path / "on")[0]
    assert first["kl"] > 0.3  # not 0: the reference is the base, not the parent


def test_the_warm_up_learns_the_datas_own_replies(place: Path, tmp_path: Path) -> None:
    turns = (
        Utterance("listener", "how are you ?"),
        Utterance("agent", "my dog is lovely today"),
    )
    data = [Dialogue(str(i), turns, 50.0) for i in range(4)]
    chosen = config(place, updates=1, sft_steps=30, sft_learning_rate=0.02, learning_rate=1e-9)
    outcome = train(data, Says(50.0), chosen, tmp_path)
    writer = Writer.open(chosen, outcome.adapter)
    assert writer.write([turns[:1]] * 4, 0).count("my dog is lovely today") >= 3
    base = Writer.open(chosen)
    reply = "my dog is lovely today"
    assert writer.logprobs([turns[:1]], [reply])[0] > base.logprobs([turns[:1]], [reply])[0] + 3
