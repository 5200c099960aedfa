"""A real SIGKILL in the middle of a run, and two processes that train one policy."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from learning.policy import curves
from tests.learning.policy.small import llama

pytestmark = pytest.mark.e2e
torch.set_num_threads(1)
ROOT = Path(__file__).parents[3]

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


def launched(tmp_path: Path, *arguments: str, launcher: tuple[str, ...] = ()) -> int:
    script = tmp_path / "run.py"
    script.write_text(RUN)
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, *launcher, str(script), *arguments]
    return subprocess.run(command, cwd=tmp_path, env=environment, timeout=240).returncode


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


def test_two_processes_share_a_batch(place: Path, tmp_path: Path) -> None:
    launcher = ("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2")
    launcher += ("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no")
    launcher += ("--main_process_port", "0")
    assert launched(tmp_path, str(place), str(tmp_path / "two"), "-1", launcher=launcher) == 0
    lines = curves.read(tmp_path / "two")
    assert [line["update"] for line in lines] == [1, 2, 3, 4, 5]  # one process writes
    assert all(line["replies"] == 8 for line in lines)
    assert lines[0]["kl"] == pytest.approx(0, abs=1e-3)
    assert (tmp_path / "two" / "adapter" / "adapter_model.safetensors").is_file()
