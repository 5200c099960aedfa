"""`geli learn policy` as a person meets it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

from learning.cli.policy import command
from learning.dialogue import Dataset
from learning.errors import TrainingError
from tests.learning.policy.small import CountsWord, dialogues, llama, plain

pytestmark = pytest.mark.engine
torch.set_num_threads(1)


def invoke(*arguments: str) -> Any:
    return CliRunner().invoke(command, list(arguments))


def test_memory_is_worked_out_for_each_way_to_hold_the_base() -> None:
    found = json.loads(
        invoke("--memory", "llama-2-7b", "--set", "policy.precision=bfloat16", "--json").stdout
    )
    assert found["lora_parameters"] == 12_582_912
    peaks = {
        (v["devices"], v["sharded"], v["four_bit"], v["gradient_checkpointing"]): v["bytes"]["peak"]
        for v in found["variants"]
    }
    one = {key[2:]: peak for key, peak in peaks.items() if key[0] == 1}
    assert one[False, False] > one[False, True] > 2 * 6.7e9 > one[True, True]
    assert one[False, True] > peaks[2, False, False, True] > peaks[2, True, False, True]
    assert peaks[4, True, False, True] < 2 * 6.7e9 < peaks[4, False, False, True]
    table = invoke("--memory", "llama-2-7b", "--set", "policy.precision=bfloat16").stdout
    assert "6.74 B weights" in table and f"{one[True, True] / 2**30:.2f}" in table


def test_time_is_worked_out_by_card_and_held_against_the_papers_19_hours() -> None:
    found = json.loads(invoke("--memory", "llama-2-7b", "--config", "paper", "--json").stdout)
    rows = {(r["card"], r["devices"], r["sharded"]): r for r in found["seconds"]}
    for card in ("RTX A6000", "A100 80 GB", "H100 80 GB"):
        one, four, shards = (rows[card, *how] for how in ((1, False), (4, False), (4, True)))
        for row in (one, four, shards):
            took = row["seconds"]
            phases = sum(took[p] for p in ("write", "score", "reference", "optimise"))
            assert took["all"] == pytest.approx(phases)
            assert row["updates_in_19_hours"] == int(19 * 3600 / took["all"])
        assert one["seconds"]["all"] > four["seconds"]["all"] < shards["seconds"]["all"]
    table = invoke("--memory", "llama-2-7b", "--config", "paper").stdout
    a6000 = rows["RTX A6000", 4, False]["updates_in_19_hours"]
    line = next(x for x in table.splitlines() if x.startswith("4 × RTX A6000  "))
    assert line.endswith(f"{a6000:,}")


def test_a_model_whose_shape_nobody_knows_is_said() -> None:
    result = invoke("--memory", "gpt-9")
    assert isinstance(result.exception, TrainingError) and "llama-2-7b" in str(result.exception)


@pytest.mark.parametrize("missing", ["--reward", "--out"])
def test_what_is_missing_is_named(missing: str) -> None:
    given = {"--reward": "r", "--out": "o"}
    del given[missing]
    result = invoke(*next(iter(given.items())))
    assert result.exit_code == 2 and f"Missing option '{missing}'" in result.output


def test_a_run_tells_what_it_came_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import learning.data
    import learning.reward

    place = llama(tmp_path / "llama")
    seen: list[Any] = []

    def reward(which: str, config: Any) -> CountsWord:
        seen.append((which, config.policy.seed, config.policy.updates))
        return CountsWord()

    monkeypatch.setattr(learning.reward, "load", reward)
    monkeypatch.setattr(
        learning.data, "load", lambda spec, config: Dataset(spec, tuple(dialogues()), "none")
    )
    settings = [f"models.paths.tiny={place}", *plain(), "policy.base=tiny", "policy.batch=8"]
    settings += ["policy.history_tokens=120", "policy.response_tokens=8"]
    options = [x for s in settings for x in ("--set", s)]
    run = ("--reward", "r-1", "--out", str(tmp_path / "run"), "--seed", "3", *options)
    result = invoke(*run, "--updates", "2", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert seen == [("r-1", 3, 2)]
    assert found["updates"] == 2 and found["stopped"] is None
    assert Path(found["adapter"], "adapter_config.json").is_file()
    again = invoke(*run, "--updates", "2")
    assert isinstance(again.exception, TrainingError) and "--resume" in str(again.exception)
    more = invoke(*run, "--updates", "3", "--resume")
    assert more.exit_code == 0 and more.stdout.startswith("3 updates")
    assert "nats a reply" in more.stdout
