"""r_θ from text to file and back, frozen and fine-tuned, on tiny encoders and the real one."""

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from agent import config as configs
from agent.config import Config
from learning.dialogue import Dialogue, Utterance, with_sentiment
from learning.errors import RegistryError, TrainingError
from learning.reward import load, train
from tests.learning import tiny

pytestmark = pytest.mark.engine
torch.set_num_threads(1)

GOOD = ("that sounds lovely tell me more", "i love the garden", "what a great day", "you are great")
BAD = ("i hate work", "boring", "nothing happened", "the day was awful")
SAID = ("how are you", "the dog is great", "work was boring today", "i was about the garden")


def dialogues(n: int = 60, seed: int = 0) -> list[Dialogue]:
    """Ratings are the share of good sayings; faces read each saying with a few mistakes."""
    rng = random.Random(seed)
    out = []
    for i in range(n):
        warmth = rng.random()
        turns = []
        for _ in range(rng.randint(4, 12)):
            good = rng.random() < warmth
            turns.append(Utterance("listener", rng.choice(SAID), scored=False))
            li = int(good if rng.random() < 0.8 else not good)
            turns.append(Utterance("agent", rng.choice(GOOD if good else BAD), li=li))  # type: ignore[arg-type]
        share = np.mean([t.text in GOOD for t in turns if t.scored])
        out.append(Dialogue(f"d{i}", tuple(turns), float(100 * share)))
    return with_sentiment(out)


def config_with(tmp_path: Path, kind: str, **changes: object) -> Config:
    folder = tiny.encoder(tmp_path / kind, kind)
    config = configs.load("cpu", [f"models.paths={{tiny = '{folder}'}}", "reward.encoder=tiny"])
    quick = {"learning_rate": 3e-3, "epochs": 12, "dropout": 0.0, "components": 8} | changes
    return config.model_copy(update={"reward": config.reward.model_copy(update=quick)})


def ranks_good_above_bad(reward: object) -> bool:
    history = [Utterance("listener", "how are you")]
    texts = [*GOOD, *BAD]
    scores = reward.score([history] * len(texts), texts)  # type: ignore[attr-defined]
    return min(scores[: len(GOOD)]) > max(scores[len(GOOD) :])


@pytest.mark.parametrize("kind", ["bert", "bart"])
@pytest.mark.parametrize("trainable", [False, True], ids=["frozen", "fine-tuned"])
def test_it_learns_saves_and_loads_to_the_same_scores(
    kind: str, trainable: bool, tmp_path: Path
) -> None:
    config = config_with(tmp_path, kind, trainable=trainable, subset=4)
    data = dialogues()
    folder = tmp_path / "run"
    folder.mkdir()
    reward, outcome = train(data[:40], data[40:50], config, folder)
    assert outcome.best_loss < outcome.losses[0][1]
    assert ranks_good_above_bad(reward)
    held = data[55]
    unrolled = reward.unroll(held)
    loaded = load(folder, config)
    assert loaded.unroll(held) == pytest.approx(unrolled, abs=1e-3)
    # what a reply is worth does not depend on how it was asked for
    at = held.scored[2]
    scored = loaded.score([held.turns[:at]], [held.turns[at].text])
    assert scored[0] == pytest.approx(unrolled[2], abs=1e-2)


def test_a_fine_tuned_run_that_was_killed_goes_on_to_the_same_result(tmp_path: Path) -> None:
    config = config_with(tmp_path, "bert", trainable=True, subset=3, epochs=3, dropout=0.1)
    data = dialogues(30)
    whole_folder, killed_folder = tmp_path / "whole", tmp_path / "killed"
    whole_folder.mkdir()
    killed_folder.mkdir()
    whole, _ = train(data[:20], data[20:], config, whole_folder)

    class Killed(BaseException):
        pass

    def kill(what: str, done: float, _: float) -> None:
        if what == "training" and done == 2:
            raise Killed

    with pytest.raises(Killed):
        train(data[:20], data[20:], config, killed_folder, on_progress=kill)
    resumed, outcome = train(data[:20], data[20:], config, killed_folder)
    assert outcome.epochs == 3
    assert resumed.unroll(data[0]).tolist() == whole.unroll(data[0]).tolist()


def test_history_that_is_too_long_loses_its_oldest_words(tmp_path: Path) -> None:
    from learning.encoder import Encoder
    from learning.network import Texts

    config = config_with(tmp_path, "bert")
    encoder = Encoder("tiny", config.models)
    texts = Texts(encoder, [("hate " * 90 + "garden", "love dog"), ("", "love")], 32)
    batch = texts.batch(torch.tensor([0, 1]))
    words = encoder.tokenizer.convert_ids_to_tokens(batch["input_ids"][0].tolist())
    assert len(words) == 32
    assert words[-5:] == ["garden", "[SEP]", "love", "dog", "[SEP]"]
    assert batch["attention_mask"][1].sum() < 32


def test_rrd_reads_k_turns_of_a_dialogue_however_long_it_is(tmp_path: Path) -> None:
    from learning.bank import bank_of
    from learning.scale import Scale
    from learning.trainer import Part, Trainer

    read: list[int] = []

    class Counting(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(()))

        def forward(self, turns: torch.Tensor) -> torch.Tensor:
            if self.training:
                read.append(len(turns))
            return self.w.expand(len(turns))

    class Bare:
        def __init__(self, n: int) -> None:
            self.n = n

        def __len__(self) -> int:
            return self.n

        def batch(self, turns: torch.Tensor) -> torch.Tensor:
            return turns

    changes = {"subset": 8, "epochs": 1, "batch_dialogues": 4, "micro_batch": 32}
    settings = configs.load("cpu").reward.model_copy(update=changes | {"shaping": "none"})
    for long in (10, 300):
        data = [
            Dialogue(str(i), tuple(Utterance("agent", "x") for _ in range(long)), float(i))
            for i in range(4)
        ]
        bank = bank_of(data, 0.05)
        part = Part(bank, Bare(len(bank.li)))
        Trainer(Counting(), settings, Scale.fit(bank, settings), part, part).run()
    assert read == [32, 32]


def test_nothing_to_train_and_damaged_files_are_said_in_a_line(tmp_path: Path) -> None:
    config = config_with(tmp_path, "bert", method="mean", shaping="none")
    data = dialogues(12)
    with pytest.raises(TrainingError, match="nothing to train"):
        train(data[:8], data[8:], config, tmp_path)
    config = config_with(tmp_path, "bert", epochs=1)
    folder = tmp_path / "run"
    folder.mkdir()
    train(data[:8], data[8:], config, folder)
    whole = (folder / "reward.safetensors").read_bytes()
    (folder / "reward.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RegistryError, match="not a reward that can be read"):
        load(folder, config)
    (folder / "reward.safetensors").write_bytes(whole)
    (folder / "reward.json").write_text("{}")
    with pytest.raises(RegistryError, match="not a reward that can be read"):
        load(folder, config)


def test_a_reward_of_other_features_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_with(tmp_path, "bert", epochs=1)
    data = dialogues(12)
    train(data[:8], data[8:], config, tmp_path)
    assert load(tmp_path, config).score([data[0].turns[:1]], ["hello"])
    monkeypatch.setattr("learning.features.NUMBERS", ("another",))
    with pytest.raises(RegistryError, match="trained on other features: train it again"):
        load(tmp_path, config)


def test_the_packaged_encoder_learns_and_reads_only_text() -> None:
    import tempfile

    config = configs.load("cpu")
    quick = {"epochs": 15, "components": 16, "learning_rate": 2e-3, "subset": 8}
    config = config.model_copy(update={"reward": config.reward.model_copy(update=quick)})
    data = dialogues(50)
    with tempfile.TemporaryDirectory() as folder:
        reward, _ = train(data[:35], data[35:], config, Path(folder))
    assert ranks_good_above_bad(reward)
    held = data[40]
    blind = replace(held, turns=tuple(replace(t, li=None, sentiment=None) for t in held.turns))
    assert reward.unroll(blind).tolist() == reward.unroll(held).tolist()
