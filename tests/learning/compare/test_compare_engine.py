"""`geli learn compare` with the real small LLaMA: the base, an adapter on it, and real replies."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent import config, weights
from agent.cli import cli
from learning.dialogue import Utterance

pytestmark = pytest.mark.engine

BASE = "smollm2-135m-instruct"


class Letters:
    """Longer is better."""

    id = "r-letters"

    def score(
        self, histories: Sequence[Sequence[Utterance]], replies: Sequence[str]
    ) -> list[float]:
        return [min(100.0, float(len(reply))) for reply in replies]


def adapter(folder: Path) -> Path:
    """LoRA with small random weights in both matrices, so that it speaks a little differently."""
    import torch

    from learning.policy.model import open_model, save_adapter

    settings = config.load("cpu")
    place = weights.ensure(BASE, settings.models)
    model = open_model(place, settings.policy, torch.device("cpu"))
    torch.manual_seed(0)
    state = {
        name: torch.randn_like(weight) * 0.03 if "lora_B" in name else weight
        for name, weight in model.adapter_state().items()
    }
    save_adapter(folder, model.network, state, BASE, "p-moved")
    return folder


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads that wait for each other are far slower than one where cores are shared."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_base_and_adapter_on_the_same_histories(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import learning.reward
    from learning.compare import probes

    monkeypatch.setattr(probes, "PROMPTS", probes.PROMPTS[:2])
    monkeypatch.setenv("GELI_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(learning.reward, "load", lambda *_: Letters())
    (tmp_path / "rwd").mkdir()
    (tmp_path / "rwd" / "reward.json").write_text("{}")
    folder = adapter(tmp_path / "moved")
    args = [
        "learn", "compare", "--policies", f"base,{folder},human", "--data", "simulated:1:20",
        "--reward", str(tmp_path / "rwd"), "--histories", "3", "--out", str(tmp_path / "out"),
        "--json", "--set", "policy.response_tokens=8", "--set", "policy.history_tokens=128",
    ]  # fmt: skip
    result = CliRunner().invoke(cli, args)
    assert result.exit_code == 0, (result.output, result.exception)
    base, moved, human = json.loads(result.stdout)["rows"]
    assert (base["policy"], moved["policy"], human["policy"]) == ("base", "moved", "human")
    assert base["kl"] == pytest.approx(0, abs=1e-3) and moved["kl"] > 0.05
    assert base["empty"] == 0 and base["words"] > 2
    assert 0 <= base["unsafe"] <= 1 and human["unsafe"] is None
    written = [
        json.loads((tmp_path / "out" / f"replies-{name}.json").read_text())["replies"]
        for name in ("base", "moved")
    ]
    assert written[0] != written[1]
    again = CliRunner().invoke(cli, args)
    assert again.stdout == result.stdout
