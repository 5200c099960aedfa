"""Rounds on tiny models: simulated calls in a real store, a reward, PPO, gates, a candidate."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from agent import config as configs
from agent.config import Config
from agent.records import Session
from agent.store import Store
from learning import rounds
from learning.dialogue import Utterance
from learning.errors import DataError, TrainingError
from learning.listener.persona import persona
from learning.registry import Registry
from learning.simulation import hold_calls
from tests.learning import tiny
from tests.learning.policy import small

pytestmark = pytest.mark.engine
torch.set_num_threads(1)

LENIENT = [
    "gates.min_sessions=20", "gates.mse_ratio=50", "gates.min_delta=-1", "gates.max_kl=1000",
    "gates.max_length_ratio=100", "gates.min_length_ratio=0.0001", "gates.max_repetition=1",
    "gates.min_distinct=0", "gates.max_refusals=1", "gates.max_unsafe=1", "gates.min_win_rate=0",
    "gates.histories=6",
]  # fmt: skip
QUICK = [
    "reward.encoder=tiny-encoder", "reward.epochs=2", "reward.components=4", "reward.hidden=8",
    "policy.base=tiny-llama", "policy.updates=2", "policy.batch=4", "policy.micro_batch=4",
    "policy.response_tokens=4", "policy.checkpoint_every=1", "policy.lora_r=2",
    "policy.lora_alpha=4",
]  # fmt: skip


class Says:
    """A scripted policy: one of two sayings by turn."""

    def write(self, histories: Sequence[Sequence[Utterance]], seed: int) -> list[str]:
        said = ("That sounds lovely. Tell me more about it?", "Whatever.")
        return [said[(len(h) + i) % 2] for i, h in enumerate(histories)]


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    data = tmp_path / "data"
    data.mkdir()
    monkeypatch.setenv("GELI_DATA", str(data))
    encoder = tiny.encoder(tmp_path / "encoder", "bert")
    llama = small.llama(tmp_path / "llama")
    paths = f"models.paths={{tiny-encoder = '{encoder}', tiny-llama = '{llama}'}}"
    made = configs.load("cpu", [paths, *small.plain(), *QUICK, *LENIENT])
    with Store.open(made.store.url) as store:
        people = [persona(i) for i in range(40)]
        hold_calls(store, Says(), people, 4, 0, "tiny-llama", made.labels)
    return made


def changed(config: Config, **gates: float) -> Config:
    return config.model_copy(update={"gates": config.gates.model_copy(update=gates)})


def sessions(config: Config) -> list[Session]:
    with Store.open(config.store.url) as store:
        return list(store.iter_sessions())


def begun() -> rounds.Round:
    return rounds.begin(rounds.rounds_folder(), "store:simulated", 0)


def test_a_round_ends_with_a_candidate_that_knows_where_it_comes_from(config: Config) -> None:
    this = rounds.run(begun(), config)
    assert this.ended == "candidate", this.ended
    registry = Registry.open()
    policy, reward = registry.verify(this.policy or ""), registry.verify(this.reward or "")
    assert registry.state.candidate == policy.id and registry.state.promoted is None
    assert (policy.base, policy.reward) == ("tiny-llama", reward.id)
    assert (
        sorted(policy.sessions) == sorted(s.id for s in sessions(config)) == sorted(reward.sessions)
    )
    assert {g.name for g in reward.gates} == {"mse_ratio", "delta"}
    assert {g.name for g in policy.gates} >= {"kl", "win_rate", "repetition", "unsafe_more"}
    assert policy.metrics["words"] > 0 and policy.metrics["kl"] >= 0
    registry.promote(policy.id, by="test")
    assert rounds.current_name(registry) == policy.id
    assert rounds.unfinished(rounds.rounds_folder()) is None


def test_a_failed_reward_gate_ends_the_round_before_any_policy(config: Config) -> None:
    this = rounds.run(begun(), changed(config, mse_ratio=0.0001))
    assert (this.ended or "").startswith("reward gate failed: mse_ratio")
    assert this.policy is None and Registry.open().state.candidate is None
    kept = Registry.open().get(this.reward or "")
    assert [g.passed for g in kept.gates if g.name == "mse_ratio"] == [False]


def test_a_failed_policy_gate_keeps_the_old_policy_and_says_which(config: Config) -> None:
    this = rounds.run(begun(), changed(config, min_length_ratio=99.0))
    assert "length_ratio_low" in (this.ended or "") and "policy gate failed" in (this.ended or "")
    registry = Registry.open()
    assert registry.state.candidate is None
    assert registry.get(this.policy or "").failed


def test_a_killed_round_goes_on_and_does_not_repeat_what_is_done(config: Config) -> None:
    class Killed(BaseException):
        pass

    def kill(step: str, done: float, _: float) -> None:
        if step == "policy" and done == 1:
            raise Killed

    with pytest.raises(Killed):
        rounds.run(begun(), config, kill)
    left = rounds.unfinished(rounds.rounds_folder())
    assert left is not None and left.reward is not None and left.policy is None
    assert left.updates == config.policy.updates  # the review tells how far it is
    steps: list[str] = []
    this = rounds.run(left, config, lambda step, *_: steps.append(step))
    assert this.ended == "candidate" and "reward" not in steps
    assert len(Registry.open().list("reward")) == 1
    whole = rounds.run(begun(), config)
    registry = Registry.open()
    first, second = (registry.path(r.policy or "") for r in (this, whole))
    name = "adapter_model.safetensors"
    assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_session_deleted_meanwhile_ends_the_round_in_a_line(config: Config) -> None:
    class Killed(BaseException):
        pass

    def kill(step: str, *_: float) -> None:
        if step == "policy":
            raise Killed

    with pytest.raises(Killed):
        rounds.run(begun(), config, kill)
    with Store.open(config.store.url) as store:
        store.delete(next(iter(store.iter_sessions())).id)
    left = rounds.unfinished(rounds.rounds_folder())
    assert left is not None
    with pytest.raises(DataError, match=r"1 of its sessions are gone — begin another"):
        rounds.run(left, config)


def test_a_damaged_round_is_a_line(config: Config) -> None:
    this = begun()
    (this.folder / "round.json").write_text('{"source": "sto')
    with pytest.raises(TrainingError, match="no round that can be read"):
        rounds.Round.load(this.folder)


def test_the_plan_names_every_step(config: Config) -> None:
    from learning.data import load

    steps = rounds.plan(load("store:simulated", config), config, "base")
    assert [s.split()[0] for s in steps] == [
        "snapshot", "reward", "gates", "policy", "gates", "candidate",
    ]  # fmt: skip
    assert "40 sessions" in steps[0] and "tiny-llama" in steps[3]
