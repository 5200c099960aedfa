"""`accelerate launch` and `--processes`: who speaks, what an error looks like, that all end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import yaml

from learning.errors import TrainingError
from learning.launch import launch
from tests.learning import tiny
from tests.learning.launching import ROOT
from tests.learning.policy.small import llama

pytestmark = pytest.mark.e2e

GELI = [sys.executable, "-m", "agent.cli"]
CONFIGS = ROOT / "configs" / "accelerate"
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]

FAILS = """
import os, signal, sys, time
from learning.errors import TrainingError
from learning.processes import Processes, told_once

how, here = sys.argv[1], Processes.join("cpu")
try:
    with told_once():
        if how == "all" or (how == "second" and here.rank == 1):
            raise TrainingError("no room", "make some")
        if how == "killed" and here.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        here.wait()
        time.sleep(60)
except TrainingError as error:
    print(f"geli: {error}", file=sys.stderr)
    sys.exit(2)
"""


def said(output: str) -> list[str]:
    """Lines without torch's own warnings."""
    return [line for line in output.splitlines() if line.startswith("geli: ")]


@pytest.mark.parametrize("how", ["all", "second"])
def test_an_error_of_any_process_is_one_line_and_ends_all(
    how: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "fails.py"
    script.write_text(FAILS)
    assert launch(2, [sys.executable, str(script), how]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.strip() == "geli: no room — make some"


def test_a_process_that_was_killed_is_named(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "fails.py"
    script.write_text(FAILS)
    with pytest.raises(TrainingError, match="process 1 of 2 was ended by SIGKILL"):
        launch(2, [sys.executable, str(script), "killed"])
    assert capfd.readouterr().err == ""


def geli(
    *arguments: str, launcher: list[str] | None = None, data: Path
) -> subprocess.CompletedProcess[str]:
    command = GELI if launcher is None else [*launcher, "-m", "agent.cli"]
    more = {"PYTHONPATH": str(ROOT), "GELI_DATA": str(data), "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [*command, *arguments],
        env=os.environ | more,
        cwd=data,
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_a_reward_and_a_policy_by_two_processes_each(tmp_path: Path) -> None:
    data = ["--data", "simulated:3:30"]
    paths = {"bert": tiny.encoder(tmp_path / "bert", "bert"), "llama": llama(tmp_path / "llama")}
    for name, path in paths.items():
        data += ["--set", f"models.paths.{name}={path}"]
    data += ["--set", "reward.encoder=bert", "--set", "reward.epochs=2"]
    by_accelerate = [*ACCELERATE, str(CONFIGS / "cpu.yaml")]
    made = geli(
        "learn", "reward", *data, "--out", "r", "--json", launcher=by_accelerate, data=tmp_path
    )
    assert made.returncode == 0, made.stderr
    found = json.loads(made.stdout)  # one of them speaks
    assert found["id"].startswith("r-") and found["epochs"] == 2
    assert len(list((tmp_path / "registry").glob("*/r-*"))) == 1
    asked = ["--reward", found["id"], "--out", "p", "--updates", "1", "--processes", "2"]
    small = {"base": "llama", "batch": 4, "samples": 2, "history_tokens": 120, "response_tokens": 6}
    for key, value in small.items():
        asked += ["--set", f"policy.{key}={value}"]
    done = geli("learn", "policy", *data, *asked, data=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 updates; the adapter is in p") and said(done.stderr) == []
    again = geli("learn", "policy", *data, *asked, data=tmp_path)
    assert again.returncode == 2 and len(said(again.stderr)) == 1


def test_accelerate_really_starts_as_many_and_what_does_not_share_says_so(tmp_path: Path) -> None:
    """With distributed_type MULTI_CPU accelerate starts one process, and does not say so."""
    by_accelerate = [*ACCELERATE, str(CONFIGS / "cpu.yaml")]
    done = geli("learn", "table", launcher=by_accelerate, data=tmp_path)
    assert said(done.stderr) == [
        "geli: 'table' runs in one process; reward and policy run in several"
    ]


def test_trl_is_refused_in_several_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from agent.config import load
    from learning.policy.train import train

    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="'rloo' runs in one process"):
        train([], None, load("cpu", ["policy.algorithm=rloo"]), tmp_path)  # type: ignore[arg-type]


def test_fewer_gpus_than_processes_is_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    from learning.processes import Processes

    monkeypatch.setenv("WORLD_SIZE", "3")
    for gpus, line in ((0, "which has no CUDA devices"), (1, "has 1 CUDA device — --processes 1")):
        monkeypatch.setattr("torch.cuda.device_count", lambda gpus=gpus: gpus)
        with pytest.raises(TrainingError) as said:
            Processes.join("cuda")
        assert line in str(said.value) and str(said.value).startswith("3 processes")


@pytest.mark.parametrize("name", ["cpu", "ddp", "fsdp"])
def test_accelerate_reads_the_shipped_configurations(name: str) -> None:
    from accelerate.commands.config.config_args import load_config_from_file

    path = CONFIGS / f"{name}.yaml"
    plain = yaml.safe_load(path.read_text())
    loaded = load_config_from_file(str(path))
    assert loaded.num_processes == plain["num_processes"] >= 2
    assert loaded.mixed_precision == "no"
    # Only these two keys are read (learning/policy/sharding.py).
    sharding = textwrap.dedent((ROOT / "learning/policy/sharding.py").read_text())
    for key in plain.get("fsdp_config", {}):
        assert key == "fsdp_version" or key.upper() in sharding
