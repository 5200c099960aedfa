"""A real SIGKILL in the middle of a run, and two processes that train one policy."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from learning.policy import curves
from tests.learning.launching import run
from tests.learning.policy.small import llama

pytestmark = pytest.mark.e2e
torch.set_num_threads(1)

RUN = """
import os, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from agent import config
from learning.policy.train import train
from tests.learning.policy.small import CountsWord, dialogues, plain

place, folder, kill = sys.argv[1:]
chosen = config.load("cpu", [f"models.paths.tiny={place}", *plain(), "policy.base=tiny",
    "policy.batch=8", "policy.micro_batch=4", "policy.updates=5",
    "policy.checkpoint_every=2", "policy.lora_r=4",
    "policy.history_tokens=120", "policy.response_tokens=8", "policy.learning_rate=0.003"])

def on_update(done):
    if done == int(kill):
        os.kill(os.getpid(), signal.SIGKILL)

train(dialogues(), CountsWord(), chosen, Path(folder), resume=True, on_update=on_update)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("llama"))


def launched(tmp_path: Path, *arguments: str) -> int:
    script = tmp_path / "run.py"
    script.write_text(RUN)
    return run(script, *arguments)[0].returncode


def test_a_run_that_was_killed_ends_as_if_it_had_not_been(place: Path, tmp_path: Path) -> None:
    assert launched(tmp_path, str(place), str(tmp_path / "whole"), "-1") == 0
    assert launched(tmp_path, str(place), str(tmp_path / "cut"), "3") == -signal.SIGKILL
    assert len(curves.read(tmp_path / "cut")) == 3 and not (tmp_path / "cut" / "adapter").exists()
    assert launched(tmp_path, str(place), str(tmp_path / "cut"), "-1") == 0
    for name in ("adapter_model.safetensors", "manifest.json"):
        one, other = (tmp_path / run / "adapter" / name for run in ("whole", "cut"))
        assert one.read_bytes() == other.read_bytes()
    without = [
        [{k: v for k, v in line.items() if k != "seconds"} for line in curves.read(tmp_path / run)]
        for run in ("whole", "cut")
    ]
    assert without[0] == without[1]


SHARE = """
import json, os, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from tests.learning.launching import ends_no_thread
from tests.learning.policy.test_policy_processes import trained

ends_no_thread()
place, jobs = Path(sys.argv[1]), json.loads(sys.argv[2])
for name, changes, updates, shards in jobs:
    os.environ["ACCELERATE_USE_FSDP"] = str(shards).lower()
    trained(place, name, changes, updates)
"""

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"micro_batch": 2},
    "everything": {
        "samples": 2, "mini_batches": 2, "micro_batch": 3, "pretrain_weight": 0.1, "sft_steps": 2,
        "normalise_scores": False,
    },
}  # fmt: skip


def trained(place: Path, name: str, changes: dict[str, Any], updates: int) -> None:
    """A run of up to so many updates, gone on with if it is there."""
    from agent import config
    from learning.policy.train import train
    from tests.learning.policy.small import CountsWord, dialogues, plain

    quick = {
        "base": "tiny", "batch": 8, "updates": updates, "checkpoint_every": 2, "lora_r": 4,
        "history_tokens": 120, "response_tokens": 8, "learning_rate": 0.003, "max_kl": 1000.0,
    }  # fmt: skip
    settings = [f"policy.{k}={json.dumps(v)}" for k, v in (quick | changes).items()]
    chosen = config.load("cpu", [f"models.paths.tiny={place / 'llama'}", *plain(), *settings])
    train(dialogues(), CountsWord(), chosen, place / name, resume=True)


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all that two processes trained, in one launch."""
    place = tmp_path_factory.mktemp("two")
    llama(place / "llama")
    trained(place, "one then two", VARIANTS["everything"], 3)
    jobs: list[tuple[str, dict[str, Any], int, bool]] = [
        *((f"two {name}", changes, 6, False) for name, changes in VARIANTS.items()),
        *((f"shards {name}", changes, 6, True) for name, changes in VARIANTS.items()),
        ("one then two", VARIANTS["everything"], 6, False),
        ("two then one", VARIANTS["everything"], 3, False),
        ("checkpointing", {"gradient_checkpointing": True, "micro_batch": 3}, 4, True),
    ]
    script = place / "share.py"
    script.write_text(SHARE)
    done = run(script, str(place), json.dumps(jobs), processes=2)
    assert [p.returncode for p in done] == [0, 0], done[0].stderr + done[1].stderr
    assert [p.stdout for p in done] == ["", ""]
    return place


def apart(one: Path, other: Path) -> dict[str, float]:
    """Largest differences of two runs' curves and adapters."""
    lines = [curves.read(folder) for folder in (one, other)]
    assert [line["update"] for line in lines[0]] == [line["update"] for line in lines[1]]
    out = {}
    for key in lines[0][0].keys() - {"seconds", "update"}:
        pairs = zip(*lines, strict=True)
        out[key] = max(abs(a[key] - b[key]) for a, b in pairs)
    a, b = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (one, other))
    assert a.keys() == b.keys()
    return out | {"adapter": max(float((a[k] - b[k]).abs().max()) for k in a)}


@pytest.mark.parametrize("how", ["two", "shards"])
@pytest.mark.parametrize("name", VARIANTS)
def test_two_processes_train_the_policy_of_one(name: str, how: str, by_two: Path) -> None:
    one = by_two / f"one {name}"
    if not one.exists():
        trained(by_two, one.name, VARIANTS[name], 6)
    found = apart(one, by_two / f"{how} {name}")
    print(how, name, {k: f"{v:.1e}" for k, v in found.items()})
    same = ("replies", "tokens", "words", "distinct_2", "repetition", "reward", "normalised")
    assert [found[k] for k in same] == [0] * len(same)  # the very same replies were drawn
    # Micro-batches and the order of their gradients are those of one process, to the last bit;
    # in shards, passes with gradients share no prefix and round otherwise.
    assert found["adapter"] == 0 if how == "two" else found["adapter"] < 1e-5
    assert max(found.values()) < 1e-4
    lines = curves.read(one)
    assert lines[0]["replies"] == 8 and lines[-1]["kl"] > 1  # it did learn


@pytest.mark.parametrize("name", ["one then two", "two then one"])
def test_a_run_goes_on_in_another_number_of_processes(name: str, by_two: Path) -> None:
    trained(by_two, "whole", VARIANTS["everything"], 6)
    trained(by_two, name, VARIANTS["everything"], 6)
    found = apart(by_two / "whole", by_two / name)
    print(name, {k: f"{v:.1e}" for k, v in found.items()})
    assert found["tokens"] == found["reward"] == found["adapter"] == 0
    assert max(found.values()) < 1e-4


def test_shards_go_together_with_checkpointing(by_two: Path) -> None:
    plain = {"micro_batch": 3}
    trained(by_two, "kept", plain, 4)
    found = apart(by_two / "kept", by_two / "checkpointing")
    assert found["tokens"] == 0 and max(found.values()) < 1e-3


def test_what_does_not_go_in_shards_is_a_line() -> None:
    from learning.errors import TrainingError
    from learning.policy import sharding
    from learning.processes import Processes

    with pytest.raises(TrainingError, match="batch = 9 is no multiple of 2 processes"):
        sharding.check(9, False, Processes(2, 0))
    with pytest.raises(TrainingError, match="four_bit and FSDP"):
        sharding.check(8, True, Processes(2, 0))
    sharding.check(8, False, Processes(2, 0))
