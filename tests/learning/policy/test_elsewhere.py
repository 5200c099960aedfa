"""A vLLM server writes the replies: training learns from them, comparing takes them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from learning.dialogue import Utterance
from learning.errors import TrainingError
from learning.policy import curves, vllm
from learning.policy.elsewhere import ServedWriter, gap, row_seed, weights
from learning.policy.train import train
from learning.policy.writing import open_writer
from tests.learning.policy.small import CountsWord, dialogues, llama
from tests.learning.policy.test_train import Killed, config, killer, lines
from tests.learning.policy.vllm_server import BASE, Vllm

pytestmark = pytest.mark.engine
torch.set_num_threads(1)
HISTORIES = [[Utterance("listener", text)] for text in ("hi", "how are you", "the dog")] * 4


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def server(place: Path) -> Iterator[Vllm]:
    with Vllm(place) as made:
        yield made


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "PAUSE_S", 0.01)


def test_reward_rises_by_replies_from_elsewhere(place: Path, server: Vllm, tmp_path: Path) -> None:
    chosen = config(
        place, updates=20, batch=16, learning_rate=0.006, kl_coefficient=0.01, kl_target=2.0,
        vllm_url=server.url,
    )  # fmt: skip
    m = train(dialogues(), CountsWord(), chosen, tmp_path).metrics
    assert m["reward_last"] > 4 * max(1.0, m["reward_first"])
    found = curves.read(tmp_path)
    assert all(abs(line["rollout_gap"]) < 1e-4 for line in found)
    assert all(line["ratio_first"] < 1e-3 for line in found)
    assert 0 < found[-1]["entropy"] < found[0]["entropy"]
    # Each update asked the policy as it then was, and nothing of them is left.
    assert len({body["model"] for body in server.asked}) == 20
    assert list(server.models) == [BASE]
    assert not (tmp_path / "published").exists()


def test_killed_and_resumed_it_comes_to_the_same(place: Path, server: Vllm, tmp_path: Path) -> None:
    chosen = config(place, vllm_url=server.url)
    whole = train(dialogues(), CountsWord(), chosen, tmp_path / "a")
    with pytest.raises(Killed):
        train(dialogues(), CountsWord(), chosen, tmp_path / "b", on_update=killer(3))
    assert len(server.models) == 2  # the killed one's
    again = train(dialogues(), CountsWord(), chosen, tmp_path / "b", resume=True)
    assert list(server.models) == [BASE]
    assert lines(tmp_path / "a") == lines(tmp_path / "b")
    assert again.updates == whole.updates == 6


def test_a_server_that_speaks_with_another_policy_is_found_out(
    place: Path, server: Vllm, tmp_path: Path
) -> None:
    server.deaf = True
    chosen = config(place, updates=20, learning_rate=0.02, vllm_url=server.url)
    with pytest.raises(TrainingError, match=r"differ from this policy's by \+0\.\d\d nats a token"):
        train(dialogues(), CountsWord(), chosen, tmp_path)
    assert 0 < len(curves.read(tmp_path)) < 20


def test_a_server_that_goes_away_loses_nothing(place: Path, server: Vllm, tmp_path: Path) -> None:
    chosen = config(place, vllm_url=server.url)
    server.fails = [503, 429]  # tried again
    with pytest.raises(Killed):
        train(dialogues(), CountsWord(), chosen, tmp_path, on_update=killer(3))
    server.fails = [500] * 100
    with pytest.raises(TrainingError, match="refuses: HTTP 500"):
        train(dialogues(), CountsWord(), chosen, tmp_path, resume=True)
    gone = config(place, vllm_url="http://127.0.0.1:9/v1")
    with pytest.raises(TrainingError, match="does not answer: ConnectError — is it running"):
        train(dialogues(), CountsWord(), gone, tmp_path, resume=True)
    with Vllm(place) as other:
        moved = config(place, vllm_url=other.url)
        assert train(dialogues(), CountsWord(), moved, tmp_path, resume=True).updates == 6


def test_lines(place: Path, server: Vllm, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"does not serve 'x' — policy.vllm_model is one of: "):
        open_writer(config(place, vllm_url=server.url, vllm_model="x"))
    server.takes_adapters = False
    with pytest.raises(TrainingError, match="HTTP 400 — start it with --enable-lora"):
        train(dialogues(), CountsWord(), config(place, vllm_url=server.url), tmp_path)
    server.takes_adapters, server.token_ids = True, False
    with pytest.raises(TrainingError, match="what it answers has no token ids — policy.vllm_url"):
        open_writer(config(place, vllm_url=server.url)).write(HISTORIES, 0)
    with pytest.raises(TrainingError, match="policy.vllm_url belongs to policy.algorithm = 'ppo'"):
        train(
            dialogues(), CountsWord(),
            config(place, vllm_url=server.url, algorithm="rloo"), tmp_path / "rloo",
        )  # fmt: skip


def test_a_writer_asks_the_server(place: Path, server: Vllm, tmp_path: Path) -> None:
    adapter = train(dialogues(), CountsWord(), config(place, learning_rate=0.02), tmp_path).adapter
    chosen = config(place, vllm_url=server.url)
    base, adapted = open_writer(chosen), open_writer(chosen, adapter)
    assert isinstance(base, ServedWriter) and isinstance(adapted, ServedWriter)
    assert base.name == BASE and adapted.name in server.models
    open_writer(chosen, adapter)  # which the server has already
    said = base.write(HISTORIES, 3)
    assert said == base.write(HISTORIES, 3) != base.write(HISTORIES, 4)
    assert len(set(said)) > 3  # one history, four draws
    assert said != adapted.write(HISTORIES, 3)
    assert sum(adapted.kl(HISTORIES, adapted.write(HISTORIES, 3))) > 1
    body = server.asked[0]
    assert (body["temperature"], body["top_p"]) == (
        chosen.responder.temperature, chosen.responder.top_p,
    )  # fmt: skip
    assert json.dumps(body).isascii() and isinstance(body["prompt"][0], int)  # no text goes out


def test_weights_and_gap() -> None:
    here, there = torch.tensor([[-1.0, -2.0, 0.0]]), torch.tensor([[-1.1, -4.0, 0.0]])
    mask = torch.tensor([[True, True, False]])
    assert weights(here, there)[0, 0].item() == pytest.approx(1.1052, abs=1e-4)
    assert weights(here, there)[0, 1].item() == 2.0  # e² truncated
    assert gap(here, here + 0.05, mask) == pytest.approx(0.05)
    for other in (there, here + float("nan")):
        with pytest.raises(TrainingError, match="differ"):
            gap(here, other, mask)
    seeds = {row_seed(seed, row) for seed in range(50) for row in range(50)}
    assert len(seeds) == 2500 and max(seeds) < 2**31
